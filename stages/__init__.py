"""The entry points: one typer command a stage, called by `dvc.yaml` or by hand."""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from recolor.core.errors import UserError
from recolor.core.params import Params
from recolor.core.signals import on_stop_signals
from recolor.core.storage import file_sha256
from stages import paths

Dataset = Annotated[str, typer.Argument(help="An entry of data in params.yaml, such as sample, coco or mine.")]
_at_end: list[Callable[[], None]] = []


def read_params(dataset: str | None = None) -> Params:
    """`params.yaml` as the dataset sees it. When the stage ends, it is compared with the file."""
    params = Params(paths.PARAMS, dataset)
    at_end(params.check_unchanged)
    return params


def at_end(action: Callable[[], None]) -> None:
    """Calls `action` when the stage has succeeded and none of its modules was edited, after the actions before it."""
    _at_end.append(action)


def run(main: Callable[..., None]) -> None:
    """Runs a stage's command line. User errors and stop signals end it with one line; a bug keeps its traceback.

    If a setting or module was edited meanwhile, the stage fails: DVC, which hashes them now, would record the edit as what ran.
    """

    @functools.wraps(main)
    def watched(*args: object, **kwargs: object) -> None:
        before = _modules()
        _end_with_dvc()
        main(*args, **kwargs)
        after = _modules()
        for path in (Path(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())):
            if before.get(path) != after.get(path):
                raise UserError(f"{path.name} was edited while this ran; run it again")
        for action in _at_end:
            action()

    stopped_by: list[str] = []

    def stop(signal_name: str) -> None:
        stopped_by.append(signal_name)
        raise _Stopped

    on_stop_signals(stop)
    try:
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command()(watched)
        app()
    except BaseException as error:  # a library may have turned _Stopped into an error of its own
        if not (stopped_by or isinstance(error, UserError)):
            raise
        line = f"stopped by {stopped_by[0]}; `dvc repro` continues" if stopped_by else str(error)
        typer.echo(f"error: {line}", err=True)
        raise SystemExit(1) from None


class _Stopped(BaseException):
    """Ends a stage from within at a signal, so that its files are removed or complete; no `except Exception` catches it."""


def _end_with_dvc() -> None:
    """Ends the stage with SIGTERM when the DVC that runs it was killed, so that the next `dvc repro` can continue."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil  # installed with DVC

    # Some shells (dash) and torchrun stay between DVC and the stage. Their command lines name the stage; DVC's does not.
    spec = sys.modules["__main__"].__spec__  # of the module that `python -m` runs, such as stages.train
    stage, highest = spec.name if spec else sys.argv[0], psutil.Process()
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


def _modules() -> dict[Path, str]:
    """The SHA-256 of each file of stages and recolor."""
    root = Path(__file__).parent.parent
    return {path: file_sha256(path) for folder in ("recolor", "stages") for path in (root / folder).rglob("*.py")}
