"""Which photo or film becomes which file, decided before the first one is coloured."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from recolor.core.errors import UserError, one_line
from recolor.core.storage import is_folder, unwritable
from recolor.images.folders import RESULT_MARK, walk
from recolor.images.opening import SUFFIXES, PhotoError, is_photo, locate, open_file, opened, page_count
from recolor.inference.formats import FILM, FILM_FORMATS, FILM_SUFFIXES, result_suffix, writable_suffixes

EXISTS = "{} exists already; --force overwrites it, --skip-existing skips it"


class Job(NamedTuple):
    """A photo, or a film, and its result's place.

    `problem`: why there is no result, or empty; `skipped`: the problem is no failure. `note`: what differs from the photo.
    `page`: of a file with several, None for the one that is the photo. `force`: may replace a file.
    """

    source: Path
    target: Path
    problem: str = ""
    note: str = ""
    force: bool = False
    skipped: bool = False
    page: int | None = None
    pixels: int = 0  # by the file's header; 0 where it cannot be read, and for films
    film: bool = False

    def failed(self, error: Exception) -> "Job":
        """The job, with `error` as its problem."""
        if isinstance(error, FileExistsError):
            return self._replace(problem=EXISTS.format(self.target))
        if isinstance(error, UserError):
            return self._replace(problem=str(error))
        # No room, no permission; too many pixels for a format.
        reason = getattr(error, "strerror", None) or one_line(error)
        return self._replace(problem=f"{self.target} cannot be written: {reason}")


class _Photo(NamedTuple):
    file: Path
    name: Path  # below the folder that results go to
    kind: str | None  # a format of Pillow's, or FILM; None: cannot be opened
    pixels: int = 0
    pages: int = 1


def plan(
    photos: Sequence[Path],
    out: Path | None = None,
    force: bool = False,
    skip_existing: bool = False,
    all_pages: bool = False,
) -> list[Job]:
    """What is to be done for `photos`, files and folders, the latter with all their subfolders and linked folders.

    The results, NAME-recolor.SUFFIX, go next to their photos, or into the folder `out`, where a folder's tree is kept. With one
    photo, `out` may be a file. In a folder a file is a photo by its content; one that is no photo by name and content is a
    job that is skipped, unless it is a film by its suffix. A folder without photos is a job with a problem. Raises UserError
    for an `out` that cannot be written.
    """
    found: list[_Photo] = []
    other: list[Job] = []
    for path in photos:
        if is_folder(path):
            inside, skipped = _search(path, all_pages)
            found += inside
            other += skipped
            if not inside:
                other.append(Job(path, path, "no photos and no films in this folder"))
        else:
            found.append(_look(path, Path(path.name), all_pages)[0])
    named = [(photo, page) for photo in found for page in (range(photo.pages) if photo.pages > 1 else [None])]
    suffixes = {*Image.registered_extensions(), *SUFFIXES, *FILM_SUFFIXES}
    file = out if out and not is_folder(out) and out.suffix.lower() in suffixes else None
    if file:
        _check_file(file, [photo for photo, _ in named])
    jobs = []
    for photo, page in named:
        target = file or _target(photo, page, out)
        jobs.append(Job(photo.file, target, force=force, page=page, pixels=photo.pixels, film=photo.kind == FILM))
    return other + _checked(jobs, skip_existing)


def _check_file(out: Path, photos: Sequence[_Photo]) -> None:
    """Raises UserError where `out` cannot be the one result of `photos`."""
    if len(photos) > 1:
        raise UserError(f"{out}: one file cannot hold {len(photos)} photos; name a folder")
    is_film = any(photo.kind == FILM for photo in photos)
    writable = FILM_FORMATS if is_film else writable_suffixes()
    if out.suffix.lower() not in writable:
        what, kinds = "a film" if is_film else "a photo", ", ".join(sorted(writable))
        raise UserError(f"{out}: cannot write {what} as {out.suffix}; must be {kinds}, or a folder")


def _search(folder: Path, all_pages: bool) -> tuple[list[_Photo], list[Job]]:
    """The photos in `folder`, and a job for each other file."""
    photos, skipped = [], []
    for name in sorted(walk(folder)):
        path = locate(folder, name)
        if path.is_dir():  # a folder that may not be looked into
            continue
        photo, problem = _look(path, path.relative_to(folder), all_pages)
        if problem and not is_photo(name):
            skipped.append(Job(path, path, problem, skipped=True))
        else:
            photos.append(photo)
    return photos, skipped


def _look(path: Path, name: Path, all_pages: bool) -> tuple[_Photo, str]:
    """The photo or film by its file's header, and why it cannot be read."""
    try:
        with opened(path) as file:
            kind = "JPEG" if file.format == "MPO" else file.format  # several JPEGs in one, the first of them the photo
            return _Photo(path, name, kind, file.width * file.height, page_count(file) if all_pages else 1), ""
    except PhotoError as error:  # reported when its turn comes
        if path.suffix.lower() in FILM_SUFFIXES or _is_transport_stream(path):
            return _Photo(path, name, FILM), ""
        return _Photo(path, name, None), str(error)


def _is_transport_stream(path: Path) -> bool:
    """Whether a .ts is MPEG-TS, whose packets of 188 bytes begin with a G, and not TypeScript."""
    with suppress(PhotoError):
        if path.suffix.lower() == ".ts":
            with open_file(path, sys.maxsize) as file:
                return file.read(377)[::188] == b"GGG"
    return False


def _target(photo: _Photo, page: int | None, out: Path | None) -> Path:
    place = photo.file if out is None else out / photo.name
    number = "" if page is None else f"-{page + 1:0{len(str(photo.pages))}d}"
    return place.with_name(f"{place.stem}{number}{RESULT_MARK}{result_suffix(photo.file, photo.kind)}")


def _checked(jobs: list[Job], skip_existing: bool) -> list[Job]:
    # Unlike pathlib, realpath and lexists raise nothing for links in a circle and long names, which are reported later.
    originals = {os.path.realpath(job.source) for job in jobs}
    refusing = unwritable({job.target.parent for job in jobs})
    taken: dict[str, Job] = {}
    checked = []
    for job in jobs:
        place = os.path.realpath(job.target)
        first = taken.setdefault(place, job)
        if (os.path.realpath(first.source), first.page) != (os.path.realpath(job.source), job.page):
            job = job._replace(
                problem=f"{job.target} is the result of {first.source} already; --out gives a single file another name"
            )
        elif place in originals:
            job = job._replace(problem=f"{job.target} is one of the photos to colour, and these stay as they are")
        elif os.path.lexists(job.target) and not job.force:
            job = job._replace(problem=EXISTS.format(job.target), skipped=skip_existing)
        elif reason := refusing.get(job.target.parent):
            job = job._replace(problem=f"{job.target} cannot be written: {reason}")
        checked.append(job)
    return list(dict.fromkeys(checked))
