"""`recolor colorize`: its options, its progress, its lines, its exit status."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from recolor.app import options
from recolor.app.films import colorize_films, seconds
from recolor.app.repository import need_model

LARGE = 10_000_000  # pixels of a photo from which on the bar shows what is done to it
FILM_SETTINGS = ("size", "upsampling", "strength", "side_by_side", "quality")  # those that photos and films have
SKIPPED_SHOWN = 20  # of the photos whose result exists: a continued run may have thousands


def colorize(
    photos: options.Photos,
    out: options.Out = None,
    model: options.Model = None,
    side_by_side: options.SideBySide = False,
    size: options.Size = None,
    upsampling: options.Upsampling = "guided",
    strength: options.Strength = 1.0,
    quality: options.Quality = None,
    all_pages: options.AllPages = False,
    damaged: options.Damaged = False,
    steady: options.Steady = None,
    codec: options.Codec = "h264",
    start: options.Start = None,
    end: options.End = None,
    device: options.Device = "auto",
    skip_existing: options.SkipExisting = False,
    force: options.Force = False,
) -> None:
    """Colours photos and films of any size and format. Those that have colours lose them first.

    Every detail of the photo is kept, and so are its EXIF data, date, format and transparency. SUFFIX is the photo's own; .jpg,
    .png and so on where its content is in another format; .png for formats that are not written, such as GIF and HEIC.
    Results have 8 bits a channel. Of several pages or frames the first is coloured, or the largest where the first is its
    thumbnail.

    A film keeps its luma, sound, subtitles, chapters and frame times. SUFFIX is its own where it is mp4, m4v, mov or mkv, else
    .mkv. After Ctrl-C the same command goes on with a film. Needs recolor[video].

    Without --model, it is the newest model trained on photos of your own, then the one that comes with recolor, then the one of
    the sample. The exit status is 1 if a photo or film failed.
    """
    from recolor.inference.colorizer import Colorizer
    from recolor.models.export import describe

    folder, reason = need_model(model)
    colorizer = Colorizer.load(folder, device)
    typer.echo(f"model: {folder} ({describe(colorizer.card)}): {reason}")
    plan = {"force": force, "skip_existing": skip_existing, "all_pages": all_pages}
    how = {"size": size, "upsampling": upsampling, "strength": strength, "quality": quality, "damaged": damaged}
    film = {"codec": codec, "start": seconds("--start", start), "end": seconds("--end", end)}
    film |= {} if steady is None else {"steady": steady}
    try:
        colorize_photos(colorizer, photos, out, plan, film, side_by_side=side_by_side, **how)
    except KeyboardInterrupt:
        typer.echo("stopped: the same command with --skip-existing continues", err=True)
        raise typer.Exit(options.INTERRUPTED) from None


def colorize_photos(
    colorizer: Any, photos: list[Path], out: Path | None, plan: dict[str, Any], film: dict[str, Any], **how: Any
) -> None:
    """Colours photos, then films, and prints what becomes of each as it is done. The exit status is 1 where one failed.

    `plan` and `how`: the settings of `plan` and of `colorize_files`; `film`: those that only films have.
    """
    from recolor.inference.files import colorize_files
    from recolor.inference.plan import plan as make_plan

    jobs = make_plan(photos, out, **plan)
    with _bar(sum(not job.film for job in jobs)) as bar:

        def notify(job: Any, state: str) -> None:
            if job.pixels > LARGE:
                bar.set_postfix_str(f"{job.source.name}: {state}")

        done = colorize_files(colorizer, [job for job in jobs if not job.film], notify=notify, **how)
        counts = _print(_advancing(done, bar))
    films = [job for job in jobs if job.film]
    counts.update(_print(colorize_films(colorizer, films, **film, **{name: how[name] for name in FILM_SETTINGS})))
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "coloured"))
    if counts["failed"]:
        raise typer.Exit(1)


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
            tqdm.write(f"error: {source}: {job.problem}", file=sys.stderr)
        elif job.problem != EXISTS.format(job.target):
            tqdm.write(f"skipped: {source}: {job.problem}", file=sys.stderr)
        elif (existing := existing + 1) <= SKIPPED_SHOWN:
            tqdm.write(f"skipped: {source}: {job.target} exists already", file=sys.stderr)
    if existing > SKIPPED_SHOWN:
        typer.echo(f"skipped: {existing - SKIPPED_SHOWN} more whose result exists already", err=True)
    return counts


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="colorize", disable=None, leave=False)  # None: where stderr is no terminal


def _advancing(jobs: Iterable[Any], bar: Any) -> Iterator[Any]:
    for job in jobs:
        yield job
        bar.update()
