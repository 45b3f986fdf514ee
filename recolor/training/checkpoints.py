"""Training states on disk: a file of torch.save each, loaded with `weights_only`, which runs no code."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils._pytree import tree_leaves

from recolor.core.errors import UserError, one_line
from recolor.core.storage import atomic_file, check_disk_space, file_sha256
from recolor.runtime.distributed import DistributedContext


def code() -> list[str]:
    """Identifies torch, timm and the modules of recolor that are imported: an edit of the report loses no checkpoint."""
    files = (Path(sys.modules[name].__file__ or "") for name in sorted(sys.modules) if name.startswith("recolor."))
    return [torch.__version__, version("timm"), *map(file_sha256, files)]


def run_key(inputs: Mapping[str, Any]) -> str:
    """A hash of all that the result of a run depends on: `inputs`, with the settings that were read as `params.yaml`.

    Without sample_epochs, and without epochs where no schedule depends on it. As for DVC, the order of settings does not count.
    """
    settings = {name: value for name, value in inputs["params.yaml"].items() if name != "train.sample_epochs"}
    if "train" in settings:
        ignored = {"sample_epochs"} | (set() if settings["train"]["decay_epochs"] else {"epochs"})
        settings["train"] = {key: value for key, value in settings["train"].items() if key not in ignored}
    return hashlib.sha256(json.dumps({**inputs, "params.yaml": settings}, sort_keys=True).encode()).hexdigest()[:16]


class Checkpoints:
    """The newest two training states of one run, in a folder of its own that one process at a time may lock.

    A state is a tree of dicts and lists with tensors, numbers and strings at its leaves; its file has their checksums (CRC-32).
    """

    KEPT = 2
    FINISHED = "finished"  # the name of an empty file

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: set[Path] = set()  # states that `load` has passed over
        self._lock = FileLock(folder / "lock", timeout=0)

    def acquire(self) -> str | None:
        """Locks the folder until `release` or the end of the process; returns the pid of one that has locked it."""
        holder = self.folder / "pid"
        with check_disk_space("the lock of the checkpoints", self.folder):
            try:
                self._lock.acquire()
            except Timeout:
                # While the other process writes it, it is missing or empty.
                return (holder.exists() and holder.read_text()) or "unknown"
            holder.write_text(str(os.getpid()))
        (self.folder / self.FINISHED).unlink(missing_ok=True)
        for path in self.folder.glob("*.part"):  # what a killed process was writing
            path.unlink()
        return None

    def lock(self, distributed: DistributedContext, log: Callable[[str], None], wait: bool) -> None:
        """`acquire`, in all processes. While another run has locked the folder: UserError, unless `wait`."""
        logged = False
        while holder := distributed.broadcast(self.acquire() if distributed.is_main else None):
            line = f"process {holder} is already training this model"
            if not wait:
                raise UserError(f"{line}; wait for it, or stop it")
            if distributed.is_main and not logged:
                log(f"{line}: waiting for it to end")
            logged = True
            time.sleep(1)

    def release(self) -> None:
        self._lock.release()

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Writes state `number` (its step) and removes all but the newest two. On DiskFull earlier ones stay."""
        path = self.folder / f"{number:09d}.pt"
        needed = sum(leaf.nbytes for leaf in tree_leaves(state) if isinstance(leaf, Tensor))
        with atomic_file(path, "a checkpoint", needed) as temporary, temporary.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's own: the system's, such as a full disk's, is its context
                raise error.__context__ or error from None
        kept = [state for state in self._states() if state <= path][-self.KEPT :]  # any later one was found damaged
        for old in set(self._states()) - set(kept):
            old.unlink()

    def load(self, warn: Callable[[str], None], use: Callable[[Any], object] | None = None) -> dict[str, Any] | None:
        """The newest state that is complete and for which `use` raises nothing, or None. `warn`: for a line on each other."""
        states = self._states()
        while states:
            path = states.pop()
            try:
                with ZipFile(path) as file:
                    if file.testzip():  # compares the checksums, which torch.load does not
                        raise ValueError("its checksum differs")
                state = torch.load(path, "cpu", weights_only=True)
                if use:
                    use(state)
            except (MemoryError, torch.OutOfMemoryError):
                raise  # the state may be good
            except Exception as error:  # a damaged file raises any exception
                self.damaged.add(path)
                rest = "trying the one before it" if states else "there is no earlier one: training starts from step 0"
                why = one_line(f"{type(error).__name__}: {error}", 200)
                warn(f"checkpoint {path} is damaged ({why}); {rest}")
            else:
                return state
        return None

    def newest(self) -> Path | None:
        """The newest good state."""
        return max(set(self._states()) - self.damaged, default=None)

    def finish(self, others: Iterable[Path] = ()) -> None:
        """Marks the run as finished, and removes the finished runs among the folders `others`.

        The last state stays: more epochs continue from it.
        """
        for old in self._states()[:-1]:
            old.unlink()
        with atomic_file(self.folder / self.FINISHED, "an empty file"):
            pass
        for folder in others:
            if folder != self.folder:
                Checkpoints(folder).remove_finished()

    def remove_finished(self) -> None:
        """Removes the folder of a finished run, unless a process has locked it."""
        note, lock = self.folder / self.FINISHED, Path(self._lock.lock_file)
        with suppress(Timeout, FileNotFoundError), self._lock:  # locked, or just removed by another process
            if note.exists():
                # The states go first: if this process is killed in between, the next run removes the rest.
                for path in sorted(set(self.folder.iterdir()) - {lock}, key=lambda path: (path == note, path.name)):
                    path.unlink()
                lock.unlink()
                with suppress(OSError):  # another process has just locked it anew
                    self.folder.rmdir()

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"))
