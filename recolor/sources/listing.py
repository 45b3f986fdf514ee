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
from collections.abc import Iterable
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pandas as pd

from recolor.core.progress import progress
from recolor.core.storage import atomic_file, check_disk_space
from recolor.images.opening import PhotoError, is_photo, locate, open_file

COLUMNS = ["path", "size", "sha256", "crop", "group"]


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
    with check_disk_space("the listing", file.parent, len(text)), atomic_file(file) as part:
        part.write_bytes(text)


def _fingerprint(folder: Path, name: str) -> tuple[int, str]:
    if not is_photo(name):
        return 0, ""
    try:
        with open_file(locate(folder, name)) as stream:
            return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    except PhotoError:
        return 0, ""
