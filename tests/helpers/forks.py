"""Stages, and other functions, in processes of their own: forks of one process that has done the slow imports."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from stages import paths, run

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["stages.training", "torch._dynamo"])


class Fork:
    """Calls `function(*arguments)` in the folder `cwd`; has the attributes of subprocess.Popen that tests use.

    Both have to be importable in another process: no lambdas. The output has to fit into a pipe, of 64 KiB.
    """

    def __init__(self, function: Callable[..., object], *arguments: object, cwd: Path) -> None:
        (stdout, out), (stderr, err) = (CONTEXT.Pipe(duplex=False) for _ in range(2))
        self._process = CONTEXT.Process(target=_main, args=(out, err, cwd, function, arguments))
        self._process.start()
        out.close()
        err.close()
        self.pid: int = self._process.pid
        self.stdout, self._stderr = (os.fdopen(os.dup(stream.fileno())) for stream in (stdout, stderr))

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_until_stopped(self) -> None:
        """Until a SIGSTOP has stopped it."""
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)

    def communicate(self) -> tuple[str, str]:
        """What it has printed since the last line that was read; returns when it has ended."""
        with self.stdout, self._stderr:
            printed = self.stdout.read(), self._stderr.read()
        self._process.join()
        return printed

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def forked(function: Callable[..., object], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a Fork has printed, and its exit status, when it has ended."""
    process = Fork(function, *arguments, cwd=cwd)
    printed = process.communicate()
    return subprocess.CompletedProcess((function, *arguments), process.returncode, *printed)


def _main(
    out: Connection, err: Connection, cwd: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    restore_signals()
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.chdir(cwd)
    function(*arguments)


def restore_signals() -> None:
    """As from a terminal: a shell's background job ignores Ctrl-C, and what nohup has started a hangup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def run_stage(name: str, before: Callable[[], object] = int) -> None:
    """Runs a stage, such as "train mine gan", in this process, after `before`."""
    before()
    importlib.reload(paths)  # depends on the current folder
    sys.argv = name.split()
    run(importlib.import_module(f"stages.{sys.argv[0]}").main)
