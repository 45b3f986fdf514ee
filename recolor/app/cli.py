"""The `recolor` command. What a command needs is imported when it runs, so that `recolor --help` is quick."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recolor.app.colorize import Device, Force, colorize
from recolor.app.repository import available_models, default_model, model_name, need_model, need_repository, scores_of
from recolor.app.train import train
from recolor.core.errors import UserError, printable
from recolor.core.storage import user_output
from stages import paths


class Group(TyperGroup):
    """Prints a UserError in one line; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich reads text in square brackets as markup and drops it
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"recolor {version('recolor')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Gives grey photos colours, with the models of the package or with your own."""


app.command()(colorize)
app.command()(train)


@app.command()
def models() -> None:
    """Lists the models with their scores on test photos: those that come with recolor, then those trained here, newest first.

    * marks the one that `recolor colorize` uses.
    """
    from recolor.models.folder import ModelError, describe, read_card
    from recolor.reporting.bundle import score_line

    folders, default = available_models(), default_model()
    if not folders:
        need_model(None)
    for folder in folders:
        try:
            card = read_card(folder)
        except ModelError as error:
            typer.echo(f"  {error}")
            continue
        mark = "*" if default and folder == default.folder else " "
        typer.echo(printable(f"{mark} {model_name(folder)}: {describe(card)}"))
        try:
            scores = scores_of(folder, card)
        except UserError as error:
            typer.echo(f"    {error}")
            continue
        key = "test", card.get("model", folder.name)
        lines = (f"N {row['photos']}, {score_line(row)}" for row in scores if (row["split"], row["model"]) == key)
        typer.echo(f"    {next(lines, 'not evaluated')}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="DATASET/MODEL, or a model's folder; see `recolor models`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder; with --onnx, the file.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="One ONNX file instead: lightness in, ab out, any batch size.")
    ] = False,
    float16: Annotated[
        bool, typer.Option("--float16", help="Weights in half the bytes; few values differ by more than one level.")
    ] = False,
    force: Force = False,
) -> None:
    """Copies a model to pass on: weights, model.json and a model card, in a folder that works with --model anywhere."""
    from recolor.models.export import export_onnx
    from recolor.models.folder import read_card
    from recolor.reporting import bundle

    folder = need_model(model).folder
    if onnx and float16:
        raise UserError("--onnx and --float16: an ONNX file has float32 weights; leave one of them out")
    if onnx:
        export_onnx(folder, out, force)
    else:
        bundle.export(folder, out, scores_of(folder, read_card(folder)), force, float16)
    typer.echo(printable(f"{folder} -> {out}"))


@app.command()
def average(
    models: Annotated[list[str], typer.Argument(help="Two or more, each DATASET/MODEL or a model's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    force: Force = False,
) -> None:
    """Makes one model whose weights are the mean of others', which were trained from the same weights: fewer odd colours."""
    from recolor.models.averaging import average

    folders = [need_model(model).folder for model in models]
    with user_output(out, force):
        average(folders, out)
    typer.echo(printable(f"the mean of {len(folders)} models -> {out}"))


@app.command()
def demo(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 makes the page available in the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="DATASET/MODEL, or a model's folder, to be shown first; any number."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Serves a page on this machine: drop a photo, see it in colour, compare models. Needs recolor[demo]."""
    from importlib.util import find_spec

    from recolor.models.folder import ModelError, read_card

    if find_spec("gradio") is None:
        raise UserError("gradio is not installed: pip install 'recolor[demo]'")
    from recolor.app.demo import serve

    named = [need_model(name).folder for name in model or []]
    folders = []
    for folder in dict.fromkeys([*(named or [need_model(None).folder]), *available_models()]):
        try:
            read_card(folder)
        except ModelError as error:
            if folder in named:
                raise
            typer.echo(f"left out: {error}", err=True)
        else:
            folders.append(folder)
    if not folders:
        raise UserError("no model can be read; `dvc repro` trains one, or name a model's folder with --model")
    serve({model_name(folder): folder for folder in folders}, host, port, device)


@app.command()
def gallery(
    dataset: Annotated[str, typer.Argument(help="One that `dvc repro` has evaluated, for example sample.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder. Default: data/gallery/DATASET.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most photos shown; of a larger split, evenly spaced ones.")] = 200,
    device: Device = "auto",
) -> None:
    """Makes a page of the test photos, to sort and compare: input, each model's result, truth. Opens from disk."""
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        raise UserError("pandas is not installed: pip install 'recolor[pipeline]'")
    from recolor.evaluation.scored import scored_models
    from recolor.reporting.gallery import write_gallery

    root = need_repository()
    evaluated = sorted(path.name for path in (root / paths.metrics("")).glob("*/"))
    if dataset not in evaluated:
        there = f"there are {', '.join(evaluated)}" if evaluated else "`dvc repro` evaluates one"
        raise UserError(f"{dataset}: no evaluated dataset of this name; {there}")
    models = scored_models(root / paths.model(dataset, ""))
    out = out or root / "data/gallery" / dataset
    scores = root / paths.metrics(dataset)
    count = write_gallery(out, dataset, root / paths.cache(dataset), models, scores, limit, device)
    typer.echo(printable(f"{count} photos: {out / 'index.html'}"))
