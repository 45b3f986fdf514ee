"""Photos on disk to coloured photos on disk: which file becomes which, what it keeps, and what is never done to a file.

Nothing is written onto a photo that was named, nor over another file unless that is asked for. A coloured photo appears under
its name when it is whole.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base
from torch import Tensor

from recolor.disk import whole
from recolor.errors import UserError
from recolor.inference import Colorizer
from recolor.photos import SUFFIXES, PhotoError, opened, to_srgb
from recolor.upsampling import Upsampling

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

# Of EXIF's first directory, what speaks of the photo and not of the file it came in; the camera's and GPS's are kept too.
_KEPT = (
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer),
    *(Base.Copyright, Base.Rating, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
)
# The thumbnails' and pixels' whereabouts, and sizes that turning the photo has swapped.
_DROPPED = (Base.ExifInteroperabilityOffset, Base.ExifImageWidth, Base.ExifImageHeight)


class Job(NamedTuple):
    """A photo and its result's place; `problem`: why it cannot be done, empty if it can."""

    source: Path
    target: Path
    problem: str = ""


class _Loaded(NamedTuple):
    job: Job
    image: Image.Image
    options: dict[str, Any]
    modified: int


def plan(photos: Sequence[Path], out: Path | None = None, force: bool = False) -> list[Job]:
    """What is to be done for `photos`, files and folders, the latter with all their subfolders.

    The results, NAME-recolor.SUFFIX, go next to their photos, or into the folder `out`, where a folder's tree is kept. With
    one photo, `out` may be a file. Raises UserError for a folder without photos and for an `out` that cannot be written.
    """
    found: list[tuple[Path, Path]] = []
    for path in photos:
        inside = _search(path) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no photos in this folder")
        found += [(file, file.relative_to(path) if path.is_dir() else Path(file.name)) for file in inside]
    if out is not None and not out.is_dir() and out.suffix.lower() in {*SUFFIXES, *_suffixes()}:
        if len(found) > 1:
            raise UserError(f"{out}: one file cannot hold {len(found)} photos; name a folder")
        if out.suffix.lower() not in _suffixes():
            raise UserError(f"{out}: cannot write {out.suffix}; takes {', '.join(sorted(_suffixes()))}")
        targets = [out]
    else:
        targets = [_marked(file if out is None else out / below) for file, below in found]
    return _checked([file for file, _ in found], targets, force)


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

    A result keeps its photo's EXIF block (upright now), dpi, transparency and time of modification; it is in sRGB, and says so
    if the photo named its colour space. `side_by_side`: the photo as it was, left of the result. Raises UserError for what
    `colorizer` does not take.
    """

    def paint(batch: list[_Loaded]) -> Iterator[Job]:
        predictions: Sequence[Tensor] = list(colorizer.predict([photo.image for photo in batch], size)) if batch else []
        for photo, predicted in zip(batch, predictions, strict=True):
            image = photo.image
            both = _canvas(image) if side_by_side else None
            colorizer.paint(image, predicted, upsampling, strength)
            if both is not None:
                both.paste(image, (image.width, 0))
            yield _written(photo, both or image)

    batch: list[_Loaded] = []
    for job in jobs:
        loaded = job if job.problem else _load(job)
        if isinstance(loaded, Job):
            yield loaded
            continue
        batch.append(loaded)
        if len(batch) == BATCH or sum(photo.image.width * photo.image.height for photo in batch) >= BATCH_PIXELS:
            yield from paint(batch)
            batch = []
    yield from paint(batch)


def _search(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.stem.endswith(MARK)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _suffixes() -> dict[str, str]:
    """The format of each suffix that can be written."""
    known = Image.registered_extensions()
    return {
        suffix: kind for suffix, kind in known.items() if kind in _WRITTEN and kind in Image.SAVE and suffix in SUFFIXES
    }


def _marked(path: Path) -> Path:
    suffix = path.suffix if path.suffix.lower() in _suffixes() else ".png"
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
            problem = f"{target} exists already; --force overwrites it"
        jobs.append(Job(source, target, problem))
    return list(dict.fromkeys(jobs))


def _load(job: Job) -> _Loaded | Job:
    """The photo, or the job with its problem."""
    try:
        with opened(job.source) as file:
            image = to_srgb(file, keep_alpha=_suffixes()[job.target.suffix.lower()] not in _OPAQUE)
            return _Loaded(job, image, _options(file), job.source.stat().st_mtime_ns)
    except PhotoError as error:
        return job._replace(problem=str(error))


def _canvas(image: Image.Image) -> Image.Image:
    """Twice as wide, with `image` on the left."""
    canvas = Image.new(image.mode, (2 * image.width, image.height))
    canvas.paste(image, (0, 0))
    return canvas


def _written(photo: _Loaded, image: Image.Image) -> Job:
    target = photo.job.target
    kind = _suffixes()[target.suffix.lower()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as temporary:
            image.save(temporary, kind, **_WRITTEN[kind], **photo.options)
            os.utime(temporary, ns=(photo.modified, photo.modified))
    except (OSError, ValueError) as error:  # no room, no permission; more pixels than the format can hold
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        return photo.job._replace(problem=f"{target} cannot be written: {reason}")
    return photo.job


def _options(file: Image.Image) -> dict[str, Any]:
    """What Pillow's `save` takes for what the result keeps of `file`, a photo as it was opened."""
    options: dict[str, Any] = {"exif": _exif(file)}
    dpi = file.info.get("dpi")
    if isinstance(dpi, tuple) and all(0 < value < 2**16 for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if file.info.get("icc_profile"):
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return options


def _exif(file: Image.Image) -> bytes:
    """The EXIF block that the result carries, empty where the photo has none."""
    with contextlib.suppress(
        Exception
    ):  # on a broken block Pillow raises anything: it is left out, and the photo is done
        old, new = file.getexif(), Image.Exif()
        for tag in _KEPT:
            if tag in old:
                new[tag] = old[tag]
        for directory in (IFD.Exif, IFD.GPSInfo):
            content = {tag: value for tag, value in old.get_ifd(directory).items() if tag not in _DROPPED}
            if directory == IFD.Exif and Base.ColorSpace in content:
                content[Base.ColorSpace] = 1  # sRGB
            if content:
                new[directory] = content
        if len(new):
            new[Base.Orientation] = 1
            return new.tobytes()
    return b""
