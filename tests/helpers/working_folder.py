"""A working folder in which tests run single stages, without DVC."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clone import contents
from forks import Fork, forked, run_stage
from surroundings import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # the current folder comes before it


def checkpoints(work: Path, name: str = "gan") -> list[str]:
    """The steps of the checkpoints in the folder, for each training in turn."""
    return [path.stem for path in sorted((work / "data/checkpoints").glob(f"mine-{name}-*/*.pt"))]


def outputs(work: Path, models: tuple[str, ...] = ("gan", "wgan")) -> dict[str, bytes]:
    made = contents(work / "data/models/mine").items()
    return {name: file for name, file in made if not name.endswith(".lock") and name.startswith(models)}


def stage(
    work: Path, name: str = "train mine gan", before: Callable[[], object] = int
) -> subprocess.CompletedProcess[str]:
    return forked(run_stage, name, before, cwd=work)


@contextmanager
def running(work: Path, name: str = "train mine gan") -> Iterator[Fork]:
    """The stage, past its first epoch of many."""
    with Fork(run_stage, name, cwd=work) as process:
        while "epoch" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        yield process
