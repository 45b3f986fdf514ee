"""A film, and films coloured by a tiny model."""

from pathlib import Path

import pytest

pytest.importorskip("av", reason="the extra `video` is not installed")
pytest.importorskip("cv2", reason="the extra `video` is not installed")

from films import moving, write_film

from recolor.inference.colorizer import Colorizer
from recolor.inference.options import Options
from recolor.video import film
from recolor.video.film import colorize_film


class Run:
    """Colours films without loss and gives the results. `notes`: of the last one."""

    def __init__(self, colorizer: Colorizer, folder: Path) -> None:
        self._colorizer, self._folder = colorizer, folder
        self.notes: list[str] = []

    def __call__(self, path: Path, target: str = "", **options: object) -> Path:
        result = self._folder / (target or f"{path.stem}-recolor{path.suffix}")
        chosen = Options(**{"quality": 100, **options})
        self.notes = colorize_film(self._colorizer, path, result, chosen, force=True)
        return result


@pytest.fixture
def run(colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """With segments of 16 frames."""
    monkeypatch.setattr(film, "SEGMENT", 16)
    return Run(colorizer, tmp_path)


@pytest.fixture
def short_film(tmp_path: Path) -> Path:
    """A second and a half: three segments, the last one of them of 5 frames."""
    return write_film(tmp_path / "film.mp4", moving(37), sound=True)
