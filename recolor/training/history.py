"""Losses and times of a run, epoch by epoch."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from recolor.core.storage import atomic_file
from recolor.dataset.shards import write_table
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.methods import CRITIC_TERMS
from recolor.training.state import Diverged, TrainProgress

LOSS_TERMS = (*CRITIC_TERMS, "generator_loss", "generator_adversarial", "generator_l1", "gradient_ratio")
HISTORY = ("epoch", *LOSS_TERMS, "critic_steps", "generator_steps", "lr")  # columns
TIMINGS = ("epoch", "seconds", "photos", "photos_per_second", "data_wait", "checkpoints")
READ_EVERY = 16  # steps; reading a loss waits for the device


def write_rows(file: Path, columns: Sequence[str], rows: list[dict[str, Any]], what: str) -> None:
    """Writes `rows` of HISTORY or TIMINGS as CSV. `what` is for the message of DiskFull."""
    with atomic_file(file, what) as path:
        write_table(pd.DataFrame(rows, columns=list(columns)), path)


@dataclass
class MetricLogger:
    """Adds an epoch's losses and times to a TrainProgress. The newest of `checkpoints` is named where a run diverges."""

    progress: TrainProgress
    distributed: DistributedContext
    checkpoints: Checkpoints
    unread: list[dict[str, Tensor]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)  # when the clock started

    def start(self) -> None:
        """Starts the clock again."""
        self.since = time.monotonic()

    def add(self, loss_terms: dict[str, Tensor]) -> None:
        """Adds the loss terms of the step that was just counted. Raises Diverged."""
        self.unread.append(loss_terms)
        if len(self.unread) == READ_EVERY:
            self._read()

    def flush(self) -> None:
        """Reads all losses and stops the clock. Raises Diverged for the first step with a loss that is not finite."""
        self._read()
        self.progress.seconds += time.monotonic() - self.since

    def timed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the batches, and measures the time that the loop waits for them."""
        since = time.monotonic()
        for batch in batches:
            self.progress.waited += time.monotonic() - since
            yield batch
            since = time.monotonic()

    def _read(self) -> None:
        first = self.progress.step - len(self.unread) + 1
        tensors = [value for terms in self.unread for value in terms.values()]
        numbers = iter(self.distributed.all_reduce_mean(torch.stack(tensors)).tolist() if tensors else [])
        for step, terms in enumerate(self.unread, first):
            values = {name: next(numbers) for name in terms}
            if not all(map(math.isfinite, values.values())):
                listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise Diverged(step, listed, self.checkpoints.newest())
            for name, value in values.items():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
                self.progress.counts[name] = self.progress.counts.get(name, 0) + 1
        self.unread.clear()

    def end_epoch(self, lr: float, batch_size: int) -> str:
        """Adds a row to history and timings, and starts the next epoch. Returns a line for the log."""
        self.flush()
        progress = self.progress
        means: dict[str, Any] = dict.fromkeys(LOSS_TERMS)
        means |= {name: total / progress.counts[name] for name, total in progress.sums.items()}
        steps = {"critic_steps": progress.critic_steps, "generator_steps": progress.generator_steps}
        progress.epoch += 1
        progress.history.append({"epoch": progress.epoch, **means, **steps, "lr": lr})
        photos, seconds = progress.batch * batch_size, progress.seconds
        times = progress.epoch, seconds, photos, photos / seconds, progress.waited / seconds, progress.saving
        progress.timings.append(dict(zip(TIMINGS, times, strict=True)))
        losses = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items() if mean is not None and "loss" in name)
        line = f"epoch {progress.epoch}: {losses}, {photos / seconds:.1f} photos/s"
        progress.batch, progress.sums, progress.counts = 0, {}, {}
        progress.seconds = progress.waited = progress.saving = 0.0
        return line
