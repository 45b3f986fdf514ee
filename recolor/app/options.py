"""What several commands of `recolor` have in common: options, and how an error is printed."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recolor.core.errors import UserError

INTERRUPTED = 130  # the exit status after Ctrl-C

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="DATASET/MODEL, or a model's folder; see `recolor models`.")
]
Device = Annotated[
    str, typer.Option(help="Where the network runs: auto (a GPU if there is one), cpu, mps, cuda, or cuda:N.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


class Group(TyperGroup):
    """Prints a UserError in one line; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
