"""The segments of a film that is being coloured: files in a hidden folder beside the result, until the film is complete."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file, make_folder, only_writer
from recolor.core.tables import read_arrays
from recolor.inference.steady import State

# Of an encoded picture: when it is shown, in units of the film's `time_base`; `size` in bytes.
PACKET = [("time", np.int64), ("duration", np.int64), ("is_key", np.bool_), ("size", np.int64)]


class Packets(NamedTuple):
    """Encoded pictures in the order of decoding: a row of PACKET for each, and all their bytes."""

    table: NDArray[np.void]
    content: NDArray[np.uint8]


class Segments:
    """The segments in `folder`, of up to `length` frames each. Each is a file that is complete or not there."""

    def __init__(self, folder: Path, length: int) -> None:
        self._folder, self._length = folder, length
        self.paths: list[Path] = []
        self.state: State | None = None  # of `Steady`, after the last segment
        self._times = [np.zeros(0, np.int64)]
        # Ends at the first one that is missing or damaged: that is made again.
        with contextlib.suppress(UserError):
            while True:
                self._append(*_read(self._next))

    @classmethod
    @contextlib.contextmanager
    def beside(cls, target: Path, key: str, length: int) -> Iterator["Segments"]:
        """Those of an earlier run with this `key`, removed when the block succeeds. UserError while another writes `target`."""
        folder = target.with_name(f".{target.name}.unfinished")
        make_folder(folder)
        note = folder / "key"
        with only_writer(target, folder / "lock"):
            if not note.exists() or note.read_bytes() != key.encode():
                for path in folder.glob("*.npz*"):
                    path.unlink()
                note.write_bytes(key.encode())
            yield cls(folder, length)
            shutil.rmtree(folder)

    @property
    def complete(self) -> bool:
        """Whether the last segment is there: it has fewer frames than the others, or none."""
        return bool(self.paths) and len(self._times[-1]) < self._length

    def add(self, packets: Packets, state: State | None) -> None:
        """Writes the next segment, and the state of `Steady` after it."""
        with atomic_file(self._next, "a part of the film") as temporary, temporary.open("wb") as file:
            np.savez(file, **packets._asdict(), **(state._asdict() if state else {}))
        self._append(packets, state)

    def times(self) -> NDArray[np.int64]:
        """Presentation times of the pictures, in the order of decoding."""
        return np.concatenate(self._times)

    def packets(self) -> Iterator[Packets]:
        """The packets of one segment after the other."""
        for path in self.paths:
            yield _read(path)[0]

    @property
    def _next(self) -> Path:
        return self._folder / f"{len(self.paths):06}.npz"

    def _append(self, packets: Packets, state: State | None) -> None:
        self.paths.append(self._next)
        self._times.append(packets.table["time"])
        self.state = state


def _read(path: Path) -> tuple[Packets, State | None]:
    """What is in the file of a segment. Raises UserError if it is missing or damaged."""
    content = read_arrays(path, *Packets._fields)
    packets = Packets(*(content[name] for name in Packets._fields))
    return packets, State(*(content[name] for name in State._fields)) if "age" in content else None
