"""Files coloured by a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recolor.inference.colorizer import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.options import Options
from recolor.inference.plan import Job, plan


@pytest.fixture
def run(colorizer: Colorizer) -> Callable[..., dict[str, Job]]:
    """Colours photos; gives the jobs by the names of their photos."""

    def colour(
        *photos: Path,
        out: Path | None = None,
        force: bool = False,
        damaged: bool = False,
        notify: Callable[[Job, str], None] = lambda job, state: None,
        **options: object,
    ) -> dict[str, Job]:
        done = colorize_files(colorizer, plan(photos, out, force), Options(**options), damaged=damaged, notify=notify)
        return {job.source.name: job for job in done}

    return colour
