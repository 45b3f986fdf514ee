"""Training states on disk: a safetensors file each, with the rest as JSON in its header, so loading one cannot run code."""

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

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from torch import Tensor

from recolor.core.errors import UserError, one_line
from recolor.core.storage import atomic_file, check_disk_space, file_sha256
from recolor.models.folder import save_tensors, tensor_bytes
from recolor.runtime.distributed import DistributedContext


def code() -> list[str]:
    """Identifies torch, timm and the modules of recolor that are imported: an edit of the report loses no checkpoint."""
    files = (Path(sys.modules[name].__file__ or "") for name in sorted(sys.modules) if name.startswith("recolor."))
    return [torch.__version__, version("timm"), *map(file_sha256, files)]


def run_key(inputs: Mapping[str, Any]) -> str:
    """A hash of all that the result of a run depends on: `inputs`, with the settings that were read as `params.yaml`.

    Without sample_epochs, and without epochs where no schedule depends on it.
    """
    settings = {name: value for name, value in inputs["params.yaml"].items() if name != "train.sample_epochs"}
    if "train" in settings:
        ignored = {"sample_epochs"} | (set() if settings["train"]["decay_epochs"] else {"epochs"})
        settings["train"] = {key: value for key, value in settings["train"].items() if key not in ignored}
    return hashlib.sha256(json.dumps({**inputs, "params.yaml": settings}).encode()).hexdigest()[:16]


class Checkpoints:
    """The newest two training states of one run, in a folder of its own that one process at a time may lock.

    A state is a tree of dicts and lists with tensors, numbers and strings at its leaves; its file also has its SHA-256.
    """

    KEPT = 2
    FINISHED = "made"  # the name of an empty file

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: set[Path] = set()  # states that `load` has passed over
        self._lock = FileLock(folder / "lock", timeout=0)

    def take(self) -> str | None:
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
        for path in self.folder.glob("*"):  # what a killed process was writing
            if path.suffix == ".part" or path.name.startswith(".tmp"):
                path.unlink()
        return None

    def lock(self, distributed: DistributedContext, log: Callable[[str], None], wait: bool) -> None:
        """`take`, in all processes. While another run has locked the folder: UserError, unless `wait`."""
        logged = False
        while holder := distributed.broadcast(self.take() if distributed.is_main else None):
            line = f"process {holder} is training this very model already"
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
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(_split(state, "", tensors))
        path = self.folder / f"{number:09d}.safetensors"
        with atomic_file(path, "a checkpoint", tensor_bytes(tensors)) as temporary:
            save_tensors(tensors, temporary, {"state": tree, "sha256": _digest(tensors, tree)})
        kept = [state for state in self._states() if state <= path][-self.KEPT :]  # any later one was found damaged
        for old in set(self._states()) - set(kept):
            old.unlink()

    def load(self, warn: Callable[[str], None], use: Callable[[Any], object] | None = None) -> dict[str, Any] | None:
        """The newest state that is complete and for which `use` raises nothing, or None. `warn`: for a line on each other."""
        states = self._states()
        while states:
            path = states.pop()
            try:
                with safe_open(path, framework="pt") as file:
                    header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if header["sha256"] != _digest(tensors, header["state"]):
                    raise ValueError("its checksum does not fit")
                state = _join(json.loads(header["state"]), tensors)
                if use:
                    use(state)
            except (MemoryError, torch.OutOfMemoryError):
                raise  # the state may be good
            except Exception as error:  # a damaged file raises any exception
                self.damaged.add(path)
                rest = "trying the one before it" if states else "there is none before it, and training starts afresh"
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
        return sorted(self.folder.glob("*.safetensors"))


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


def _join(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, str) and node.startswith(_TENSOR):
        return tensors[node.removeprefix(_TENSOR)]
    if isinstance(node, dict):
        return dict(zip(node["keys"], (_join(value, tensors) for value in node["values"]), strict=True))
    if isinstance(node, list):
        return [_join(value, tensors) for value in node]
    return node


def _digest(tensors: Mapping[str, Tensor], tree: str) -> str:
    digest = hashlib.sha256(tree.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
