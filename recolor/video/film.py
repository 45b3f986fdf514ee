"""One film to one coloured film. Decoding, the network, painting and encoding work at the same time.

Pictures are encoded in segments, files in a hidden folder beside the result. A stopped run continues after the last of them.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from recolor.core.iterators import batches, in_order, prefetch, single_core_threads, strip_threads
from recolor.core.storage import check_disk_space, file_sha256, new_file
from recolor.inference.colorizer import BATCH, SIZE, Colorizer
from recolor.inference.formats import FILM_FORMATS
from recolor.inference.options import DEFAULT, Options
from recolor.inference.steady import State, Steady
from recolor.video.painting import chroma, grey
from recolor.video.reading import Film, FilmError, Frame, frames, probe
from recolor.video.segments import Segments
from recolor.video.writing import ENCODERS, SegmentEncoder, assemble, can_hold

SEGMENT = 25 * BATCH  # frames; a multiple of BATCH, so that a continued run has the same batches
PAIR = 2  # frames in one pass through the network on one core: 5 to 8% less time for each than with 1, 9 to 13% than with 8
PACKAGE = Path(__file__).parents[1]
SHORTAGE = 0.5  # seconds that the last frame may lie before the film's end

Progress = Callable[[int, int], None]
T = TypeVar("T")


class Predicted(NamedTuple):
    """A frame and its colours, normalised Lab (3, h, w). `state`: that of `Steady` after it."""

    frame: Frame
    lab: Tensor
    state: State | None = None


def colorize_film(
    colorizer: Colorizer,
    path: Path,
    target: Path,
    options: Options = DEFAULT,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Colours the film `path` into `target` and returns notes. `progress` gets the number of frames done, and of all of them.

    Raises FilmError for what cannot be coloured, DiskFull, UserError while another process writes `target`, and FileExistsError
    where it exists and `force` is false.
    """
    film, kind = probe(path), FILM_FORMATS[target.suffix.lower()]
    if not can_hold(kind, options.codec):
        raise FilmError(f"{target.suffix} cannot hold {options.codec}: choose another file or --codec")
    key = _key(colorizer, film, options)
    with check_disk_space(target.name, target.parent), Segments.beside(target, key, SEGMENT) as segments:
        if not segments.complete:
            _colour(colorizer, film, options, segments, progress)
        if len(times := segments.times()):
            with new_file(target, force) as temporary:
                notes = assemble(segments, film, options, temporary, kind)
            return [*film.notes, *_missing(film, options, int(times.max())), *notes]
    length = f", which has {film.seconds:.1f} seconds" if film.seconds else ""
    raise FilmError(f"no frames between the start and the end in this film{length}")


def _colour(colorizer: Colorizer, film: Film, options: Options, segments: Segments, progress: Progress) -> None:
    """Makes the segments that are missing."""
    times, total = segments.times(), _expected(film, options)
    done, after = len(times), int(times.max()) if len(times) else None
    progress(done, total)
    with ExitStack() as stack:

        def in_thread(items: Generator[T, None, None]) -> Iterator[T]:
            return stack.enter_context(closing(prefetch(items, 2 * BATCH)))

        reading = in_thread(frames(film, options.start, options.end, after))
        predicted = in_thread(predictions(colorizer, film, options, reading))
        steady = Steady(options.steady, segments.state)
        steadied = in_thread(item._replace(lab=steady(item.lab), state=steady.state) for item in predicted)
        painting = partial(paint, film, options)
        painted = in_order(strip_threads(), painting, steadied, torch.get_num_threads() + 1)
        stack.enter_context(closing(painted))
        while not segments.complete:
            encoder, state = SegmentEncoder(film, options), None
            for frame, state_after in islice(painted, SEGMENT):
                encoder.add(frame)
                state, done = state_after, done + 1
                progress(done, max(done, total))
            segments.add(encoder.finish(), state)


def predictions(
    colorizer: Colorizer, film: Film, options: Options, reading: Iterable[Frame]
) -> Generator[Predicted, None, None]:
    """The frames with their colours. On a CPU each core has a pair of its own: a batch on all waits for the slowest."""

    def predict(batch: list[Frame]) -> list[Predicted]:
        small = [Image.fromarray(frame.planes[0]).resize((side, side), Image.Resampling.BICUBIC) for frame in batch]
        pictures = [grey(luma, film.range) for luma in small]
        return list(map(Predicted, batch, colorizer.predict(pictures, side)))

    side = options.size or colorizer.size
    if colorizer.device.type != "cpu" or side > 2 * SIZE:  # where a frame for each core takes too much memory
        yield from chain.from_iterable(map(predict, batches(reading, BATCH)))
        return
    threads = torch.get_num_threads()
    with (
        single_core_threads(threads) as pool,
        closing(in_order(pool, predict, batches(reading, PAIR), threads + 1)) as predicted,
    ):
        yield from chain.from_iterable(predicted)


def paint(film: Film, options: Options, item: Predicted) -> tuple[Frame, State | None]:
    """The frame of the result, with the film's luma and the colours of the prediction, and the state of `Steady` after it."""
    luma = item.frame.planes[0]
    u, v = chroma(luma, item.lab, film.matrix, film.range, options.strength, options.upsampling)
    planes = np.pad(luma, [(0, side % 2) for side in luma.shape], "edge"), u, v  # its sides are even
    if options.side_by_side:
        _, film_u, film_v = item.frame.planes
        planes = np.hstack([planes[0], planes[0]]), np.hstack([film_u, u]), np.hstack([film_v, v])
    return item.frame._replace(planes=planes), item.state


def _expected(film: Film, options: Options) -> int:
    """About how many frames there will be; 0 where the film's length is not known."""
    end = film.seconds if options.end is None else min(options.end, film.seconds)
    return max(0, round((end - (options.start or 0)) * film.rate))


def _missing(film: Film, options: Options, last: int) -> list[str]:
    """A note if the pictures end before the film does."""
    there = float((last - film.start) * film.time_base)
    if options.end is not None or film.seconds - there < max(SHORTAGE, float(2 / film.rate)):
        return []
    return [f"cut short: {there:.1f} of {film.seconds:.1f} seconds are there"]


def _key(colorizer: Colorizer, film: Film, options: Options) -> str:
    """A hash of what the result depends on, except the machine: segments made with another key are not continued."""
    tensors = {name: tensor.contiguous() for name, tensor in colorizer.generator.state_dict().items()}
    weights = hashlib.sha256(save(tensors)).digest()
    status = film.path.stat()
    code = [file_sha256(path) for path in sorted(PACKAGE.rglob("*.py"))]  # recolor's version is the same in every clone
    versions = [av.__version__, cv2.__version__, torch.__version__]
    parts = [film, options, ENCODERS[options.codec], weights, status.st_size, status.st_mtime_ns]
    return hashlib.sha256("\n".join(map(repr, [*parts, *versions, *code])).encode()).hexdigest()
