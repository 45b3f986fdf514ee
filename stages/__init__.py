"""The doors of the house: one typer entry point a stage, called by `dvc.yaml` or by hand."""

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from recolor.errors import UserError
from recolor.params import Params
from stages import paths

_watched: list[Params] = []


def read_params(dataset: str | None = None) -> Params:
    """`params.yaml` as the dataset sees it, to be looked at once more when the stage ends."""
    _watched.append(Params(paths.PARAMS, dataset))
    return _watched[-1]


def run(main: Callable[..., None]) -> None:
    """Runs a stage's command line. What the user can mend is told in one line; a bug keeps its traceback.

    DVC hashes a stage's params and modules when its command ends, so one that were edited meanwhile would be recorded as what
    ran: the stage fails instead.
    """

    @functools.wraps(main)
    def watched(*args: object, **kwargs: object) -> None:
        before = _modules()
        main(*args, **kwargs)
        for params in _watched:
            params.check_unchanged()
        after = _modules()
        for path in map(Path, (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))):
            if before.get(path) != after.get(path):
                raise UserError(f"{path.name} was edited while this ran; run it again")

    try:
        typer.run(watched)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


def _modules() -> dict[Path, str]:
    folders = (Path(__file__).parent, Path(sys.modules["recolor"].__file__ or "").parent)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for folder in folders for path in folder.glob("*.py")}
