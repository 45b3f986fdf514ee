"""Photos on disk to coloured photos on disk: which file becomes which, what it keeps, and what is never done to a file.

Nothing is written onto a photo that was named, nor over another file unless that is asked for. A coloured photo appears under
its name when it is whole.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from recolor.core.errors import UserError
from recolor.images.decoding import SUFFIXES, PhotoError, is_photo, opened, to_srgb
from recolor.images.metadata import save_options
from recolor.inference.colorizer import Colorizer
from recolor.inference.upsampling import Upsampling

T = TypeVar("T")

MARK = "-recolor"  # at the end of a result's name; folders are searched for photos without it
BATCH = 16  # photos in memory at a time
BATCH_PIXELS = 16_000_000  # no further photo is read when those in memory have as many: the last one may be of any size

# What each format is written with; photos in others (GIF, HEIC) become PNG. 4:4:4 is colour at full resolution: at half of it,
# all that lossy WebP has, lightness moves too, by several units where colours are strong.
_WRITTEN: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True, "quality": 20, "method": 1},  # a fourth of the default's time, and as small
    "TIFF": {},  # uncompressed: Pillow cannot put EXIF's directories into a compressed one
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "BMP": {},
    "PPM": {},
}
_OPAQUE = {"JPEG", "BMP", "PPM"}
_SUFFIX = {"JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif", "BMP": ".bmp", "PPM": ".ppm"}  # else .png
_COLOURLESS = {".pgm"}  # a name for grey photos
_EXISTS = "{} exists already; --force overwrites it"
_TOO_LARGE = "needs more memory than there is"

# Formats hold so many pixels a side.
_SIDES = {"JPEG": 65_500, "WEBP": 16_383}
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "bad_alloc", "memory object")  # in a RuntimeError of torch


class Job(NamedTuple):
    """A photo and its result's place.

    `problem`: why it cannot be done, empty if it can. `note`: what the result does not keep. `force`: may replace a file.
    """

    source: Path
    target: Path
    problem: str = ""
    note: str = ""
    force: bool = False


class _Loaded(NamedTuple):
    job: Job
    image: Image.Image
    options: dict[str, Any]
    modified: int


def plan(photos: Sequence[Path], out: Path | None = None, force: bool = False) -> list[Job]:
    """What is to be done for `photos`, files and folders, the latter with all their subfolders.

    The results, NAME-recolor.SUFFIX, go next to their photos, or into the folder `out`, where a folder's tree is kept. SUFFIX
    is the photo's own, unless its content is in another format or nothing can be written under it. With one photo, `out` may
    be a file. A folder without photos is a job with a problem. Raises UserError for an `out` that cannot be written.
    """
    found: list[tuple[Path, Path]] = []
    empty: list[Job] = []
    for path in photos:
        inside = _search(path) if path.is_dir() else [path]
        if not inside:
            empty.append(Job(path, path, "no photos in this folder"))
        found += [(file, file.relative_to(path) if path.is_dir() else Path(file.name)) for file in inside]
    if out is not None and not out.is_dir() and out.suffix.lower() in {*SUFFIXES, *_suffixes()}:
        if len(found) > 1:
            raise UserError(f"{out}: one file cannot hold {len(found)} photos; name a folder")
        if out.suffix.lower() not in _suffixes():
            raise UserError(f"{out}: cannot write {out.suffix}; takes {', '.join(sorted(_suffixes()))}")
        targets = [out] * len(found)
    else:
        targets = [_marked(file if out is None else out / below, file) for file, below in found]
    return empty + _checked([file for file, _ in found], targets, force)


def colorize_files(
    colorizer: Colorizer,
    jobs: Iterable[Job],
    *,
    size: int | None = None,
    upsampling: Upsampling = "guided",
    strength: float = 1.0,
    side_by_side: bool = False,
) -> Iterator[Job]:
    """Does the jobs, in order, and yields each when it is done or, with its `problem`, when it could not be.

    A result keeps its photo's metadata (`save_options`), transparency and time of modification; it is in sRGB, and says so
    if the photo named its colour space. `side_by_side`: the photo as it was, left of the result. A photo that needs more
    memory than there is has that as its problem. Raises UserError for what `colorizer` does not take.
    """

    def paint(batch: list[_Loaded]) -> Iterator[Job]:
        """Empties `batch`, so that the memory of each photo is free when it is done."""
        predicted = _unless_memory_fails(lambda: colorizer.predict([photo.image for photo in batch], size))
        if predicted is None and len(batch) > 1:
            while batch:
                yield from paint([batch.pop(0)])
        while batch:
            job = batch[0].job
            photo = _unless_memory_fails(lambda: finish(batch.pop(0), predicted, len(batch)))
            yield job._replace(problem=_TOO_LARGE) if photo is None else _written(photo)

    def finish(photo: _Loaded, predicted: Tensor | None, left: int) -> _Loaded | None:
        if predicted is None:
            return None
        start = photo.image.width if side_by_side else 0
        if side_by_side:
            photo = photo._replace(image=_twice(photo.image))
        colorizer.paint(photo.image, predicted[len(predicted) - 1 - left], upsampling, strength, start)
        return photo

    batch: list[_Loaded] = []
    pixels = 0
    for job in jobs:
        loaded = job if job.problem else _load(job, side_by_side)
        if isinstance(loaded, Job):
            yield loaded
            continue
        batch.append(loaded)
        pixels += loaded.image.width * loaded.image.height
        del loaded
        if len(batch) == BATCH or pixels >= BATCH_PIXELS:
            yield from paint(batch)
            pixels = 0
    if batch:
        yield from paint(batch)


def _unless_memory_fails(work: Callable[[], T]) -> T | None:
    """What `work` gives, None where it needs more memory than there is."""
    try:
        return work()
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        return None


def _search(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if is_photo(path.relative_to(folder).as_posix()) and not path.stem.endswith(MARK) and path.is_file()
    )


def _suffixes() -> dict[str, str]:
    """The format of each suffix that can be written."""
    known = Image.registered_extensions()
    return {
        suffix: kind
        for suffix, kind in known.items()
        if kind in _WRITTEN and kind in Image.SAVE and suffix in SUFFIXES - _COLOURLESS
    }


def _marked(path: Path, source: Path) -> Path:
    """The name of the result for a photo called `path`, whose file is `source`."""
    named = _suffixes().get(path.suffix.lower())
    try:
        with opened(source) as file:
            kind = "JPEG" if file.format == "MPO" else file.format  # several JPEGs in one, the first of them the photo
    except PhotoError:  # told when its turn comes
        kind = named or ""
    suffix = path.suffix if named and named == kind else _SUFFIX.get(str(kind), ".png")
    return path.with_name(f"{path.stem}{MARK}{suffix}")


def _checked(sources: Sequence[Path], targets: Sequence[Path], force: bool) -> list[Job]:
    # Unlike pathlib, realpath and lexists answer for links in a circle and names that are too long: told when their turn comes.
    originals = {os.path.realpath(source) for source in sources}
    taken: dict[str, Path] = {}
    jobs = []
    for source, target in zip(sources, targets, strict=True):
        place = os.path.realpath(target)
        first = taken.setdefault(place, source)
        problem = ""
        if os.path.realpath(first) != os.path.realpath(source):
            problem = f"{target} is to hold {first} already"
        elif place in originals:
            problem = f"{target} is one of the photos to colour, and these stay as they are"
        elif os.path.lexists(target) and not force:
            problem = _EXISTS.format(target)
        jobs.append(Job(source, target, problem, force=force))
    return list(dict.fromkeys(jobs))


def _load(job: Job, side_by_side: bool) -> _Loaded | Job:
    """The photo, or the job with its problem."""
    kind = _suffixes()[job.target.suffix.lower()]
    try:
        with opened(job.source) as file:
            deep = _is_deep(file)
            image = to_srgb(file, keep_alpha=kind not in _OPAQUE)
            options, notes = save_options(file, kind)
            if (frames := _frames(file)) > 1:
                notes.append(f"the first of {frames} pages or frames")
            if deep:
                notes.append("in 8 bits, the photo has more")
            modified = job.source.stat().st_mtime_ns
    except PhotoError as error:
        return job._replace(problem=str(error))
    size, most = (image.width * (1 + side_by_side), image.height), _SIDES.get(kind)
    if most and max(size) > most:
        large = f"{size[0]}x{size[1]} pixels; {kind} holds {most:,} a side, .png or .tif more"
        return job._replace(problem=f"{job.target} cannot be written: {large}")
    return _Loaded(job._replace(note="; ".join(notes)), image, options, modified)


def _is_deep(file: Image.Image) -> bool:
    """Whether a photo that is not decoded yet has more than 8 bits a channel: Pillow tells its decoders so."""
    tiles = getattr(file, "tile", [])
    return file.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in tiles)


def _frames(file: Image.Image) -> int:
    """Of a TIFF, GIF, WebP or APNG; the other pictures in an MPO are a camera's previews."""
    try:
        return 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
    except Exception:  # whatever is wrong with a later page, the first one is done
        return 1


def _twice(image: Image.Image) -> Image.Image:
    canvas = Image.new(image.mode, (2 * image.width, image.height))
    canvas.paste(image, (0, 0))
    canvas.paste(image, (image.width, 0))
    return canvas


def _written(photo: _Loaded) -> Job:
    job, image, options, modified = photo
    target = job.target
    kind = _suffixes()[target.suffix.lower()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _appearing(target, job.force) as temporary:
            image.save(temporary, kind, **_WRITTEN[kind], **options)
            os.utime(temporary, ns=(modified, modified))
    except FileExistsError:
        return job._replace(problem=_EXISTS.format(target))
    except MemoryError:
        return job._replace(problem=_TOO_LARGE)
    except (OSError, ValueError) as error:  # no room, no permission; more pixels than the format can hold
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        return job._replace(problem=f"{target} cannot be written: {reason}")
    return job


@contextlib.contextmanager
def _appearing(target: Path, force: bool) -> Iterator[Path]:
    """A hidden path of its own that becomes `target` when the block ends well, and goes away when it does not.

    Raises FileExistsError where `target` is there by then and not `force`: a long run is not alone in a folder.
    """
    temporary = target.with_name(f".recolor-{uuid.uuid4().hex}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if force:
            temporary.replace(target)
        else:
            _link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, target: Path) -> None:
    """Makes `target` a name of `temporary`. Where there are no links (FAT, some network disks) an empty file holds it first."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        target.open("xb").close()
        try:
            temporary.replace(target)
        except OSError:
            target.unlink()
            raise
