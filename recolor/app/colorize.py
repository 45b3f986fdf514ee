"""`recolor colorize`: its options; photos, then films, each with a line for its result or its problem."""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from recolor.app.repository import need_model
from recolor.core.errors import UserError, printable
from recolor.inference.options import DEFAULT, MAX_SIZE, Codec, Options, Upsampling

LARGE = 10_000_000  # pixels; the bar shows progress within larger photos
SKIPPED_SHOWN = 20  # of the photos whose result exists: a continued run may have thousands
INTERRUPTED = 130  # the exit status after Ctrl-C

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="DATASET/MODEL, or a model's folder; see `recolor models`.")
]
Device = Annotated[
    str, typer.Option(help="Where the network runs: auto (a GPU if there is one), cpu, mps, cuda, or cuda:N.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]

Photos = Annotated[list[Path], typer.Argument(help="Photos, films, and folders with them in it or in its subfolders.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="A folder, or one result's file. Default: NAME-recolor.SUFFIX, next to the photo."
    ),
]
SideBySide = Annotated[bool, typer.Option("--side-by-side", help="Photo left, result right.")]
SIZE_HELP = (
    "Side, in pixels, of the square that the network sees: a multiple of 32 for the models that come with recolor. "
    "Memory and time grow with its area. Default: as in training."
)
Size = Annotated[int | None, typer.Option(min=1, max=MAX_SIZE, help=SIZE_HELP)]
UpsamplingOption = Annotated[
    Upsampling,
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
Damaged = Annotated[bool, typer.Option("--damaged", help="Colour the part of a truncated JPEG that is there.")]
STEADY_HELP = "Of films: how much colour stays from frame to frame. 0: none."
Steady = Annotated[float, typer.Option(min=0, max=1, help=STEADY_HELP)]
CodecOption = Annotated[Codec, typer.Option(help="Of films: how their pictures are encoded.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Of films: where to begin, in seconds or H:MM:SS.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Of films: where to end.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Skip photos whose result exists, to continue a stopped run.")
]


def colorize(
    photos: Photos,
    out: Out = None,
    model: Model = None,
    side_by_side: SideBySide = False,
    size: Size = None,
    upsampling: UpsamplingOption = DEFAULT.upsampling,
    strength: Strength = DEFAULT.strength,
    quality: Quality = None,
    all_pages: AllPages = False,
    damaged: Damaged = False,
    steady: Steady = DEFAULT.steady,
    codec: CodecOption = DEFAULT.codec,
    start: Start = None,
    end: End = None,
    device: Device = "auto",
    skip_existing: SkipExisting = False,
    force: Force = False,
) -> None:
    """Colours photos and films of any size and format. Existing colours are removed first.

    Every detail of the photo is kept, and so are its EXIF data, date, format and transparency. SUFFIX is the photo's own; .jpg,
    .png and so on where its content is in another format; .png for formats that are not written, such as GIF and HEIC. Results
    have 8 bits a channel. Of several pages or frames the first is coloured, or the largest where the first is its thumbnail.

    A film keeps its luma, sound, subtitles, chapters and frame times. SUFFIX is its own where it is mp4, m4v, mov or mkv, else
    .mkv. After Ctrl-C the same command continues with a film. Needs recolor[video].

    Without --model, it is the newest model trained on photos of your own, then the one that comes with recolor, then the one of
    the sample. The exit status is 1 if a photo or film failed.
    """
    from recolor.inference.plan import plan
    from recolor.models.folder import describe, read_card

    folder, reason = need_model(model)
    typer.echo(printable(f"model: {folder} ({describe(read_card(folder))}): {reason}"))
    part = seconds("--start", start), seconds("--end", end)
    options = Options(size, upsampling, strength, side_by_side, quality, steady, codec, *part)
    try:
        jobs = plan(photos, out, force, skip_existing, all_pages)
        if all(job.problem for job in jobs):  # without the seconds that the network takes to load
            counts = _print(jobs)
        else:
            from recolor.inference import Colorizer

            colorizer = Colorizer.load(folder, device)
            counts = _print(_photos(colorizer, [job for job in jobs if not job.film], options, damaged))
            counts.update(_print(_film(colorizer, job, options) for job in jobs if job.film))
    except KeyboardInterrupt:
        typer.echo("stopped" if force else "stopped: the same command with --skip-existing continues", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "coloured"))
    if counts["failed"]:
        raise typer.Exit(1)


def _photos(colorizer: Any, jobs: list[Any], options: Any, damaged: bool) -> Iterator[Any]:
    """Colours photos (see `colorize_files`) under a bar, which also shows what is done to a large one."""
    from tqdm import tqdm

    from recolor.inference.files import colorize_files

    with tqdm(total=len(jobs), desc="colorize", disable=None, leave=False) as bar:

        def notify(job: Any, state: str) -> None:
            if job.pixels > LARGE:
                bar.set_postfix_str(f"{job.source.name}: {state}")

        for job in colorize_files(colorizer, jobs, options, damaged=damaged, notify=notify):
            yield job
            bar.update()


def _film(colorizer: Any, job: Any, options: Any) -> Any:
    """Colours a film (see `colorize_film`) under a bar. Ctrl-C ends the command with a line on the frames done."""
    if job.problem:
        return job
    if not films_are_possible():
        return job._replace(problem="films need PyAV and OpenCV: pip install 'recolor[video]'")
    from tqdm import tqdm

    from recolor.video.film import colorize_film

    with tqdm(unit=" frames", desc=job.source.name, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            reached[:] = [done, total]
            bar.total = total or None
            if not bar.n:
                bar.initial = done  # frames of an earlier run are not part of the speed
            bar.update(done - bar.n)

        reached = [0, 0]
        try:
            notes = colorize_film(colorizer, job.source, job.target, options, job.force, progress)
        except (OSError, UserError) as error:
            return job.failed(error)
        except KeyboardInterrupt:
            bar.close()
            done, total = reached
            frames = f"{done} of {total} frames" if total else f"{done} frames"
            stopped = f"stopped: {job.source}: {frames}; the same command continues from there"
            typer.echo(printable(stopped), err=True)
            raise typer.Exit(INTERRUPTED) from None
    return job._replace(note="; ".join(notes))


def films_are_possible() -> bool:
    """Whether the extra `video` is installed."""
    return find_spec("av") is not None and find_spec("cv2") is not None


def _print(jobs: Iterable[Any]) -> Counter[str]:
    from tqdm import tqdm

    from recolor.images.opening import listed_name
    from recolor.inference.plan import EXISTS

    counts, existing = Counter(coloured=0, failed=0, skipped=0), 0
    for job in jobs:
        source = listed_name(str(job.source))
        counts["skipped" if job.skipped else "failed" if job.problem else "coloured"] += 1
        if not job.problem:
            note = f" ({job.note})" if job.note else ""
            tqdm.write(f"{source} -> {listed_name(str(job.target))}{note}")
        elif not job.skipped:
            tqdm.write(f"error: {source}: {printable(job.problem)}", file=sys.stderr)
        elif job.problem != EXISTS.format(job.target):
            tqdm.write(f"skipped: {source}: {printable(job.problem)}", file=sys.stderr)
        elif (existing := existing + 1) <= SKIPPED_SHOWN:
            tqdm.write(f"skipped: {source}: {printable(str(job.target))} exists already", file=sys.stderr)
    if existing > SKIPPED_SHOWN:
        typer.echo(f"skipped: {existing - SKIPPED_SHOWN} more whose result exists already", err=True)
    return counts


def seconds(option: str, text: str | None) -> float | None:
    """The seconds in "90", "1:30" or "0:01:30.5". Raises UserError, which names `option`, for anything else."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 <= number < math.inf for number in numbers):
        raise UserError(f"{option}: got {text}; must be seconds or H:MM:SS")
    return reduce(lambda value, number: 60 * value + number, numbers)
