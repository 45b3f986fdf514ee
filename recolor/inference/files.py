"""Photos on disk to coloured photos on disk. While some are painted and written, the next are read and predicted."""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from recolor.core.iterators import single_core_threads
from recolor.core.storage import new_file
from recolor.images.decoding import to_srgb
from recolor.images.depth import is_deep
from recolor.images.metadata import save_options
from recolor.images.opening import CutShortError, PhotoError, opened, page_count, seek_page
from recolor.inference.colorizer import Colorizer
from recolor.inference.formats import MAX_SIDE, OPAQUE, save, writable_suffixes
from recolor.inference.options import DEFAULT, Options
from recolor.inference.plan import Job

T = TypeVar("T")

BATCH = 16  # photos in one batch
BATCH_PIXELS = 16_000_000  # a batch ends with the photo that reaches as many; while one has more, no other is in memory
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "bad_alloc", "memory object")  # in a RuntimeError of torch

# Bytes that Pillow allocates at once. glibc returns blocks over 32 MB to the system as soon as they are freed. Pillow's own are
# smaller, and each thread keeps a heap of those: 0.4 GB more for a photo of 100 megapixels.
BLOCK = 2**26
Image.core.set_block_size(BLOCK)


@dataclass
class _Loaded:
    """A photo in memory: its image as `to_srgb` gives it, its file's time of modification in ns, and its result's format."""

    job: Job
    kind: str
    image: Image.Image
    metadata: dict[str, Any]
    modified: int


def colorize_files(
    colorizer: Colorizer,
    jobs: Iterable[Job],
    options: Options = DEFAULT,
    *,
    damaged: bool = False,
    notify: Callable[[Job, str], None] = lambda job, state: None,
) -> Iterator[Job]:
    """Does the jobs, in order, and yields each when it is done or, with its `problem`, when it could not be.

    A result keeps its photo's metadata (`save_options`), transparency and time of modification; it is in sRGB, with
    that profile if the photo had a profile. `damaged`: of a truncated JPEG, the part that is there. A photo that needs more
    memory than there is has that as its problem. `notify` is called, from several threads, with what is done to a job.
    Raises UserError for options that `colorizer` refuses.
    """
    pipeline = _Pipeline(colorizer, options, damaged, notify)
    finishing: list[Future[Job]] = []
    pixels = 0  # of the batch whose photos are being painted and written
    try:
        # Decoding ignores warnings, and restores the filters afterwards: in several threads at once, to what another has set.
        with warnings.catch_warnings():
            for batch in _batches(jobs):
                before, pixels = pixels, sum(job.pixels for job in batch)
                if before + pixels >= 2 * BATCH_PIXELS:
                    yield from map(Future.result, finishing)
                    finishing = []
                started = pipeline.start(list(_threads().map(pipeline.load, batch)), finishing)
                yield from map(Future.result, finishing)
                finishing = started
            yield from map(Future.result, finishing)
    finally:
        for future in finishing:
            future.cancel()


def _batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    for job in jobs:
        batch.append(job)
        if len(batch) == BATCH or sum(job.pixels for job in batch) >= BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """For reading and writing. These threads wait for `strip_threads`, so they cannot be the same."""
    return single_core_threads(torch.get_num_threads())


@dataclass(frozen=True)
class _Pipeline:
    """What is done to each photo; see `colorize_files`. A job that has a problem stays as it is."""

    colorizer: Colorizer
    options: Options
    damaged: bool
    notify: Callable[[Job, str], None]

    def start(self, loaded: Sequence[Job | _Loaded], before: Sequence[Future[Job]]) -> list[Future[Job]]:
        """Colours the photos among `loaded` and starts to paint and write them; alone where memory is too small for all."""
        images = [item.image for item in loaded if isinstance(item, _Loaded)]
        predicted = _unless_memory_fails(lambda: self.colorizer.predict(images, self.options.size))
        futures: list[Future[Job]] = []
        if predicted is None and len(loaded) > 1:
            for item in loaded:
                wait([*before, *futures])
                futures += self.start([item], [])
            return futures
        rows: Iterator[Tensor] = iter([] if predicted is None else predicted)
        for item in loaded:
            row = next(rows, None) if isinstance(item, _Loaded) else None
            futures.append(_threads().submit(self._finish, item, row))
        return futures

    def load(self, job: Job) -> Job | _Loaded:
        if job.problem:
            return job
        self.notify(job, "reading")
        kind = writable_suffixes()[job.target.suffix.lower()]
        notes = []
        try:
            with opened(job.source) as file:
                pages = page_count(file)
                if job.page is not None:
                    seek_page(file, job.page)
                elif file.tell():
                    notes.append(f"page {file.tell() + 1} of {pages}, the largest")
                elif pages > 1:
                    notes.append(f"the first of {pages} pages or frames")
                deep = is_deep(file)
                image = to_srgb(file, keep_alpha=kind not in OPAQUE, damaged=self.damaged)
                notes += image.info.pop("notes", [])
                metadata, missing = save_options(file, kind)
                if kind == "TIFF" and (compression := file.info.get("compression")) not in (None, "raw"):
                    metadata["compression"] = "tiff_lzw" if compression == "tiff_lzw" else "tiff_adobe_deflate"
                notes = missing + notes + ["the result has 8 bits a channel, the photo more"] * deep
                modified = job.source.stat().st_mtime_ns
        except CutShortError as error:
            return job._replace(problem=f"{error}; --damaged colours the part that is there")
        except PhotoError as error:
            return job.failed(error)
        width, most = image.width * (1 + self.options.side_by_side), MAX_SIDE.get(kind)
        if most and max(width, image.height) > most:
            large = f"{width}x{image.height} pixels; {kind} holds {most:,} a side, .png or .tif more"
            return job._replace(problem=f"{job.target} cannot be written: {large}")
        return _Loaded(job._replace(note="; ".join(notes)), kind, image, metadata, modified)

    def _finish(self, photo: Job | _Loaded, predicted: Tensor | None) -> Job:
        """Paints and writes a photo. `predicted`: its colours, None for lack of memory."""
        if isinstance(photo, Job):
            return photo
        done = None if predicted is None else _unless_memory_fails(lambda: self._write(photo, predicted))
        return done or photo.job._replace(problem="needs more memory than is available")

    def _write(self, photo: _Loaded, predicted: Tensor) -> Job:
        job, start = photo.job, 0
        if self.options.side_by_side:
            start = photo.image.width
            _put_side_by_side(photo)

        def progress(share: float) -> None:
            self.notify(job, f"painting {share:.0%}")

        self.colorizer.paint(photo.image, predicted, self.options, start, progress)
        self.notify(job, "writing")
        try:
            with new_file(job.target, job.force) as temporary:
                save(photo.image, temporary, photo.kind, photo.metadata, self.options.quality)
                os.utime(temporary, ns=(photo.modified, photo.modified))
        except (OSError, ValueError) as error:
            return job.failed(error)
        return job


def _put_side_by_side(photo: _Loaded) -> None:
    """Puts the image of `photo` twice side by side: in bands, so that memory never exceeds the result's."""
    width, height = photo.image.size
    canvas = Image.new(photo.image.mode, (2 * width, height), None)
    canvas.paste(photo.image)
    photo.image = canvas
    rows = max(1, BLOCK // (4 * width))
    for top in range(0, height, rows):
        canvas.paste(canvas.crop((0, top, width, min(top + rows, height))), (width, top))


def _unless_memory_fails(work: Callable[[], T]) -> T | None:
    """What `work` gives, None where it needs more memory than is available."""
    try:
        return work()
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        return None
