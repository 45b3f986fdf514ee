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
from typing import Any, BinaryIO

import torch
from forks import run_stage
from killed import die, die_at, fork, reached_kill_point

from recolor.training import recorder


def kill_training(model: str, folder: Path, first: int, stride: int) -> None:
    """Kills at the points FIRST, FIRST + STRIDE, ...; prints how many points there were."""
    status, points = stage(model, copy(folder, 0), point=0)
    assert status == 0
    for point in range(first, points + 1, stride):
        work = copy(folder, point)
        status, _ = stage(model, work, point=point)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, (point, status)
        status, _ = stage(model, work, point=0)
        assert status == 0, point
    print(points)


def copy(folder: Path, point: int) -> Path:
    return Path(shutil.copytree(folder, f"{folder}.{point}"))


def stage(model: str, work: Path, point: int) -> tuple[int, int]:
    """Runs the stage in a fork, killed at `point`, if it is not 0; returns its wait status and how many points it passed."""

    def train() -> None:
        die_at(point)
        os.chdir(work)
        sys.stdout = sys.stderr = Path("log").open("a", buffering=1)  # noqa: SIM115
        for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
            setattr(os, name, at_a_point(getattr(os, name)))
        recorder.CHECKPOINT_SECONDS = 0
        Path.write_bytes = at_a_point(model_half_way(Path.write_bytes))
        torch.save = at_a_point(checkpoint_half_way(torch.save))
        try:
            run_stage(f"train mine {model}")
        except SystemExit as end:
            assert not end.code

    return fork(train)


def at_a_point(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if reached_kill_point():
            die()
        return function(*arguments, **options)

    return wrapped


def model_half_way(write_bytes: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(path: Path, content: bytes) -> None:
        if reached_kill_point():
            write_bytes(path, content[: len(content) // 2])
            die()
        write_bytes(path, content)

    return wrapped


def checkpoint_half_way(save: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(state: Any, file: BinaryIO) -> None:
        save(state, file)
        if reached_kill_point():
            file.truncate(file.tell() // 2)
            die()

    return wrapped
