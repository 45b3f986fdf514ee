"""The doors of the house: one typer entry point a stage, called by `dvc.yaml` or by hand."""

import functools
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from recolor.core.errors import UserError
from recolor.core.params import Params
from stages import paths

_watched: list[Params] = []
_at_end: list[Callable[[], None]] = []


def read_params(dataset: str | None = None) -> Params:
    """`params.yaml` as the dataset sees it, to be looked at once more when the stage ends."""
    _watched.append(Params(paths.PARAMS, dataset))
    return _watched[-1]


def at_end(action: Callable[[], None]) -> None:
    """Puts `action` off until the stage has ended well, settings and modules being what they were when it began."""
    _at_end.append(action)


def run(main: Callable[..., None]) -> None:
    """Runs a stage's command line. What the user can mend, or has stopped, is told in one line; a bug keeps its traceback.

    DVC hashes a stage's params and modules when its command ends, so one that were edited meanwhile would be recorded as what
    ran: the stage fails instead.
    """

    @functools.wraps(main)
    def watched(*args: object, **kwargs: object) -> None:
        before = _modules()
        _end_with_dvc()
        main(*args, **kwargs)
        for params in _watched:
            params.check_unchanged()
        after = _modules()
        for path in map(Path, (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))):
            if before.get(path) != after.get(path):
                raise UserError(f"{path.name} was edited while this ran; run it again")
        for action in _at_end:
            action()

    stopped_by = _stop_on_signals()
    try:
        typer.run(watched)
    except (
        BaseException
    ) as error:  # whatever a library has made of a signal's _Stopped, which a bare `except` takes away
        if not (stopped_by or isinstance(error, UserError)):
            raise
        line = f"stopped by {stopped_by[0]}; `dvc repro` goes on" if stopped_by else str(error)
        typer.echo(f"error: {line}", err=True)
        raise SystemExit(1) from None


class _Stopped(BaseException):
    """Ends a stage from within, so that it leaves nothing half behind; no `except Exception` on its way stops it."""


def _stop_on_signals() -> list[str]:
    """Lets Ctrl-C, SIGTERM and a terminal that closes raise _Stopped; returns the list that will name the signal.

    A second one of a kind does what it did before. Training, from its compiling on, has a softer way (recolor/core/signals.py).
    """
    came: list[str] = []
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        came.append(signal.Signals(number).name)
        raise _Stopped

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # `nohup` has said already to go on
            before[number] = signal.signal(number, stop)
    return came


def _end_with_dvc() -> None:
    """Ends the stage, as SIGTERM would, soon after the DVC that runs it was killed: nobody is left to record what it makes,
    and until it ends the next `dvc repro` cannot go on from its checkpoint."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil  # DVC brings it; where DVC is not installed nothing needs it

    # Some shells (dash) stay between DVC and the stage, and torchrun does: they name the stage, and DVC's command does not.
    stage, highest = _stage_module(), psutil.Process()
    for ancestor in highest.parents():
        if stage not in " ".join(ancestor.cmdline()):
            break
        highest = ancestor
    dvc = highest.ppid()

    def watch() -> None:
        try:
            while highest.ppid() == dvc:  # a process whose parent dies gets another
                time.sleep(0.5)
        except psutil.NoSuchProcess:
            pass  # killed together with DVC
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _stage_module() -> str:
    """What `python -m` was given, such as stages.train_gan."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else sys.argv[0]


def _modules() -> dict[Path, str]:
    folders = (Path(__file__).parent, Path(sys.modules["recolor"].__file__ or "").parent)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for folder in folders for path in folder.rglob("*.py")}
