"""The doors of the house: one typer entry point a stage, called by `dvc.yaml` or by hand."""

from collections.abc import Callable

import typer

from recolor.errors import UserError


def run(main: Callable[..., None]) -> None:
    """Runs a stage's command line. What the user can mend is told in one line; a bug keeps its traceback."""
    try:
        typer.run(main)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
