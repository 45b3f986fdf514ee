"""Listings: which photos there are, and what is in them, found out without changing one.

A listing is a table with a row for each photo, or crop of a photo:

    path    relative to a root, as `photos.listed_name` writes it and `photos.locate` finds it again
    size    in bytes
    sha256  of the file's bytes
    crop    "left,top,right,bottom" in pixels of the upright photo, or "" for all of it
    group   what the split keeps together: the sha256

A photo that cannot be read stands there with size 0, an empty sha256 and its path for a group, and so do a folder that cannot
be looked into and a file whose name is no photo's: preprocess rejects them, and says why.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pandas as pd

from recolor.core.progress import progress
from recolor.core.storage import room_for, whole
from recolor.images.decoding import PhotoError, is_photo, listed_name, locate, open_file

COLUMNS = ["path", "size", "sha256", "crop", "group"]


def walk(top: Path) -> Iterator[str]:
    """Listed names of all files below `top`, photos or not, and of the folders that cannot be looked into.

    Links to folders are followed after the folders proper, and no folder is entered twice: so a circle ends, and a
    photo goes by its own name rather than by a link's. Hidden files and folders are left out: thumbnails, trash, and what
    macOS leaves behind.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = ["."], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = (top / folder).stat()
            entries = sorted(os.scandir(top / folder), key=lambda entry: entry.name)
        except OSError:
            yield listed_name(os.path.normpath(folder))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = os.path.normpath(f"{folder}/{entry.name}")
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(name)
            else:
                yield listed_name(name)


def listing_of(folder: Path, names: Iterable[str]) -> pd.DataFrame:
    """Each name under `folder` with its size and hash, sorted, each photo whole."""
    names = sorted(names)
    with ThreadPool() as pool:  # hashing lets go of the interpreter, reading waits for the disk
        prints = pool.imap(partial(_fingerprint, folder), names, chunksize=16)
        rows = [
            (name, size, sha256, "", sha256 or name)
            for name, (size, sha256) in zip(names, progress(prints, len(names), "hashing"), strict=True)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def write_listing(listing: pd.DataFrame, file: Path) -> None:
    """As CSV, whole or not at all."""
    text = listing.to_csv(index=False, lineterminator="\n").encode()
    with room_for("the listing", file.parent, len(text)), whole(file) as part:
        part.write_bytes(text)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where there is no permission
        return False


def _fingerprint(folder: Path, name: str) -> tuple[int, str]:
    if not is_photo(name):
        return 0, ""
    try:
        with open_file(locate(folder, name)) as stream:
            return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    except PhotoError:
        return 0, ""
