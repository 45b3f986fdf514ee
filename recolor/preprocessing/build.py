"""From a listing of photos to a cache of Lab tensors, split into train and test.

A photo's rank is the hash of seed and group (normally the file's own hash), so the order depends neither on names nor on the
listing's. Photos are decoded in order of rank in several processes, and the accepted ones are written to the shards as they
arrive. Of files with the same bytes, or pixels, one is accepted. The first `train_fraction` of the groups is the train split.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.params import Section, Seed
from recolor.core.storage import atomic_folder
from recolor.core.tables import write_table
from recolor.dataset.shards import DTYPE, CacheCounts, count_reasons, write_shards
from recolor.preprocessing.conversion import Converted, ListedPhoto, convert, lost
from recolor.preprocessing.workers import ordered_map


class CacheParams(Section, frozen=True):
    """Section `data`."""

    seed: Seed
    size: int = Field(ge=16, le=4096, multiple_of=16)  # pixels of both sides
    train_fraction: float = Field(gt=0, lt=1)
    min_chroma: float = Field(ge=0)  # of a photo's mean chroma, in CIELAB units; below it a photo counts as grey


def build(
    listing: pd.DataFrame,
    root: Path,
    out: Path,
    params: CacheParams,
    processes: int | None = None,
    dataset: str = "DATASET",
) -> CacheCounts:
    """Writes the cache of `listing`, whose paths are relative to `root`, as the folder `out`, atomically.

    The result is bit-identical for any number of processes and any order of the listing. Raises UserError: fewer than two
    groups with a usable photo, a full disk (DiskFull), another process writing `out`.
    """
    photos, copies = _ranked(listing, params.seed)
    if processes is None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = max(2, min(processors, len(photos) // 64))
    bytes_each = 3 * params.size**2 * DTYPE.itemsize + 1000  # in the tables, at most
    needed = int((photos["sha256"] != "").sum()) * bytes_each
    work = partial(convert, root=root, size=params.size, min_chroma=params.min_chroma)
    listed = (ListedPhoto(*row) for row in photos[list(ListedPhoto._fields)].itertuples(index=False, name=None))
    measured: list[tuple[object, ...]] = []
    reasons: dict[int, str] = {}
    first: dict[str, int] = {}  # the place of each tensor: a copy in another file must not be in the other split

    def tensors(results: Iterable[Converted | str]) -> Iterator[bytes]:
        for place, result in enumerate(progress_bar(results, len(photos), "preprocess")):
            if isinstance(result, str):
                reasons[place] = result
            elif (same := first.setdefault(result.tensor_sha256, place)) != place:
                reasons[place] = f"duplicate of {photos['path'][same]}"
            else:
                measured.append(result[:-1])
                yield result.tensor

    with atomic_folder(out, f"the cache {out}", needed) as folder:
        with closing(ordered_map(work, listed, processes, lost)) as results:
            write_shards(folder, tensors(results), (3, params.size, params.size))
        rejected = photos.loc[list(reasons), ["path", "crop"]].assign(reason=list(reasons.values()))
        rejected = pd.concat([rejected, copies]).sort_values(["path", "crop"])
        used = photos.drop(index=list(reasons))[["path", "crop", "sha256", "group"]].reset_index(drop=True)
        group, names = pd.factorize(used["group"])  # numbered in order of rank
        if len(names) < 2:
            raise _too_few(dataset, len(names), rejected, len(listing))
        is_train = group < min(max(round(params.train_fraction * len(names)), 1), len(names) - 1)
        manifest = used.join(pd.DataFrame(measured, columns=Converted._fields[:-1]))
        manifest.insert(0, "split", np.where(is_train, "train", "test"))
        manifest.insert(1, "row", range(len(used)))
        write_table(manifest, folder / "manifest.csv")
        write_table(rejected, folder / "rejected.csv")
    return CacheCounts.of(manifest, rejected)


def _ranked(listing: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos in order of rank without duplicates (the first path is kept), and the duplicates as rejections."""
    rows = listing.sort_values(["path", "crop"], ignore_index=True)
    first = rows.groupby(["sha256", "crop"])["path"].transform("first")
    copy = rows.duplicated(["sha256", "crop"]) & (rows["sha256"] != "")  # unreadable photos have no hash
    copies = rows.loc[copy, ["path", "crop"]].assign(reason="duplicate of " + first[copy])
    photos = rows[~copy]
    rank = [hashlib.sha256(f"{seed}:{group}".encode()).hexdigest() for group in photos["group"]]
    photos = photos.assign(rank=rank).sort_values(["rank", "path", "crop"], ignore_index=True)
    return photos.drop(columns="rank"), copies


def _too_few(dataset: str, groups: int, rejected: pd.DataFrame, listed: int) -> UserError:
    reasons = count_reasons(rejected)
    why = ", ".join(f"{number} {name}" for name, number in reasons.items()) or "none was rejected"
    lower = ": a lower data.min_chroma accepts paler photos" if "grey" in reasons else ""
    example = "" if rejected.empty else f", such as {rejected['path'].iloc[0]} ({rejected['reason'].iloc[0]})"
    return UserError(
        f"data.{dataset}: {groups} usable photos of {listed} listed ({why}{example}); at least two different ones are needed, "
        f"to train and to test{lower}"
    )
