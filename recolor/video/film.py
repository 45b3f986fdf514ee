"""One film to one coloured film. Decoding, the network, painting and encoding work at the same time.

Pictures are encoded in segments, each a file in a hidden folder beside the result. A run that was stopped goes on after the
last of them, with what `Steady` carried there, so that its result is the same as without the stop.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recolor.core.storage import atomic_file, check_disk_space
from recolor.inference.colorizer import BATCH, Colorizer
from recolor.inference.formats import FILM_FORMATS
from recolor.inference.steady import STEADY, State, Steady
from recolor.inference.threads import ahead, batches, in_order, strip_threads
from recolor.inference.upsampling import Upsampling
from recolor.inference.writing import appearing
from recolor.video.painting import chroma, grey
from recolor.video.reading import Film, FilmError, Frame, Plane, frames, probe
from recolor.video.writing import QUALITY, Codec, Packets, SegmentEncoder, Target, assemble

SEGMENT = 25 * BATCH  # frames; a multiple of BATCH, so that a run that goes on has the same batches

SHORTAGE = 0.5  # seconds that the last frame may lie before the film's end


class Settings(NamedTuple):
    """How films are coloured and written. `start`, `end`: seconds from the first frame on."""

    size: int | None = None
    upsampling: Upsampling = "guided"
    strength: float = 1.0
    steady: float = STEADY
    side_by_side: bool = False
    codec: Codec = "h264"
    quality: int | None = None
    start: float | None = None
    end: float | None = None


DEFAULT = Settings()


class _Predicted(NamedTuple):
    frame: Frame
    lab: Tensor
    state: State | None  # after this frame, if it is the last one of a segment


class _Painted(NamedTuple):
    frame: Frame
    planes: list[Plane]
    state: State | None


def colorize_film(
    colorizer: Colorizer,
    path: Path,
    target: Path,
    settings: Settings = DEFAULT,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Colours the film `path` into `target` and returns notes. `progress` gets the number of frames done, and of all of them.

    Raises FilmError for what cannot be coloured, DiskFull, and FileExistsError where `target` exists and `force` is false.
    """
    film = probe(path)
    output = _target(film, settings)
    folder = target.with_name(f".{target.name}.unfinished")
    with check_disk_space(target.name, target.parent):
        segments = _begin(folder, _key(colorizer, film, settings))
        state, done, after = None, 0, None
        if segments:
            with np.load(segments[-1]) as last:
                state = State(*(last[name] for name in State._fields)) if "age" in last else None
            after = int(_times(segments[-1]).max())
            done = sum(len(_times(segment)) for segment in segments)
        total = _expected(film, settings)
        progress(done, total)
        predicted = ahead(_predictions(colorizer, film, settings, after, state), 2 * BATCH)
        painting = partial(_paint, film, settings)
        painted = in_order(strip_threads(), painting, predicted, torch.get_num_threads() + 1)
        try:
            while not _is_last(segments):
                encoder, state = SegmentEncoder(film, output), None
                for item in islice(painted, SEGMENT):
                    encoder.add(item.frame.time, item.frame.duration, item.planes)
                    state, done = item.state, done + 1
                    progress(done, max(done, total))
                segments.append(_save(folder, len(segments), encoder.finish(), state))
        finally:
            painted.close()
            predicted.close()
        if not done:
            raise FilmError("no frames between the start and the end")
        with appearing(target, force) as temporary:
            kind = FILM_FORMATS[target.suffix.lower()]
            notes = [*film.notes, *_missing(film, settings, _times(segments[-1]))]
            notes += assemble(segments, _load, film, output, temporary, kind, settings.start, settings.end)
        shutil.rmtree(folder)
    return notes


def _predictions(
    colorizer: Colorizer, film: Film, settings: Settings, after: int | None, state: State | None
) -> Iterator[_Predicted]:
    steady, count = Steady(settings.steady, state), 0
    reading = ahead(frames(film, settings.start, settings.end, after), 2 * BATCH)
    try:
        for batch in batches(reading, BATCH):
            pictures = [grey(frame.planes[0], film.range) for frame in batch]
            for frame, lab in zip(batch, colorizer.predict(pictures, settings.size), strict=True):
                count += 1
                steadied = steady(lab)
                yield _Predicted(frame, steadied, None if count % SEGMENT else steady.state)
    finally:
        reading.close()


def _paint(film: Film, settings: Settings, item: _Predicted) -> _Painted:
    luma = np.ascontiguousarray(item.frame.planes[0])
    uv = chroma(luma, item.lab, film.matrix, film.range, settings.strength, settings.upsampling)
    planes = [_even(luma), *uv]
    if settings.side_by_side:
        before = [_even(luma), *item.frame.planes[1:]]
        planes = [np.hstack(pair) for pair in zip(before, planes, strict=True)]
    return _Painted(item.frame, planes, item.state)


def _even(luma: Plane) -> Plane:
    """With its last column or row once more where there is an odd number of them."""
    return np.pad(luma, [(0, side % 2) for side in luma.shape], "edge")


def _target(film: Film, settings: Settings) -> Target:
    width, height = film.width + film.width % 2, film.height + film.height % 2
    return Target(width * (1 + settings.side_by_side), height, settings.codec, settings.quality or QUALITY)


def _expected(film: Film, settings: Settings) -> int:
    """How many frames there will be, about; 0 where the film's length is not known."""
    end = film.seconds if settings.end is None else min(settings.end, film.seconds)
    return max(0, round((end - (settings.start or 0)) * film.rate))


def _missing(film: Film, settings: Settings, times: NDArray[np.int64]) -> list[str]:
    """A note, where the pictures end before they should."""
    there = float((times.max(initial=film.start) - film.start) * film.time_base)
    if settings.end is not None or film.seconds - there < max(SHORTAGE, float(2 / film.rate)):
        return []
    return [f"cut short: {there:.1f} of {film.seconds:.1f} seconds are there"]


def _key(colorizer: Colorizer, film: Film, settings: Settings) -> str:
    """Of all that the result depends on: segments made with another key are not continued."""
    weights = hashlib.sha256()
    for name, tensor in colorizer.generator.state_dict().items():
        weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    status = film.path.stat()
    parts = [film, settings, weights.hexdigest(), status.st_size, status.st_mtime_ns, av.__version__, torch.__version__]
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()


def _begin(folder: Path, key: str) -> list[Path]:
    """The segments in `folder` that an earlier run with the same key has left there."""
    note = folder / "key"
    if not note.exists() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(key)
    return sorted(folder.glob("*.npz"))


def _is_last(segments: list[Path]) -> bool:
    return bool(segments) and len(_times(segments[-1])) < SEGMENT


def _save(folder: Path, number: int, packets: Packets, state: State | None) -> Path:
    path = folder / f"{number:06}.npz"
    with atomic_file(path, "a part of the film") as temporary, temporary.open("wb") as file:
        np.savez(file, **packets._asdict(), **(state._asdict() if state else {}))
    return path


def _load(path: Path) -> Packets:
    with np.load(path) as content:
        return Packets(*(content[name] for name in Packets._fields))


def _times(path: Path) -> NDArray[np.int64]:
    with np.load(path) as content:
        return content["times"]
