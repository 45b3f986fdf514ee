"""The films of `recolor colorize`: one after the other, with a bar for each."""

import math
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import typer

from recolor.app.options import INTERRUPTED
from recolor.core.errors import UserError

NOT_INSTALLED = "films need PyAV and OpenCV: pip install 'recolor[video]'"


def available() -> bool:
    """Whether the extra `video` is installed."""
    return find_spec("av") is not None and find_spec("cv2") is not None


def colorize_films(colorizer: Any, jobs: list[Any], **settings: Any) -> Iterator[Any]:
    """Does the jobs, in order, and yields each when it is done or, with its `problem`, when it could not be.

    `settings`: of `recolor.video.film.Settings`. Ctrl-C ends the command with a line that says how far it came.
    """
    for job in jobs:
        if not job.problem and not available():
            job = job._replace(problem=NOT_INSTALLED)
        yield job if job.problem else _colorize(colorizer, job, settings)


def _colorize(colorizer: Any, job: Any, settings: dict[str, Any]) -> Any:
    from tqdm import tqdm

    from recolor.inference.plan import EXISTS
    from recolor.video.film import Settings, colorize_film

    with tqdm(unit=" frames", desc=job.source.name, disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            reached[:] = [done, total]
            bar.total = total or None
            if not bar.n:
                bar.initial = done  # what an earlier run has done says nothing about the speed
            bar.update(done - bar.n)

        reached = [0, 0]
        try:
            notes = colorize_film(colorizer, job.source, job.target, Settings(**settings), job.force, progress)
        except FileExistsError:
            return job._replace(problem=EXISTS.format(job.target))
        except UserError as error:
            return job._replace(problem=str(error))
        except OSError as error:
            return job._replace(problem=f"{job.target} cannot be written: {error.strerror or error}")
        except KeyboardInterrupt:
            bar.close()
            typer.echo(f"stopped: {job.source}: {_reached(*reached)}; the same command goes on from there", err=True)
            raise typer.Exit(INTERRUPTED) from None
    return job._replace(note="; ".join(notes))


def _reached(done: int, total: int) -> str:
    return f"{done} of {total} frames" if total else f"{done} frames"


def seconds(option: str, text: str | None) -> float | None:
    """Of "90", "1:30", "0:01:30.5". Raises UserError, which names `option`, for anything else."""
    if text is None:
        return None
    value = 0.0
    parts = text.split(":")
    for part in parts:
        try:
            number = float(part)
        except ValueError:
            number = -1
        if not 0 <= number < math.inf or len(parts) > 3:
            raise UserError(f"{option}: got {text}; takes seconds or H:MM:SS")
        value = 60 * value + number
    return value
