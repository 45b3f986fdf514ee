"""Photos on disk to coloured photos on disk. Reading, the network, and painting with writing work at the same time."""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from recolor.inference.plan import EXISTS, Job
from recolor.inference.upsampling import Upsampling

T = TypeVar("T")
Notify = Callable[[Job, str], None]

BATCH = 16  # photos in one batch
BATCH_PIXELS = 16_000_000  # a batch ends with the photo that reaches as many; while one has more, no other is in memory
_TOO_LARGE = "needs more memory than is available"
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "bad_alloc", "memory object")  # in a RuntimeError of torch
_UNCOMPRESSED = (None, "raw")

# Bytes that Pillow allocates at once. glibc returns blocks over 32 MB to the system as soon as they are freed. Pillow's own are
# smaller, and each thread keeps a heap of those: 0.4 GB more for a photo of 100 megapixels.
BLOCK = 2**26
Image.core.set_block_size(BLOCK)


class _Loaded(NamedTuple):
    job: Job
    image: Image.Image
    metadata: dict[str, Any]
    modified: int


class _Painting(NamedTuple):
    """How photos are painted and written; see `colorize_files`."""

    colorizer: Colorizer
    upsampling: Upsampling
    strength: float
    side_by_side: bool
    quality: int | None
    damaged: bool
    notify: Notify


def colorize_files(
    colorizer: Colorizer,
    jobs: Iterable[Job],
    *,
    size: int | None = None,
    upsampling: Upsampling = "guided",
    strength: float = 1.0,
    side_by_side: bool = False,
    quality: int | None = None,
    damaged: bool = False,
    notify: Notify = lambda job, state: None,
) -> Iterator[Job]:
    """Does the jobs, in order, and yields each when it is done or, with its `problem`, when it could not be.

    A result keeps its photo's metadata (`save_options`), transparency and time of modification; it is in sRGB, with
    that profile if the photo had a profile. `side_by_side`: the photo as it was, left of the result. `quality`: of
    JPEG, WebP and AVIF (`formats.save`). `damaged`: of a JPEG that is cut short, what there is. A photo that needs more
    memory than there is has that as its problem. `notify` is called, from several threads, with what is done to a job.
    Raises UserError for what `colorizer` does not take.
    """
    painting = _Painting(colorizer, upsampling, strength, side_by_side, quality, damaged, notify)
    finishing: list[Future[Job]] = []
    loading: list[Future[Job | _Loaded]] = []
    try:
        # Decoding ignores warnings, and restores the filters afterwards: in several threads at once, to what another has set.
        with warnings.catch_warnings():
            batches = list(_batches(jobs))
            for batch, following in zip(batches, [*batches[1:], []], strict=False):  # no batches, one []
                loading = loading or _load_all(batch, painting)
                loaded, loading = [future.result() for future in loading], []
                if overlap := sum(job.pixels for job in batch + following) < 2 * BATCH_PIXELS:
                    loading = _load_all(following, painting)
                started = _start(loaded, painting, size, finishing)
                yield from _results(finishing)
                finishing = started
                if not overlap:
                    yield from _results(finishing)
            yield from _results(finishing)
    finally:
        for load in loading:
            load.cancel()
        for finish in finishing:
            finish.cancel()


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


def _load_all(batch: Sequence[Job], painting: _Painting) -> list[Future[Job | _Loaded]]:
    return [_threads().submit(_load, job, painting) for job in batch]


def _start(
    loaded: list[Job | _Loaded], painting: _Painting, size: int | None, finishing: list[Future[Job]]
) -> list[Future[Job]]:
    """Colours the photos among `loaded` and starts to paint and write them. Empties `loaded`, so that memory is free early."""
    predicted = _unless_memory_fails(lambda: _predict(loaded, painting.colorizer, size))
    one_by_one, rows = predicted is None and len(loaded) > 1, iter(predicted or [])
    futures: list[Future[Job]] = []
    for item in _emptied(loaded):
        if one_by_one:
            wait([*finishing, *futures])  # nothing beside it
            futures += _start([item], painting, size, [])
        else:
            row = next(rows, None) if isinstance(item, _Loaded) else None
            futures.append(_threads().submit(_finish, [item, row], painting))
            del row
        del item
    return futures


def _predict(loaded: list[Job | _Loaded], colorizer: Colorizer, size: int | None) -> list[Tensor]:
    images = [item.image for item in loaded if isinstance(item, _Loaded)]
    return list(colorizer.predict(images, size)) if images else []


def _emptied(items: list[T]) -> Iterator[T]:
    """Yields the items and drops each of them, so that its memory is free as soon as its user drops it too."""
    while items:
        yield items.pop(0)


def _results(futures: list[Future[Job]]) -> Iterator[Job]:
    for future in _emptied(futures):
        yield future.result()


def _finish(items: list[Any], painting: _Painting) -> Job:
    """Paints and writes a photo. `items`: the photo, or a job with a problem, and its prediction, None for lack of memory.

    It is a list so that nobody else holds their memory.
    """
    if isinstance(items[0], Job):
        return items[0]
    job, done = items[0].job, None
    if items[1] is not None:
        done = _unless_memory_fails(lambda: _paint_and_write(items.pop(0), items.pop(), painting))
    return done or job._replace(problem=_TOO_LARGE)


def _paint_and_write(photo: _Loaded, predicted: Tensor, painting: _Painting) -> Job:
    job, image, metadata, modified = photo
    del photo
    start = image.width if painting.side_by_side else 0
    if painting.side_by_side:
        images = [image]
        del image
        image = _twice(images)

    def progress(share: float) -> None:
        painting.notify(job, f"painting {share:.0%}")

    painting.colorizer.paint(image, predicted, painting.upsampling, painting.strength, start, progress)
    painting.notify(job, "writing")
    return _write(job, image, metadata, modified, painting.quality)


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


def _load(job: Job, painting: _Painting) -> Job | _Loaded:
    """The photo, or the job with its problem."""
    if job.problem:
        return job
    painting.notify(job, "reading")
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
            image = to_srgb(file, keep_alpha=kind not in OPAQUE, damaged=painting.damaged)
            notes += image.info.pop("notes", [])
            metadata, missing = save_options(file, kind)
            if kind == "TIFF" and (compression := file.info.get("compression")) not in _UNCOMPRESSED:
                metadata["compression"] = "tiff_lzw" if compression == "tiff_lzw" else "tiff_adobe_deflate"
            notes = missing + notes + ["in 8 bits, the photo has more"] * deep
            modified = job.source.stat().st_mtime_ns
    except CutShortError as error:
        return job._replace(problem=f"{error}; --damaged colours what there is")
    except PhotoError as error:
        return job._replace(problem=str(error))
    size, most = (image.width * (1 + painting.side_by_side), image.height), MAX_SIDE.get(kind)
    if most and max(size) > most:
        large = f"{size[0]}x{size[1]} pixels; {kind} holds {most:,} a side, .png or .tif more"
        return job._replace(problem=f"{job.target} cannot be written: {large}")
    return _Loaded(job._replace(note="; ".join(notes)), image, metadata, modified)


def _twice(images: list[Image.Image]) -> Image.Image:
    """The one image in `images`, which this empties, twice side by side.

    It is cut into bands, each of which is freed when it is copied: at no time is there more memory in use than for the result.
    """
    image = images.pop()
    mode, (width, height) = image.mode, image.size
    rows = max(1, BLOCK // (4 * width))
    tops = range(0, height, rows)
    bands = [image.crop((0, top, width, min(top + rows, height))) for top in tops]
    del image
    canvas = Image.new(mode, (2 * width, height), None)
    for top in tops:
        band = bands.pop(0)
        canvas.paste(band, (0, top))
        canvas.paste(band, (width, top))
    return canvas


def _write(job: Job, image: Image.Image, metadata: dict[str, Any], modified: int, quality: int | None) -> Job:
    target: Path = job.target
    try:
        with new_file(target, job.force) as temporary:
            save(image, temporary, writable_suffixes()[target.suffix.lower()], metadata, quality)
            os.utime(temporary, ns=(modified, modified))
    except FileExistsError:
        return job._replace(problem=EXISTS.format(target))
    except (OSError, ValueError) as error:  # no room, no permission; more pixels than the format can hold
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        return job._replace(problem=f"{target} cannot be written: {reason}")
    return job
