"""What a run measures while it trains: losses and times, epoch by epoch, in a form that survives an interruption."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recolor.core.errors import UserError
from recolor.runtime.distributed import DistributedContext

CRITIC_PIECES = ("critic_loss", "critic_real", "critic_fake", "critic_penalty", "critic_estimate")
GENERATOR_PIECES = ("generator_loss", "generator_adversarial", "generator_l1")
CHECK_EVERY = 16  # steps between looks at the losses: each look waits for the device


@dataclass
class Place:
    """How far a run has come: plain numbers, which go into a checkpoint as they are."""

    epoch: int = 0
    batch: int = 0  # of this epoch
    step: int = 0  # batches of all epochs
    critic_steps: int = 0
    generator_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each loss's pieces over this epoch's steps,
    counts: dict[str, int] = field(default_factory=dict)  # and how many steps had that piece
    seconds: float = 0.0  # of this epoch,
    waited: float = 0.0  # and of those, for photos
    saving: float = 0.0  # seconds beside them, for checkpoints within the epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)


class Diverged(UserError):
    """A loss, or a weight, is no longer a number."""

    def __init__(self, step: int, what: str, checkpoint: Path | None) -> None:
        last = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint before it"
        super().__init__(f"training diverged at step {step}: {what}; {last}; lower the learning rate or another weight")


class Ledger:
    """Keeps an epoch's losses and time in its Place. Losses are read in handfuls, since every look waits for the device.

    `checkpoint` names the newest one, for the message should the run diverge.
    """

    def __init__(self, place: Place, distributed: DistributedContext, checkpoint: Callable[[], Path | None]) -> None:
        self.place = place
        self.distributed = distributed
        self.checkpoint = checkpoint
        self.recent: list[dict[str, Tensor]] = []
        self.start()

    def start(self) -> None:
        self.since = time.monotonic()

    def add(self, pieces: dict[str, Tensor]) -> None:
        """The pieces of the step that has just been counted."""
        self.recent.append(pieces)
        if len(self.recent) == CHECK_EVERY:
            self._collect()

    def settle(self) -> None:
        """Brings the place up to date. Raises Diverged, as `add` does, for the first step with a loss that is not finite."""
        self._collect()
        self.place.seconds += time.monotonic() - self.since

    def timing_waits(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(iterator, None)
            self.place.waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def _collect(self) -> None:
        first = self.place.step - len(self.recent) + 1
        unread = [value for pieces in self.recent for value in pieces.values()]
        read = iter(self.distributed.all_reduce_mean(torch.stack(unread)).tolist() if unread else [])
        for step, pieces in enumerate(self.recent, first):
            values = {name: next(read) for name in pieces}
            if not all(map(math.isfinite, values.values())):
                listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise Diverged(step, listed, self.checkpoint())
            for name, value in values.items():
                self.place.sums[name] = self.place.sums.get(name, 0.0) + value
                self.place.counts[name] = self.place.counts.get(name, 0) + 1
        self.recent.clear()

    def close_epoch(self, rate: float, batch_size: int) -> str:
        """Turns the epoch's sums into a row of history and one of timings, and moves on to the next; returns a line on it."""
        self.settle()
        place = self.place
        means: dict[str, Any] = {
            name: place.sums[name] / place.counts[name] if name in place.counts else None
            for name in (*CRITIC_PIECES, *GENERATOR_PIECES)
        }
        steps = {"critic_steps": place.critic_steps, "generator_steps": place.generator_steps}
        place.epoch += 1
        place.history.append({"epoch": place.epoch, **means, **steps, "lr": rate})
        photos = place.batch * batch_size
        place.timings.append(
            {
                "epoch": place.epoch,
                "seconds": place.seconds,
                "photos": photos,
                "photos_per_second": photos / place.seconds,
                "data_wait": place.waited / place.seconds,
                "checkpoints": place.saving,
            }
        )
        told = ", ".join(f"{name} {value:.4g}" for name, value in means.items() if value is not None and "loss" in name)
        line = f"epoch {place.epoch}: {told}, {photos / place.seconds:.1f} photos/s"
        place.batch, place.sums, place.counts = 0, {}, {}
        place.seconds = place.waited = place.saving = 0.0
        return line
