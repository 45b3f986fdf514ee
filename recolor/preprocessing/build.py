"""From a listing of photos to a cache of Lab tensors, split into train and test.

Memory use does not grow with the number of pixels. A photo's rank is the hash of seed and group (normally the file's own
hash), so the order is known before any file is opened and does not depend on names or on the order of the listing. Photos are
decoded in order of rank in several processes, and the accepted ones are written to the shards as they arrive. The first
`train_fraction` of the accepted groups is the train split.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from recolor.core.errors import UserError
from recolor.core.params import Number, Section, Seed
from recolor.core.progress import progress
from recolor.core.storage import atomic_folder
from recolor.dataset.shards import kind, tensor_bytes, write_shards, write_table
from recolor.preprocessing.conversion import Converted, ListedPhoto, Rejected, convert, lost
from recolor.preprocessing.workers import ordered_map


class CacheParams(Section, frozen=True):
    seed: Seed = 42
    size: int = Field(ge=16, le=4096, multiple_of=16)
    train_fraction: Number = Field(gt=0, lt=1)
    min_chroma: Number = Field(ge=0)


@dataclass(frozen=True)
class CacheCounts:
    """Numbers of the listed photos: in train, in test, and rejected by category."""

    train: int
    test: int
    rejected: Mapping[str, int]

    @property
    def used(self) -> int:
        return self.train + self.test

    @property
    def listed(self) -> int:
        return self.used + sum(self.rejected.values())

    def __str__(self) -> str:
        reasons = ", ".join(f"{number} {name}" for name, number in self.rejected.items())
        left_out = f"; left out {self.listed - self.used}: {reasons}" if reasons else ""
        return f"{self.listed} listed, {self.used} used: {self.train} train, {self.test} test{left_out}"


def build(
    listing: pd.DataFrame,
    root: Path,
    out: Path,
    params: CacheParams,
    seed: int,
    processes: int | None = None,
    dataset: str = "DATASET",
) -> CacheCounts:
    """Writes the cache of `listing`, whose paths are relative to `root`, as the folder `out`, atomically.

    The result is bit-identical for any number of processes and any order of the listing. With several processes, a photo that
    crashes its decoder, or that needs minutes, is rejected.
    Raises UserError: fewer than two groups with a usable photo, a full disk (DiskFull), another process writing `out`.
    """
    photos, copies = _ranked(listing, seed)
    if processes is None:
        processes = max(2, min(_processors(), len(photos) // 64))
    row_bytes = 1000  # in the tables, at most
    needed = int((photos["sha256"] != "").sum()) * (tensor_bytes(params.size) + row_bytes)
    with atomic_folder(out, f"the cache {out}", needed) as unfinished:
        return _write(photos, copies, root, unfinished, params, processes, dataset)


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


def _write(
    photos: pd.DataFrame,
    copies: pd.DataFrame,
    root: Path,
    folder: Path,
    params: CacheParams,
    processes: int,
    dataset: str,
) -> CacheCounts:
    work = partial(convert, root=root, size=params.size, min_chroma=params.min_chroma)
    listed = (ListedPhoto(*row) for row in photos[list(ListedPhoto._fields)].itertuples(index=False, name=None))
    used: list[int] = []
    measured: list[tuple[object, ...]] = []
    reasons: dict[int, str] = {}

    def tensors(results: Iterable[Converted | Rejected]) -> Iterator[bytes]:
        for place, result in enumerate(progress(results, len(photos), "preprocess")):
            if isinstance(result, Rejected):
                reasons[place] = result.reason
            else:
                used.append(place)
                measured.append(result[:-1])
                yield result.tensor

    with closing(ordered_map(work, listed, processes, lost)) as results:
        write_shards(folder, tensors(results), (3, params.size, params.size))
    rejected = photos.loc[list(reasons), ["path", "crop"]].assign(reason=list(reasons.values()))
    rejected = pd.concat([rejected, copies]).sort_values(["path", "crop"])
    group, names = pd.factorize(photos.loc[used, "group"])  # numbered in order of rank
    _check_groups(dataset, len(names), rejected, len(photos) + len(copies))
    is_train = group < min(max(round(params.train_fraction * len(names)), 1), len(names) - 1)
    manifest = photos.loc[used, ["path", "crop", "sha256", "group"]].reset_index(drop=True)
    columns = ["width", "height", "chroma", "tensor_sha256"]
    manifest = pd.concat([manifest, pd.DataFrame(measured, columns=columns)], axis=1)
    manifest.insert(0, "split", np.where(is_train, "train", "test"))
    manifest.insert(1, "row", range(len(used)))
    write_table(manifest, folder / "manifest.csv")
    write_table(rejected, folder / "rejected.csv")
    train = int(is_train.sum())
    return CacheCounts(train, len(used) - train, dict(Counter(map(kind, rejected["reason"])).most_common()))


def _check_groups(dataset: str, groups: int, rejected: pd.DataFrame, listed: int) -> None:
    if groups >= 2:
        return
    kinds = Counter(map(kind, rejected["reason"])).most_common()
    why = ", ".join(f"{number} {name}" for name, number in kinds) or "none was rejected"
    lower = ": a lower data.min_chroma accepts paler photos" if any(name == "grey" for name, _ in kinds) else ""
    example = "" if rejected.empty else f", such as {rejected['path'].iloc[0]} ({rejected['reason'].iloc[0]})"
    raise UserError(
        f"data.{dataset}: {groups} usable photos of {listed} listed ({why}{example}); at least two different ones are needed, "
        f"to train and to test{lower}"
    )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
