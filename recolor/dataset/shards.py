"""The cache on disk: Lab tensors in a few large files, and `CachedPhotos`, which reads single ones out of them.

A cache is a folder with `manifest.csv` (a row a photo), `rejected.csv` (a row for every file left out) and, for each
split, `train-000.npy`, `train-001.npy`, ...: float16, (N, 3, size, size), normalised L, a and b, at most `SHARD` photos
each. In float16 a photo comes back to 8-bit RGB as it was; a saturated colour may come back one level off.
"""

import hashlib
import io
import os
import weakref
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recolor.core.errors import UserError
from recolor.core.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

SHARD = 1024  # photos in a file: 403 MB at 256x256, and DVC is slow with many files
DTYPE = np.dtype("<f2")
NUMBERS: dict[str, type] = {"row": int, "size": int, "width": int, "height": int, "chroma": float}
CHUNK = 64  # photos that are verified at once

Split = Literal["train", "test"]
Shape = tuple[int, int, int]


class CacheError(UserError):
    """A cache that is missing, incomplete, or not the one that its manifest describes."""


def shard_file(directory: Path, split: str, number: int) -> Path:
    return directory / f"{split}-{number:03d}.npy"


def tensor_bytes(size: int) -> int:
    return 3 * size * size * DTYPE.itemsize


def read_table(file: Path) -> pd.DataFrame:
    """A CSV of ours with text as it stands: a photo may well be called NA.

    Raises CacheError where there is none.
    """
    try:
        header = pd.read_csv(file, nrows=0).columns
        return pd.read_csv(file, dtype={name: NUMBERS.get(name, str) for name in header}, keep_default_na=False)
    except FileNotFoundError:
        raise CacheError(f"{file} is missing: run the stage that makes it again") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise CacheError(f"{file} is damaged ({error}): delete it and run its stage again") from None


def write_table(table: pd.DataFrame, file: Path) -> None:
    table.to_csv(file, index=False, lineterminator="\n")


def kind(reason: str) -> str:
    """What a rejection is counted under: its reason without what is particular to one photo."""
    return "duplicate" if reason.startswith("duplicate of ") else reason.partition(":")[0]


class ShardWriter:
    """Appends tensors to shards and, when the last one is in, parts them into train and test.

    Ordinary writes, not a memory map: a map kills the process when the disk is full, a write says so.
    """

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.directory = directory
        self.shape = shape
        self.count = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, tensor: bytes) -> None:
        """`tensor` holds float16 values, little-endian, of the writer's shape."""
        if self.count % SHARD == 0:
            self._close()
            self._file = self._path(self.count // SHARD).open("xb")
            self._header(self._file, SHARD)
        assert self._file is not None
        self._file.write(tensor)
        self.count += 1

    def split(self, boundary: int) -> None:
        """The first `boundary` photos become the train shards, the rest the test shards.

        Whole shards are renamed. The one that holds the boundary is copied behind it and cut off there.
        """
        self._close()
        test = 0
        for first in range(0, self.count, SHARD):
            part = self._path(first // SHARD)
            if first < boundary < first + SHARD and boundary < self.count:
                with shard_file(self.directory, "test", test).open("xb") as file:
                    rows = np.load(part, mmap_mode="r")[boundary - first :]
                    self._header(file, len(rows))
                    for row in rows:
                        file.write(row.tobytes())
                test += 1
                self._cut(part, boundary - first)
            if first < boundary:
                part.rename(shard_file(self.directory, "train", first // SHARD))
            else:
                part.rename(shard_file(self.directory, "test", test))
                test += 1

    def _path(self, number: int) -> Path:
        return shard_file(self.directory, "unsplit", number)

    def _header(self, file: BinaryIO, rows: int) -> None:
        """numpy pads headers so that the number of rows may be changed in place."""
        np.lib.format.write_array_header_1_0(
            file, {"descr": DTYPE.str, "fortran_order": False, "shape": (rows, *self.shape)}
        )

    def _cut(self, path: Path, rows: int) -> None:
        with path.open("r+b") as file:
            self._header(file, rows)
            file.truncate(file.tell() + rows * int(np.prod(self.shape)) * DTYPE.itemsize)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            last = (self.count - 1) // SHARD
            self._cut(self._path(last), self.count - last * SHARD)
            self._file = None


class Shard(NamedTuple):
    """A file of tensors: `offset` bytes of header, then `rows` tensors of `shape`."""

    name: str
    offset: int
    rows: int
    shape: Shape


class CachedPhotos:
    """One split of a cache. `photos[[3, 0, 7]]` is a batch; nothing is kept in memory but the pages that the system likes to.

    Shards are opened for each batch and its tensors read into their places, where memory maps might be kept: a process may have
    1,024 files open, and ImageNet takes 1,251 shards. Opening and reading costs 30 us of a processor's time a photo, a map that
    is there already 17, and one that has to be made anew 95 (256x256, files in the page cache).

    `manifest`: this split's rows of `manifest.csv`, in the order of the tensors. `shape`: of one photo, (3, size, size).
    Raises CacheError where shards and manifest do not fit each other; `verified` and `verify` look at the tensors.
    """

    def __init__(self, directory: Path, split: Split) -> None:
        self.directory = directory
        self.split = split
        table = read_table(directory / "manifest.csv")
        self.manifest = table[table["split"] == split].reset_index(drop=True)
        # This very folder: where another takes its place meanwhile, reading fails, and never mixes the two.
        self._folder = os.open(directory, os.O_RDONLY)
        weakref.finalize(self, os.close, self._folder)
        files = sorted(directory.glob(f"{split}-*.npy"), key=lambda file: (len(file.name), file.name))
        self._shards = [self._look_at(file.name) for file in files]
        self._starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        if self._starts[-1] != len(self.manifest) or not files:
            raise self._broken(f"{self._starts[-1]} tensors stand in the shards, {len(self.manifest)} in the manifest")
        if not np.array_equal(self.manifest["row"], np.arange(len(self))):
            raise self._broken("rows are missing from the manifest, or out of order")
        if len({shard.shape for shard in self._shards}) > 1:
            raise self._broken("its shards differ in size")
        self.shape: Shape = self._shards[0].shape

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """Photos at `indices`, in that order: float32, (B, 3, H, W), normalised L, a, b in [-1, 1]."""
        return self.read_fp16(indices).float()

    def read_fp16(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """The same as float16, the way it is stored: half the bytes on the way to a GPU, which widens them for nothing."""
        import torch

        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or (len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self))):
            raise IndexError(f"takes a list of indices from 0 to {len(self) - 1}, got {indices}")
        batch = np.empty((len(wanted), *self.shape), DTYPE)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        # In the order of the files: each is opened once, and what lies together is read together.
        for number, places in groupby(np.argsort(wanted, kind="stable"), key=lambda place: int(shards[place])):
            shard = self._shards[number]
            try:
                with self._open(shard.name) as file:
                    for place in places:
                        file.seek(shard.offset + int(wanted[place] - self._starts[number]) * batch[place].nbytes)
                        if file.readinto(batch[place].data.cast("B")) < batch[place].nbytes:
                            raise OSError("it ends too early")
            except OSError as error:
                raise self._broken(f"{shard.name} cannot be read ({error})") from None
        return torch.from_numpy(batch)

    def verified(self, indices: Sequence[int]) -> "Tensor":
        """What `read_fp16` gives; raises CacheError unless each tensor is the one that the manifest names in its place."""
        batch = self.read_fp16(indices)
        for row, tensor in zip(indices, batch.numpy(), strict=True):
            if hashlib.sha256(tensor).hexdigest() != self.manifest["tensor_sha256"][row]:
                raise self._broken(f"the tensor in row {row} is not that of {self.manifest['path'][row]!r}")
        return batch

    def verify(self, share: int = 0, shares: int = 1) -> None:
        """Reads every tensor, or every `shares`-th handful of them, and raises CacheError unless it is `verified`."""
        rows = range(len(self))
        for start in progress(range(0, len(self), CHUNK)[share::shares], desc=f"verifying {self.split}"):
            self.verified(rows[start : start + CHUNK])

    def _open(self, name: str) -> io.FileIO:
        return io.FileIO(name, opener=self._within)

    def _within(self, name: str, flags: int) -> int:
        return os.open(name, flags, dir_fd=self._folder)

    def _look_at(self, name: str) -> Shard:
        try:
            with self._open(name) as file:
                np.lib.format.read_magic(file)
                shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
                offset, size = file.tell(), os.fstat(file.fileno()).st_size
        except (OSError, ValueError, EOFError) as error:
            raise self._broken(f"{name} cannot be read ({' '.join(str(error).split())})") from None
        if dtype != DTYPE or len(shape) != 4 or shape[1] != 3 or columns_first:
            raise self._broken(f"{name} holds {dtype} {shape}, not float16 (N, 3, H, W)")
        if size - offset != int(np.prod(shape)) * DTYPE.itemsize:
            raise self._broken(f"{name} is {size:,} bytes long, which does not fit its header")
        return Shard(name, offset, shape[0], shape[1:])

    def _broken(self, why: str) -> CacheError:
        return CacheError(f"{self.directory}, {self.split}: {why}; delete the folder and run preprocess again")
