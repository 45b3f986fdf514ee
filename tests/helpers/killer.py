"""Trains in copies of a folder, killed at every STRIDE-th point in turn.

The points are the moments before each operation that changes a file, and the middle of every write of tensors. In FOLDER.0
nothing is killed; in FOLDER.N the stage is killed with SIGKILL at its N-th point, and then run again, undisturbed.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forks import run_stage

from recolor.models import folder as checkpoint
from recolor.training import recorder

passed = 0


def kill_training(model: str, folder: Path, first: int, stride: int) -> None:
    """Kills at the points FIRST, FIRST + STRIDE, ...; prints how many points there were."""
    status, points = stage(model, copy(folder, 0), die_at=0)
    assert status == 0
    for point in range(first, points + 1, stride):
        work = copy(folder, point)
        status, _ = stage(model, work, die_at=point)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, (point, status)
        status, _ = stage(model, work, die_at=0)
        assert status == 0, point
    print(points)


def copy(folder: Path, point: int) -> Path:
    return Path(shutil.copytree(folder, f"{folder}.{point}"))


def stage(model: str, work: Path, die_at: int) -> tuple[int, int]:
    """Runs the stage in a fork; returns its wait status and the number of points that it passed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(work)
        sys.stdout = sys.stderr = Path("log").open("a", buffering=1)  # noqa: SIM115
        for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
            setattr(os, name, at_a_point(getattr(os, name), die_at))
        recorder.CHECKPOINT_SECONDS = 0
        checkpoint.save_file = at_a_point(half_way(checkpoint.save_file, die_at), die_at)
        code = 1
        try:
            run_stage(f"train mine {model}")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.write(writer, str(passed).encode())
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return status, int(file.read() or 0)


def point(die_at: int) -> bool:
    global passed
    passed += 1
    return passed == die_at


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_a_point(function: Callable[..., Any], die_at: int) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if point(die_at):
            die()
        return function(*arguments, **options)

    return wrapped


def half_way(save_file: Callable[..., Any], die_at: int) -> Callable[..., Any]:
    """Safetensors writes to .tmpXXXXXX and renames that: the same, up to the middle."""

    def wrapped(tensors: Any, path: Path, header: Any) -> None:
        save_file(tensors, path, header)
        if point(die_at):
            content = path.read_bytes()
            path.with_name(".tmpABCDEF").write_bytes(content[: len(content) // 2])
            Path(path).chmod(0o600)
            os.truncate(path, len(content) // 2)
            die()

    return wrapped
