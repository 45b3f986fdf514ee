"""`recolor colorize`: its progress, its lines, its exit status."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

LARGE = 10_000_000  # pixels of a photo from which on the bar shows what is done to it
FILM_SETTINGS = ("size", "upsampling", "strength", "side_by_side", "quality")  # those that photos and films have
SKIPPED_SHOWN = 20  # of the photos whose result exists: a continued run may have thousands


def colorize_photos(
    colorizer: Any, photos: list[Path], out: Path | None, plan: dict[str, Any], film: dict[str, Any], **how: Any
) -> None:
    """Colours photos, then films, and prints what becomes of each as it is done. The exit status is 1 where one failed.

    `plan` and `how`: the settings of `plan` and of `colorize_files`; `film`: those that only films have.
    """
    from recolor.app.films import colorize_films
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


@contextmanager
def _stopping() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: the same command with --skip-existing continues", err=True)
        raise typer.Exit(130) from None


@_stopping()
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


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, desc="colorize", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar


def _advancing(jobs: Iterable[Any], bar: Any) -> Iterator[Any]:
    for job in jobs:
        yield job
        bar.update()
