"""The cache on disk: Lab tensors in a few large files, and `CachedPhotos`, which reads single ones out of them.

A cache is a folder with `manifest.csv` (one row per photo), `rejected.csv` (one row per file left out) and
`shard-000.npy`, `shard-001.npy`, ...: float16, (N, 3, size, size), normalised L, a and b, at most `SHARD` photos each. The
manifest's column `split` assigns each photo to train or test, its `row` is the photo's position in the shards, counted
over all of them. Conversion to float16 and back to 8-bit RGB is exact; saturated colours may be one level off.
"""

import hashlib
import io
import os
import weakref
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recolor.core.errors import UserError, one_line
from recolor.core.iterators import progress_bar
from recolor.core.tables import complete_csv, reading

if TYPE_CHECKING:
    from torch import Tensor

SHARD = 1024  # photos in a file: 403 MB at 256x256, and DVC is slow with many files
DTYPE = np.dtype("<f2")
NUMBERS: dict[str, type] = {"row": int, "size": int, "width": int, "height": int, "chroma": float}
CHUNK = 64  # photos verified at once

Split = Literal["train", "test"]
Shape = tuple[int, int, int]


class CacheError(UserError):
    """A cache that is missing, incomplete, or does not match its manifest."""


def read_table(
    file: Path, columns: Collection[str] = (), numbers: bool = False, rows: int | None = None
) -> pd.DataFrame:
    """Reads one of this project's CSV files. Text stays text, since a photo may be named NA, unless `numbers`.

    Raises UserError if it is missing, cut short, has not all of `columns`, or its number of rows is not `rows`.
    """
    how: dict[str, Any] = {} if numbers else {"dtype": defaultdict(lambda: str, NUMBERS), "keep_default_na": False}
    with reading(file):
        table = pd.read_csv(complete_csv(file, columns), **how)
        if rows not in (None, len(table)):
            raise ValueError(f"it has {len(table)} rows, not {rows}")
        return table


def count_reasons(rejected: pd.DataFrame) -> dict[str, int]:
    """The rows of `rejected.csv` by category, which is the reason's text before the colon; the most frequent first."""
    categories = ("duplicate" if r.startswith("duplicate of ") else r.partition(":")[0] for r in rejected["reason"])
    return dict(Counter(categories).most_common())


@dataclass(frozen=True)
class CacheCounts:
    """How many photos a cache has. Groups are the photos that crops were cut from; without crops, the photos themselves."""

    used: int
    groups: int
    test_groups: int
    train: int
    test: int
    rejected: dict[str, int]  # by category

    @classmethod
    def of(cls, manifest: pd.DataFrame, rejected: pd.DataFrame) -> Self:
        test = manifest["split"] == "test"
        groups, test_groups = manifest["group"].nunique(), manifest.loc[test, "group"].nunique()
        return cls(len(test), groups, test_groups, int((~test).sum()), int(test.sum()), count_reasons(rejected))

    def __str__(self) -> str:
        left_out = sum(self.rejected.values())
        reasons = ", ".join(f"{number} {name}" for name, number in self.rejected.items())
        listed = f"{self.used + left_out} listed, {self.used} used: {self.train} train, {self.test} test"
        return f"{listed}; left out {left_out}: {reasons}" if reasons else listed


def write_shards(directory: Path, tensors: Iterable[bytes], shape: Shape) -> None:
    """Writes the cache's shards from `tensors`: float16 values of `shape`, little-endian."""
    remaining = iter(tensors)  # and no memory map, which on a full disk kills the process
    for number in count():
        if (first := next(remaining, None)) is None:
            return
        with (directory / f"shard-{number:03d}.npy").open("xb") as file:
            _write_header(file, (SHARD, *shape))
            rows = 0
            for tensor in chain([first], islice(remaining, SHARD - 1)):
                file.write(tensor)
                rows += 1
            file.seek(0)  # numpy pads headers so that the number of rows can be changed in place
            _write_header(file, (rows, *shape))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})


class Shard(NamedTuple):
    """A file of tensors: `offset` bytes of header, then `rows` tensors of `shape`."""

    name: str
    offset: int
    rows: int
    shape: Shape


class CachedPhotos:
    """One split of a cache. `photos[[3, 0, 7]]` is a batch, read from disk or from the system's page cache.

    Shards are opened for each batch instead of being mapped into memory once: a process may have 1,024 files open, and
    ImageNet has 1,251 shards. `manifest`: this split's rows of `manifest.csv`, indexed from 0. `shape`: of one photo. Raises
    CacheError where shards and manifest do not match; `verified` and `verify` compare the tensors themselves.
    """

    def __init__(self, directory: Path, split: Split) -> None:
        self.directory, self.split = directory, split
        table = read_table(directory / "manifest.csv", ("split", "row", "path", "tensor_sha256"))
        # The folder itself, not its name: if another cache replaces it, reading fails instead of mixing the two.
        self._folder = os.open(directory, os.O_RDONLY)
        weakref.finalize(self, os.close, self._folder)
        files = sorted(directory.glob("shard-*.npy"), key=lambda file: (len(file.name), file.name))
        self._shards = [self._inspect(file.name) for file in files]
        self._starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        if self._starts[-1] != len(table):
            raise self._broken(f"the shards hold {self._starts[-1]} tensors, the manifest {len(table)} rows")
        if not np.array_equal(table["row"], np.arange(len(table))):
            raise self._broken("the manifest's rows are incomplete or out of order")
        self.manifest = table[table["split"] == split].reset_index(drop=True)
        if self.manifest.empty:
            raise self._broken(f"the manifest has no {split} photos")
        if len({shard.shape for shard in self._shards}) > 1:
            raise self._broken("the shards differ in image size")
        self._rows = self.manifest["row"].to_numpy()
        self.shape: Shape = self._shards[0].shape

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """Photos at `indices`, in that order: float32, (B, 3, H, W), normalised L, a, b in [-1, 1]."""
        return self.read_fp16(indices).float()

    def read_fp16(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """The same in float16, as stored: half the bytes to copy to a GPU."""
        import torch

        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        batch = np.empty((len(rows), *self.shape), DTYPE)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        # In file order: each shard is opened once, and neighbouring tensors are read together.
        for number, places in groupby(np.argsort(rows, kind="stable"), key=lambda place: int(shards[place])):
            shard = self._shards[number]
            try:
                with self._open(shard.name) as file:
                    for place in places:
                        file.seek(shard.offset + int(rows[place] - self._starts[number]) * batch[place].nbytes)
                        if file.readinto(batch[place].data.cast("B")) < batch[place].nbytes:
                            raise OSError("the file ends too early")
            except OSError as error:
                raise self._broken(f"{shard.name} cannot be read ({error})") from None
        return torch.from_numpy(batch)

    def verified(self, indices: Sequence[int]) -> "Tensor":
        """Like `read_fp16`; raises CacheError unless each tensor has the SHA-256 that the manifest gives."""
        batch = self.read_fp16(indices)
        for index, tensor in zip(indices, batch.numpy(), strict=True):
            if hashlib.sha256(tensor).hexdigest() != self.manifest["tensor_sha256"][index]:
                raise self._broken(
                    f"the tensor in row {self._rows[index]} is not that of {self.manifest['path'][index]!r}"
                )
        return batch

    def verify(self, share: int = 0, shares: int = 1) -> None:
        """Reads every tensor, or every `shares`-th chunk of them, and raises CacheError unless it is as `verified` expects."""
        rows = range(len(self))
        for start in progress_bar(range(0, len(self), CHUNK)[share::shares], desc=f"verifying {self.split}"):
            self.verified(rows[start : start + CHUNK])

    def _open(self, name: str) -> io.FileIO:
        return io.FileIO(name, opener=partial(os.open, dir_fd=self._folder))

    def _inspect(self, name: str) -> Shard:
        try:
            with self._open(name) as file:
                np.lib.format.read_magic(file)
                shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
                offset, size = file.tell(), os.fstat(file.fileno()).st_size
        except (OSError, ValueError, EOFError) as error:
            raise self._broken(f"{name} cannot be read ({one_line(error)})") from None
        if dtype != DTYPE or len(shape) != 4 or shape[1] != 3 or columns_first:
            raise self._broken(f"{name} holds {dtype} {shape}, not float16 (N, 3, H, W)")
        if size - offset != int(np.prod(shape)) * DTYPE.itemsize:
            raise self._broken(f"{name} is {size:,} bytes long, which does not fit its header")
        return Shard(name, offset, shape[0], shape[1:])

    def _broken(self, why: str) -> CacheError:
        return CacheError(f"{self.directory}, {self.split}: {why}; `dvc repro` makes it again")
