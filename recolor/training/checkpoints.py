"""Training states on disk, to resume from.

Safetensors hold the tensors and JSON the rest: nothing that is loaded here can run code. Every file is written to a temporary
name and renamed, so a file under its own name is complete.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from torch import Tensor

from recolor.core.storage import atomic_file, check_disk_space
from recolor.models.folder import save_tensors, tensor_bytes


class Checkpoints:
    """The newest two training states of one run, in a folder of its own that one process at a time may lock.

    A state is a tree of dicts and lists with tensors, numbers and strings at its leaves. It is two files: `N.safetensors`, and
    `N.json`, which is written last and holds a SHA-256 over both, so a state with both files is complete.
    """

    KEPT = 2
    FINISHED = "made"  # the name of an empty file

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: set[Path] = set()  # tensors of the states that `load` has passed over
        self._lock = FileLock(folder / "lock", timeout=0)

    def take(self) -> str | None:
        """Locks the folder until `release` or the end of the process; returns the pid of one that has locked it."""
        holder = self.folder / "pid"
        with check_disk_space("the lock of the checkpoints", self.folder):
            try:
                self._lock.acquire()
            except Timeout:
                with suppress(FileNotFoundError):
                    return holder.read_text() or "unknown"  # empty while its holder writes it
                return "unknown"
            holder.write_text(str(os.getpid()))
        (self.folder / self.FINISHED).unlink(missing_ok=True)
        for path in self.folder.glob("*"):  # what a killed process was writing
            half = path.suffix == ".safetensors" and not path.with_suffix(".json").exists()
            if half or path.suffix == ".part" or path.name.startswith(".tmp"):
                path.unlink()
        return None

    def release(self) -> None:
        self._lock.release()

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Writes state `number` (its step) and removes all but the newest two. On DiskFull earlier ones stay."""
        tensors: dict[str, Tensor] = {}
        tree = _split(state, "", tensors)
        path = self.folder / f"{number:09d}.safetensors"
        with atomic_file(path, "a checkpoint", tensor_bytes(tensors)) as temporary:
            save_tensors(tensors, temporary)
            digest = _digest(temporary, tree)
        with atomic_file(path.with_suffix(".json"), "a checkpoint") as temporary:
            temporary.write_text(json.dumps({"sha256": digest, "state": tree}))
        states = sorted(self.folder.glob("*.json"))
        kept = [state for state in states if state.stem <= path.stem][-self.KEPT :]  # any later one was found damaged
        self._remove(set(states) - set(kept))

    def load(self, warn: Callable[[str], None], use: Callable[[Any], object] | None = None) -> dict[str, Any] | None:
        """The newest complete state, or None. `warn` is called with a line for every damaged one that is passed over.

        `use` is called with the state. If it raises, as for tensors of other shapes, the state counts as damaged too.
        """
        states = sorted(self.folder.glob("*.json"))
        while states:
            path = states.pop()
            tensors_path = path.with_suffix(".safetensors")
            try:
                content = json.loads(path.read_text())
                if content["sha256"] != _digest(tensors_path, content["state"]):
                    raise ValueError("its checksum does not fit")
                with safe_open(tensors_path, framework="pt") as file:
                    state = _join(content["state"], file)
                if use:
                    use(state)
            except (MemoryError, torch.OutOfMemoryError):
                raise  # the state may be good
            except Exception as error:  # a damaged file raises any exception: deeply nested JSON is a RecursionError
                self.damaged.add(tensors_path)
                rest = "trying the one before it" if states else "there is none before it, and training starts afresh"
                why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                warn(f"checkpoint {tensors_path} is damaged ({why}); {rest}")
            else:
                return state
        return None

    def newest(self) -> Path | None:
        """The newest good state's tensors."""
        states = {path.with_suffix(".safetensors") for path in self.folder.glob("*.json")}
        return max(states - self.damaged, default=None)

    def finish(self) -> None:
        """Marks the run as finished. Its last state stays: more epochs continue from it."""
        self._remove(sorted(self.folder.glob("*.json"))[:-1])
        with atomic_file(self.folder / self.FINISHED, "an empty file"):
            pass

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

    def _remove(self, states: Iterable[Path]) -> None:
        for state in states:
            state.unlink()
            state.with_suffix(".safetensors").unlink(missing_ok=True)


_TENSOR = "tensor:"


def _split(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`node` with each tensor moved into `tensors` and its name left in its place."""
    if isinstance(node, Tensor):
        tensors[name] = node.detach().contiguous()
        return _TENSOR + name
    if isinstance(node, dict):
        return {"keys": list(node), "values": [_split(value, f"{name}/{key}", tensors) for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_split(value, f"{name}/{index}", tensors) for index, value in enumerate(node)]
    return node


def _join(node: Any, file: Any) -> Any:
    if isinstance(node, str) and node.startswith(_TENSOR):
        return file.get_tensor(node.removeprefix(_TENSOR))
    if isinstance(node, dict):
        return dict(zip(node["keys"], (_join(value, file) for value in node["values"]), strict=True))
    if isinstance(node, list):
        return [_join(value, file) for value in node]
    return node


def _digest(path: Path, tree: Any) -> str:
    """SHA-256 over the file's bytes and `tree`, as JSON writes it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(tree).encode())
    return digest.hexdigest()
