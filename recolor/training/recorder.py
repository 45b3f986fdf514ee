"""Records a run while it trains: its losses, times and checkpoints."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.progress import Diverged
from recolor.training.state import TrainState

READ_EVERY = 16  # steps; reading a loss waits for the device
# Between checkpoints at the ends of epochs: writing one takes seconds, as long as a small epoch on a GPU.
CHECKPOINT_SECONDS = 30.0


@dataclass
class RunRecorder:
    """Reads losses and the clock into the progress of `state`, and saves the state: within an epoch every `minutes`.

    Raises Diverged where a loss or a weight is not finite, so such a state is never saved.
    """

    state: TrainState
    checkpoints: Checkpoints
    distributed: DistributedContext
    minutes: float
    unread: list[dict[str, Tensor]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)  # the clock
    saved: float = field(default_factory=time.monotonic)

    def timed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the batches of an epoch, and measures the time that the loop waits for them."""
        self.started = waiting = time.monotonic()
        for batch in batches:
            self.state.progress.waited += time.monotonic() - waiting
            yield batch
            waiting = time.monotonic()

    def end_step(self, loss_terms: dict[str, Tensor]) -> None:
        """Counts a step, and keeps its loss terms to be read."""
        self.state.end_step(loss_terms)
        self.unread.append(loss_terms)
        if len(self.unread) == READ_EVERY:
            self._read()

    def save_if_due(self, stop: bool) -> bool:
        """Saves within an epoch where it is time, or where a process is to `stop`. Returns whether one is."""
        stop, due = self.distributed.all_reduce_any(stop, time.monotonic() - self.saved > self.minutes * 60)
        if stop or due:
            self._flush()
            self.state.progress.saving += self._save()
            self.started = time.monotonic()
        return stop

    def end_epoch(self, batch_size: int) -> str:
        """Adds a row to history and timings. Returns a line for the log."""
        self._flush()
        return self.state.progress.end_epoch(self.state.learning_rate, batch_size)

    def save_after_epoch(self, last: bool) -> None:
        """Saves after the last epoch, and after another one if the last checkpoint is old enough."""
        if last or time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.state.progress.timings[-1]["checkpoints"] += self._save()

    def _flush(self) -> None:
        """Reads all losses and stops the clock."""
        self._read()
        self.state.progress.seconds += time.monotonic() - self.started

    def _read(self) -> None:
        progress = self.state.progress
        tensors = [value for terms in self.unread for value in terms.values()]
        numbers = iter(self.distributed.all_reduce_mean(torch.stack(tensors)).tolist() if tensors else [])
        for step, terms in enumerate(self.unread, progress.step - len(self.unread) + 1):
            values = {name: next(numbers) for name in terms}
            if not all(map(math.isfinite, values.values())):
                listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise Diverged(step, listed, self.checkpoints.newest())
            for name, value in values.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
                progress.counts[name] = progress.counts.get(name, 0) + 1
        self.unread.clear()

    def _save(self) -> float:
        """Returns the seconds that it took."""
        progress = self.state.progress
        for name, network in self.state.networks.items():
            if not all(weight.isfinite().all() for weight in network.state_dict().values()):
                raise Diverged(progress.step, f"the {name}'s weights are not finite", self.checkpoints.newest())
        since = time.monotonic()
        if self.distributed.is_main:
            self.checkpoints.save(progress.step, {"progress": asdict(progress), "networks": self.state.state_dict()})
        self.saved = time.monotonic()
        return self.saved - since
