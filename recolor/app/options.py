"""What several commands of `recolor` have in common, the options of `recolor colorize`, and how an error is printed."""

from pathlib import Path
from typing import Annotated, Any, Literal

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

# Of `recolor colorize`.
Photos = Annotated[list[Path], typer.Argument(help="Photos, films, and folders with them in it or in its subfolders.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="A folder, or one result's file. Default: NAME-recolor.SUFFIX, next to the photo."
    ),
]
SideBySide = Annotated[bool, typer.Option("--side-by-side", help="Photo left, result right.")]
SIZE_HELP = (
    "Side of the square that the network sees, in pixels; memory and time grow with its square. Default: the size that the "
    "model was trained on."
)
Size = Annotated[int | None, typer.Option(min=1, max=4096, help=SIZE_HELP)]
Upsampling = Annotated[
    Literal["guided", "bicubic"],
    typer.Option(help="How colour is brought to the photo's size: guided by the photo's edges, or smooth."),
]
Strength = Annotated[
    float, typer.Option(min=0, help="Strength of the colours: 0 is grey, 1 as predicted, more is stronger.")
]
QUALITY_HELP = "Of JPEG, WebP, AVIF and films. Default: 95, WebP lossless, 90, 64."
Quality = Annotated[int | None, typer.Option(min=1, max=100, help=QUALITY_HELP)]
AllPages = Annotated[
    bool, typer.Option("--all-pages", help="Every page or frame of a file, each to a file of its own.")
]
Damaged = Annotated[bool, typer.Option("--damaged", help="Colour what there is of a cut JPEG.")]
STEADY_HELP = "Of films: how much colour stays from frame to frame. 0: none. Default: 0.9."
Steady = Annotated[float | None, typer.Option(min=0, max=1, help=STEADY_HELP)]
Codec = Annotated[
    Literal["h264", "h265", "av1", "vp9", "ffv1"], typer.Option(help="Of films: how their pictures are encoded.")
]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Of films: where to begin, in seconds or H:MM:SS.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Of films: where to end.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Pass over photos whose result exists: continues a stopped run.")
]


class Group(TyperGroup):
    """Prints a UserError in one line; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
