"""The cache on disk: Lab tensors in a few large files, and `CachedPhotos`, which reads them through the memory map.

A cache is a folder with `manifest.csv` (a row a photo), `rejected.csv` (a row for every file left out) and, for each
split, `train-000.npy`, `train-001.npy`, ...: float16, (N, 3, size, size), normalised L, a and b, at most `SHARD` photos
each. In float16 a photo comes back to 8-bit RGB as it was; a saturated colour may come back one level off.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recolor.errors import UserError
from recolor.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

SHARD = 1024  # photos in a file: 403 MB at 256x256, and DVC is slow with many files
DTYPE = np.dtype("<f2")
NUMBERS: dict[str, type] = {"row": int, "size": int, "width": int, "height": int, "chroma": float}
MAPPED = 256  # files open at once: a process may have 1,024, and ImageNet takes 1,251 shards

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


class CachedPhotos:
    """One split of a cache. `photos[[3, 0, 7]]` is a batch; nothing is kept in memory but the pages that the system likes to.

    `manifest`: this split's rows of `manifest.csv`, in the order of the tensors. `shape`: of one photo, (3, size, size).
    Raises CacheError where shards and manifest do not fit each other; `verify` looks at every tensor.
    """

    def __init__(self, directory: Path, split: Split) -> None:
        self.directory = directory
        self.split = split
        table = read_table(directory / "manifest.csv")
        self.manifest = table[table["split"] == split].reset_index(drop=True)
        self._files = sorted(directory.glob(f"{split}-*.npy"), key=lambda file: (len(file.name), file.name))
        self._map = lru_cache(MAPPED)(self._open)
        shards = [self._map(number).shape for number in range(len(self._files))]
        self._starts = np.cumsum([0, *(shape[0] for shape in shards)])
        if self._starts[-1] != len(self.manifest) or not shards:
            raise self._broken(f"{self._starts[-1]} tensors stand in the shards, {len(self.manifest)} in the manifest")
        if len({shape[1:] for shape in shards}) > 1:
            raise self._broken("its shards differ in size")
        self.shape: Shape = shards[0][1:]

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """Photos at `indices`, in that order: float32, (B, 3, H, W), normalised L, a, b in [-1, 1]."""
        return self.half(indices).float()

    def half(self, indices: "Sequence[int] | NDArray[np.integer] | Tensor") -> "Tensor":
        """The same as float16, the way it is stored: half the bytes on the way to a GPU, which widens them for nothing."""
        import torch

        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or (len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self))):
            raise IndexError(f"takes a list of indices from 0 to {len(self) - 1}, got {indices}")
        batch = np.empty((len(wanted), *self.shape), DTYPE)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        # In the order of the file: what lies together is read together.
        for place in np.argsort(wanted, kind="stable"):
            batch[place] = self._map(int(shards[place]))[wanted[place] - self._starts[shards[place]]]
        return torch.from_numpy(batch)

    def verify(self) -> None:
        """Reads every tensor and raises CacheError unless each is the one that the manifest names in its place."""
        if list(self.manifest["row"]) != list(range(len(self))):
            raise self._broken("rows are missing from the manifest, or out of order")
        digests = progress(self._digests(), len(self), f"verifying {self.split}")
        for row, (digest, expected) in enumerate(zip(digests, self.manifest["tensor_sha256"], strict=True)):
            if digest != expected:
                raise self._broken(f"the tensor in row {row} is not that of {self.manifest['path'][row]!r}")

    def _digests(self) -> Iterator[str]:
        for number in range(len(self._files)):
            for tensor in self._map(number):
                yield hashlib.sha256(tensor).hexdigest()

    def _open(self, number: int) -> NDArray[np.float16]:
        file = shard_file(self.directory, self.split, number)
        try:
            shard = np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise self._broken(f"{file.name} cannot be read ({error})") from None
        if shard.dtype != DTYPE or shard.ndim != 4 or shard.shape[1] != 3:
            raise self._broken(f"{file.name} holds {shard.dtype} {shard.shape}, not float16 (N, 3, H, W)")
        return shard

    def _broken(self, why: str) -> CacheError:
        return CacheError(f"{self.directory}, {self.split}: {why}; delete the folder and run preprocess again")
