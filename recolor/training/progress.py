"""The progress of a run: its counters, its losses and times, epoch by epoch, and what is written of it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file
from recolor.core.tables import write_table
from recolor.dataset.shards import CachedPhotos
from recolor.models.layers import Generator
from recolor.models.pictures import GREY, TRUTH, coloured_arrays

CRITIC_TERMS = ("critic_loss", "critic_real", "critic_fake", "critic_penalty", "critic_estimate")
LOSS_TERMS = (*CRITIC_TERMS, "generator_loss", "generator_adversarial", "generator_l1", "gradient_ratio")
HISTORY = ("epoch", *LOSS_TERMS, "critic_steps", "generator_steps", "lr")  # columns
TIMINGS = ("epoch", "seconds", "photos", "photos_per_second", "data_wait", "checkpoints")
SAMPLES = 8  # photos in a picture


class Diverged(UserError):
    """A loss or a weight is not finite."""

    def __init__(self, step: int, what: str, checkpoint: Path | None) -> None:
        last = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint before it"
        super().__init__(
            f"training diverged at step {step}: {what}; {last}; lower the learning rate or the weight of a loss"
        )


@dataclass
class TrainProgress:
    """Plain numbers, stored in checkpoints."""

    epoch: int = 0
    batch: int = 0  # of this epoch
    step: int = 0  # batches of all epochs
    critic_steps: int = 0
    generator_steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each loss term over this epoch's steps
    counts: dict[str, int] = field(default_factory=dict)  # of the steps that had that term
    seconds: float = 0.0  # of this epoch
    waited: float = 0.0  # of those, for photos
    saving: float = 0.0  # for checkpoints within the epoch, not in `seconds`
    history: list[dict[str, Any]] = field(default_factory=list)  # a row for each epoch
    timings: list[dict[str, Any]] = field(default_factory=list)

    def end_step(self, loss_terms: Collection[str]) -> None:
        """Counts a batch, and a step of each network whose loss is among the terms."""
        self.step += 1
        self.batch += 1
        self.critic_steps += "critic_loss" in loss_terms
        self.generator_steps += "generator_loss" in loss_terms

    def end_epoch(self, lr: float, batch_size: int) -> str:
        """Adds a row to history and timings, and starts the next epoch. Returns a line for the log."""
        self.epoch += 1
        means: dict[str, Any] = dict.fromkeys(LOSS_TERMS)
        means |= {name: total / self.counts[name] for name, total in self.sums.items()}
        steps = {"critic_steps": self.critic_steps, "generator_steps": self.generator_steps}
        self.history.append({"epoch": self.epoch, **means, **steps, "lr": lr})
        photos, seconds = self.batch * batch_size, self.seconds
        times = self.epoch, seconds, photos, photos / seconds, self.waited / seconds, self.saving
        self.timings.append(dict(zip(TIMINGS, times, strict=True)))
        self.batch, self.sums, self.counts = 0, {}, {}
        self.seconds = self.waited = self.saving = 0.0
        losses = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items() if mean is not None and "loss" in name)
        return f"epoch {self.epoch}: {losses}, {photos / seconds:.1f} photos/s"


def write_rows(file: Path, columns: Sequence[str], rows: list[dict[str, Any]], what: str) -> None:
    """Writes `rows` of HISTORY or TIMINGS as CSV. `what` is for the message of DiskFull."""
    with atomic_file(file, what) as path:
        write_table(pd.DataFrame(rows, columns=list(columns)), path)


def epoch_writer(
    live: Path, samples: Path, cache: Path, sample_epochs: int, epochs: int
) -> Callable[[list[dict[str, Any]], Generator], None]:
    """For `train` to call after each epoch: writes the history as the file `live`. Every `sample_epochs`, and after the last of
    `epochs`, it writes a picture into the folder `samples`: test photos of `cache` in grey, coloured and as they are."""
    cached = CachedPhotos(cache, "test")
    photos = cached[range(min(SAMPLES, len(cached)))]

    def write(history: list[dict[str, Any]], generator: Generator) -> None:
        write_rows(live, HISTORY, history, "the history")
        epoch = len(history)
        if epoch % sample_epochs == 0 or epoch == epochs:
            training, device = generator.training, next(generator.parameters()).device
            versions = coloured_arrays(photos.to(device), {"coloured": generator.eval()})
            generator.train(training)
            grid = np.vstack([np.hstack(list(versions[name])) for name in (GREY, "coloured", TRUTH)])
            with atomic_file(samples / f"epoch-{epoch:03d}.png", "a picture") as path:
                Image.fromarray(grid).save(path, "PNG")

    return write
