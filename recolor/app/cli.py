"""The `recolor` command for people. What a command needs is imported when it runs: `recolor --help` waits for nothing."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from recolor.core.errors import UserError
from stages import paths

MODELS = paths.model("", "")  # the folder of all datasets
GALLERIES = Path("data/gallery")


class _Group(TyperGroup):
    """What the user can mend is told in one line; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Gives grey photos their colours, with the models that `dvc repro` trains.",
)

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="DATASET/MODEL, or a model's folder; see `recolor models`.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the network runs; auto: a GPU if there is one.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


@app.command()
def colorize(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, and folders with photos in them or in their subfolders.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A folder, or one photo's file. Default: NAME-recolor.SUFFIX, next to the photo."
        ),
    ] = None,
    model: Model = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="The photo on the left, its result on the right.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Side of the square that the network sees, in pixels; memory and time grow with its square. "
            "Default: as it was trained.",
        ),
    ] = None,
    upsampling: Annotated[
        Literal["guided", "bicubic"],
        typer.Option(help="How its colours reach the photo's size: guided by the photo's edges, or smoothly."),
    ] = "guided",
    strength: Annotated[
        float, typer.Option(min=0, help="Of the colours: 0 is grey, 1 as predicted, more is gaudy.")
    ] = 1.0,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Colours photos of any size and format; those that have colours already lose them first.

    Every detail of the photo is kept, and so are its EXIF data, date, format and transparency. SUFFIX is the photo's own; .jpg,
    .png and so on where that says another format than the file has; .png for formats that are not written, like GIF and HEIC.
    Results have 8 bits a channel, also of photos with more, and of several pages or frames the first; both is noted. The model
    is by default the newest, by the dates of its files, that `loss` in params.yaml names. Photos that cannot be done are told
    at the end, and the exit status is 1.
    """
    from recolor.inference.colorizer import Colorizer
    from recolor.inference.files import colorize_files
    from recolor.inference.plan import plan

    jobs = plan(photos, out, force)
    folder = _folder(model)
    colorizer = Colorizer.load(folder, device)
    typer.echo(f"model: {folder} ({_describe(colorizer.card)})")
    done = colorize_files(
        colorizer, jobs, size=size, upsampling=upsampling, strength=strength, side_by_side=side_by_side
    )
    _report(done, len(jobs))


@app.command()
def models() -> None:
    """Lists the trained models, newest first, with their scores on test photos; * marks what `recolor colorize` takes."""
    from recolor.models.export import SCORES, NotEvaluatedError, trained
    from recolor.models.folder import ModelError, read_card

    folders = trained(MODELS)
    if not folders:
        raise UserError(f"{MODELS}: no models yet; `dvc repro` trains them")
    default = _default()
    for folder in folders:
        try:
            card = read_card(folder)
        except ModelError as error:
            typer.echo(f"  {error}")
            continue
        typer.echo(f"{'*' if folder == default else ' '} {folder.relative_to(MODELS).as_posix()}: {_describe(card)}")
        try:
            scores = _scores(folder, card)
        except NotEvaluatedError:
            typer.echo("    not evaluated since it was trained; run `dvc repro`")
            continue
        except ModelError as error:
            typer.echo(f"    {error}")
            continue
        tested = [row for row in scores if (row["split"], row["model"]) == ("test", folder.name)]
        shown = [f"{name} {row[key]:.4g}" for row in tested for key, name in SCORES.items() if key in row]
        typer.echo(f"    {', '.join(shown) or 'not evaluated'}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="DATASET/MODEL, or a model's folder; see `recolor models`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder; with --onnx, the file.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="One ONNX file instead: lightness in, ab out, any batch size.")
    ] = False,
    force: Force = False,
) -> None:
    """Makes a bundle of a model, to hand out: weights, model.json and a model card, a folder that --model takes anywhere."""
    from recolor.models import export as bundle
    from recolor.models.folder import read_card

    folder = _folder(model)
    if onnx:
        bundle.export_onnx(folder, out, force)
    else:
        bundle.export(folder, out, _scores(folder, read_card(folder)), force)
    typer.echo(f"{folder} -> {out}")


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="DATASET/MODEL, or a model's folder, to be shown first; any number."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Serves a page on this machine: drop a photo, see it in colour, compare models. Needs recolor[demo]."""
    from importlib.util import find_spec

    from recolor.models.export import trained
    from recolor.models.folder import ModelError, read_card

    if find_spec("gradio") is None:
        raise UserError("gradio is missing: pip install 'recolor[demo]'")
    from recolor.app.demo import serve

    named = [_folder(name) for name in model or []]
    folders = []
    for folder in dict.fromkeys([*(named or [_folder(None)]), *trained(MODELS)]):
        try:
            read_card(folder)
        except ModelError as error:
            if folder in named:
                raise
            typer.echo(f"left out: {error}", err=True)
        else:
            folders.append(folder)
    if not folders:
        raise UserError(f"{MODELS}: no model that can be read; `dvc repro` trains them, --model names another")
    serve({_shown(folder): folder for folder in folders}, host, port, device)


@app.command()
def gallery(
    dataset: Annotated[str, typer.Argument(help="One that `dvc repro` has evaluated, like sample.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder. Default: data/gallery/DATASET.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Photos shown; of more, as many from all over the split.")] = 200,
    device: Device = "auto",
) -> None:
    """Makes a page of the test photos, to sort and look at: input, what each model made of it, truth. Works from disk."""
    from recolor.reporting.gallery import write_gallery

    models = {name: paths.model(dataset, name) for name in paths.MODELS}
    out = out or GALLERIES / dataset
    count = write_gallery(out, dataset, paths.cache(dataset), models, paths.metrics(dataset), limit, device)
    typer.echo(f"{count} photos: {out / 'index.html'}")


def _folder(model: str | None) -> Path:
    """The folder of the model that was named, or of the default one."""
    if model is not None:
        named = MODELS / model
        return named if named.is_dir() and not Path(model).is_dir() else Path(model)
    folder = _default()
    if folder is None:
        raise UserError(f"{MODELS}: no model here yet; run `dvc repro` first, or name a model's folder with --model")
    return folder


def _default() -> Path | None:
    """The newest model that `loss` names; None where nothing is trained, or this is not the repository's root."""
    from recolor.core.params import Params
    from recolor.models.export import trained

    if not paths.PARAMS.exists():
        return None
    loss = Params(paths.PARAMS).value("loss", str)
    return next((folder for folder in trained(MODELS) if folder.name == loss), None)


def _shown(folder: Path) -> str:
    """What a model is called on a page."""
    return folder.relative_to(MODELS).as_posix() if folder.is_relative_to(MODELS) else str(folder)


def _describe(card: dict[str, Any]) -> str:
    from recolor.models.export import describe

    return describe(card)


def _scores(folder: Path, card: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a model of the pipeline, what its evaluation left; of a bundle, what came with it."""
    from recolor.models.export import read_scores

    dataset, name = folder.resolve().parent.name, folder.resolve().name
    of_pipeline = folder.resolve() == paths.model(dataset, name).resolve()
    return read_scores(paths.metrics(dataset), folder) if of_pipeline else card.get("scores", [])


def _report(jobs: Iterable[Any], total: int) -> None:
    """Prints what becomes of each job as it is done. The exit status is 1 where one failed."""
    from tqdm import tqdm

    from recolor.core.progress import progress
    from recolor.images.decoding import listed_name

    failed = skipped = 0
    for job in progress(jobs, total, "colorize"):
        source = listed_name(str(job.source))
        if job.problem:
            failed, skipped = failed + (not job.skipped), skipped + job.skipped
            tqdm.write(f"{'skipped' if job.skipped else 'error'}: {source}: {job.problem}", file=sys.stderr)
        else:
            note = f" ({job.note})" if job.note else ""
            tqdm.write(f"{source} -> {listed_name(str(job.target))}{note}")
    counts = {"coloured": total - failed - skipped, "failed": failed, "skipped": skipped}
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "coloured"))
    if failed:
        raise typer.Exit(1)
