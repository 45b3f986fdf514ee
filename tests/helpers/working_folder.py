"""A working folder in which tests run single stages, without DVC."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clone import contents
from surroundings import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # the current folder comes before it


def checkpoints(work: Path, name: str = "gan") -> list[str]:
    """The steps of the checkpoints that lie there, for each training in turn."""
    return [path.stem for path in sorted((work / "data/checkpoints").glob(f"mine-{name}-*/*.safetensors"))]


def outputs(work: Path, models: tuple[str, ...] = ("gan", "wgan")) -> dict[str, bytes]:
    made = contents(work / "data/models/mine").items()
    return {name: file for name, file in made if not name.endswith(".lock") and name.startswith(models)}


def stage(work: Path, name: str = "train mine gan", **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *f"stages.{name}".split()]
    return subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


@contextmanager
def running(work: Path, name: str = "train mine gan") -> Iterator[subprocess.Popen[str]]:
    """The stage, past its first epoch of many."""
    process = subprocess.Popen(
        [sys.executable, "-m", *f"stages.{name}".split()],
        cwd=work,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        while "epoch" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()
