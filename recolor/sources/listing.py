"""Listings of photos, with their sizes and hashes.

A listing is a table with one row per photo, or crop of a photo:

    path    relative to a root, as `listed_name` writes it; `locate` finds the file
    size    in bytes
    sha256  of the file's bytes
    crop    "left,top,right,bottom" in pixels of the upright photo, or "" for the whole photo
    group   rows of one group are in the same split: the sha256

Unreadable photos and folders, and files without a photo's suffix, have size 0, an empty sha256 and their path as group:
preprocess rejects them with the reason.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pandas as pd

from recolor.core.iterators import progress_bar
from recolor.core.storage import atomic_file
from recolor.core.tables import write_table
from recolor.images.opening import PhotoError, is_photo_file, locate, open_file

COLUMNS = ["path", "size", "sha256", "crop", "group"]


def listing_of(folder: Path, names: Iterable[str]) -> pd.DataFrame:
    """The listing of `names` under `folder`, sorted, without crops."""
    names = sorted(names)
    with ThreadPool() as pool:  # hashing and reading release the interpreter lock
        prints = pool.imap(partial(_fingerprint, folder), names, chunksize=16)
        found = progress_bar(prints, len(names), "hashing")
        rows = [(name, size, sha256, "", sha256 or name) for name, (size, sha256) in zip(names, found, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def write_listing(listing: pd.DataFrame, file: Path) -> None:
    """Writes `listing` to `file`, atomically. Raises DiskFull."""
    with atomic_file(file, "the listing") as part:
        write_table(listing, part)


def _fingerprint(folder: Path, name: str) -> tuple[int, str]:
    with suppress(PhotoError):
        if is_photo_file(folder, name):
            with open_file(locate(folder, name)) as stream:
                return os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    return 0, ""
