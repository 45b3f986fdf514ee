"""Sources of photos: a params class for each kind, and `fetch`, which lists the photos of one."""

import hashlib
import heapq
import importlib.resources
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import AfterValidator, Field

from recolor.core.downloads import PATIENT, Patience, RemoteFile, download
from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.params import Section, expandable
from recolor.images.decoding import decode
from recolor.images.folders import walk
from recolor.images.opening import SUFFIXES, is_photo, is_photo_file, listed_name
from recolor.sources import archives
from recolor.sources.listing import listing_of

# The colour photos installed with scikit-image since 0.24, without drawings, logos, grey pictures, the second picture of the
# stereo pair, and pictures that scikit-image downloads.
SAMPLE = ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg"]
SAMPLE += ["ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"]
SMALLEST_CROP = 256  # pixels

# COCO publishes no hashes. These MD5 sums are from PaddleDetection (ppdet/utils/download.py).
COCO = {
    name: RemoteFile(f"http://images.cocodataset.org/zips/{name}.zip", size, f"md5:{md5}")
    for name, size, md5 in (
        ("val2017", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        ("train2017", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    )
}

Limit = Annotated[int, Field(ge=2)]  # one photo to train on, one to test
PhotosPath = Annotated[str, Field(min_length=1), AfterValidator(expandable)]


class SampleParams(Section, frozen=True):
    """Overlapping square crops of scikit-image's photos, `crops` of each."""

    source: Literal["sample"]
    crops: int = Field(40, ge=1, le=1000)


class CocoParams(Section, frozen=True):
    """COCO 2017. `limit`: number of photos, drawn with the seed; None: all."""

    source: Literal["coco"]
    split: Literal["val2017", "train2017"] = "val2017"
    limit: Limit | None = None


class ImageNetParams(Section, frozen=True):
    """The user's own copy: `path` is a folder of class folders, or a tar of it. `limit` is balanced over the classes."""

    source: Literal["imagenet"]
    path: PhotosPath
    limit: Limit | None = 10_000


class FolderParams(Section, frozen=True):
    """All photos under the folder `path`, or `limit` of them, drawn with the seed."""

    source: Literal["folder"]
    path: PhotosPath
    limit: Limit | None = None


Source = SampleParams | CocoParams | ImageNetParams | FolderParams
SourceParams = Annotated[Source, Field(discriminator="source")]


class SourceError(UserError):
    """There are no photos at the place that the params name."""


def root(params: Source, downloads: Path, dataset: str = "DATASET") -> Path:
    """The folder that a listing's paths are relative to. Raises SourceError if it is the user's own and is missing."""
    if isinstance(params, SampleParams):
        return Path(str(importlib.resources.files("skimage"))) / "data"
    if isinstance(params, CocoParams):
        return downloads / "coco"
    path = Path(params.path).expanduser()
    try:
        if isinstance(params, ImageNetParams) and path.is_file():
            return downloads / "imagenet" / path.name.partition(".tar")[0]
        os.scandir(path).close()
    except FileNotFoundError:
        found = f"there is nothing at {path.absolute()}"
    except (OSError, ValueError) as error:  # a file, no permission, a name too long, a null byte in it
        found = f"{str(path.absolute())!r:.200} is no folder that can be read ({getattr(error, 'strerror', error)})"
    else:
        return path
    raise SourceError(
        f"data.{dataset}.path: {found}; set it to the folder of the photos: "
        f"dvc exp run -S 'datasets=[{dataset}]' -S data.{dataset}.path=/absolute/path"
    )


def check_photos_exist(params: ImageNetParams | FolderParams, dataset: str) -> None:
    """Raises SourceError unless `path` has at least two photos, by suffix or, in a folder, by content."""
    folder, path = root(params, Path(), dataset), Path(params.path).expanduser()
    try:
        if folder == path:
            found_names = (name for name in walk(path) if is_photo_file(path, name))
        else:
            found_names = (member.name for member in archives.members(path) if is_photo(member.name))
        photos = list(islice(found_names, 2))
    except archives.ArchiveError as error:
        raise SourceError(f"data.{dataset}.path: {error}") from None
    if len(photos) < 2:
        found = f"only {photos[0]!r}" if photos else "no photo"
        raise SourceError(
            f"data.{dataset}.path: found {found} in {path.absolute()}; at least two photos are needed, to train and to test"
        )


def fetch(
    params: Source,
    seed: int,
    downloads: Path,
    dataset: str = "DATASET",
    remote: Mapping[str, RemoteFile] = COCO,
    patience: Patience = PATIENT,
) -> pd.DataFrame:
    """The listing (see `listing`) of photos, from `downloads`. Raises SourceError, DownloadError, ArchiveError, DiskFull."""
    folder = root(params, downloads, dataset)
    others: list[str] = []  # in the user's folder: listed too, so that preprocess rejects them with a reason
    match params:
        case SampleParams():
            return _sample(folder, params.crops, seed)
        case CocoParams():
            archive = download(remote[params.split], folder, patience)
            names = _unpack(archive, folder, partial(_draw, limit=params.limit, seed=seed))
        case ImageNetParams():
            draw = partial(_draw_balanced, limit=params.limit, seed=seed)
            given = Path(params.path).expanduser()
            names = draw(_photos(folder, others)) if given.is_dir() else _unpack(given, folder, draw)
        case FolderParams():
            names = _draw(_photos(folder, others), params.limit, seed)
    if not names:
        where = folder if isinstance(params, CocoParams) else params.path
        there = f"; it holds {len(others)} other files, such as {min(others)}" if others else ""
        raise SourceError(f"data.{dataset}: no photos in {where}: looked for {', '.join(sorted(SUFFIXES))}{there}")
    return listing_of(folder, [*names, *others])


def _sample(folder: Path, crops: int, seed: int) -> pd.DataFrame:
    photos = listing_of(folder, SAMPLE)
    if not photos["sha256"].all():
        raise SourceError("scikit-image has no photos here: pip install --force-reinstall --no-deps scikit-image")
    photos["crop"] = [_crops(f"{seed}:{name}", decode(folder / name).size, crops) for name in photos["path"]]
    return photos.explode("crop", ignore_index=True)


def _crops(seed: str, size: tuple[int, int], count: int) -> list[str]:
    """Different random squares; the side is log-uniform from SMALLEST_CROP to the photo's short side."""
    draw = random.Random(seed).random  # noqa: S311
    largest = min(size) / SMALLEST_CROP
    crops: dict[str, None] = {}
    while len(crops) < count:
        side = round(SMALLEST_CROP * largest ** draw())
        left, top = int(draw() * (size[0] - side + 1)), int(draw() * (size[1] - side + 1))
        crops[f"{left},{top},{left + side},{top + side}"] = None
    return list(crops)


def _photos(folder: Path, others: list[str]) -> Iterator[str]:
    """The photos below `folder`, by suffix or content; other files are added to `others`."""
    for name in progress_bar(walk(folder), desc="listing"):
        if is_photo_file(folder, name):
            yield name
        else:
            others.append(name)


def _unpack(archive: Path, folder: Path, draw: Callable[[Iterable[str]], list[str]]) -> list[str]:
    """Draws photos from `archive` and unpacks them."""
    found = {
        listed_name(member.name): member
        for member in progress_bar(archives.members(archive), desc=f"reading {archive.name}")
        if is_photo(member.name)
    }
    drawn = draw(found)
    keep = set(drawn)
    archives.extract(archive, [member for name, member in found.items() if name in keep], folder)
    return drawn


def _rank(seed: int, name: str) -> bytes:
    """A random rank that does not depend on the other names: an added photo changes the draw little."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _draw(names: Iterable[str], limit: int | None, seed: int) -> list[str]:
    return list(names) if limit is None else heapq.nsmallest(limit, names, key=partial(_rank, seed))


def _draw_balanced(names: Iterable[str], limit: int | None, seed: int) -> list[str]:
    """One photo of each class, then a second of each, until `limit`. A photo's class is its folder."""
    if limit is None:
        return list(names)
    classes: dict[str, list[str]] = defaultdict(list)
    for name in names:
        classes[name.rpartition("/")[0]].append(name)
    rounds = (
        (turn, _rank(seed, group), name)
        for group, photos in classes.items()
        for turn, name in enumerate(sorted(photos, key=partial(_rank, seed)))
    )
    return [name for _, _, name in heapq.nsmallest(limit, rounds)]
