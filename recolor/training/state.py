"""The state of a training run: networks, optimisers and counters; how it is saved and resumed."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recolor.core.errors import UserError
from recolor.models.layers import Generator
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.ema import AveragedGenerator

# Between checkpoints at the ends of epochs: writing one takes seconds, as long as a small epoch on a GPU.
CHECKPOINT_SECONDS = 30.0


class Diverged(UserError):
    """A loss or a weight is not finite."""

    def __init__(self, step: int, what: str, checkpoint: Path | None) -> None:
        last = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint before it"
        super().__init__(f"training diverged at step {step}: {what}; {last}; lower the learning rate or another weight")


@dataclass
class TrainProgress:
    """Counters, sums and history of a run: plain numbers, stored in checkpoints."""

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


class TrainState:
    """Networks and optimisers, by name (generator, critic), and the progress. `ema`: the decay of averaged weights, 0: none."""

    def __init__(self, networks: dict[str, nn.Module], optimizers: dict[str, Optimizer], ema: float = 0.0) -> None:
        self.networks, self.optimizers = networks, optimizers
        self.averaged = AveragedGenerator(self.generator, ema) if ema else None
        self.progress = TrainProgress()
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]

    @property
    def generator(self) -> Generator:
        return cast("Generator", self.networks["generator"])

    @property
    def critic(self) -> nn.Module:
        return self.networks["critic"]

    @property
    def _parts(self) -> dict[str, Any]:
        optimizers = {f"{name}_optimizer": optimizer for name, optimizer in self.optimizers.items()}
        return self.networks | optimizers | ({"averaged": self.averaged} if self.averaged else {})

    @property
    def result(self) -> Generator:
        """The generator that is scored and kept."""
        return self.averaged.network if self.averaged else self.generator

    def end_step(self, loss_terms: dict[str, Tensor]) -> None:
        """Counts a batch, and a step of each network whose loss is among the terms. Averages the generator's weights."""
        self.progress.step += 1
        self.progress.batch += 1
        self.progress.critic_steps += "critic_loss" in loss_terms
        if "generator_loss" in loss_terms:
            self.progress.generator_steps += 1
            if self.averaged:
                self.averaged.update(self.generator)

    @property
    def learning_rate(self) -> float:
        """The one of the generator's first group of weights."""
        return float(self.optimizers["generator"].param_groups[0]["lr"])

    def scale_learning_rates(self, factor: float) -> None:
        """Sets each group's learning rate to `factor` times its first one."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for optimizer in self.optimizers.values():
            _restore_memory_format(optimizer)

    def resume(self, checkpoints: Checkpoints, distributed: DistributedContext, log: Callable[[str], None]) -> None:
        """Continues from the newest complete checkpoint, if there is one; without a shared disk, the newest of all machines."""
        fresh = deepcopy(self.state_dict()) if checkpoints.newest() else {}

        def use(state: dict[str, Any]) -> None:
            try:
                self.load_state_dict(state["networks"])
                self.progress = TrainProgress(**state["progress"])
            except Exception:
                self.load_state_dict(fresh)  # never parts of two states
                raise

        steps = distributed.all_gather(newest.stem if (newest := checkpoints.newest()) else "")
        source = steps.index(max(steps))
        state = distributed.broadcast(checkpoints.load(log, use) if distributed.rank == source else None, source)
        checkpoints.damaged = distributed.broadcast(checkpoints.damaged, source)
        if state is not None:
            use(state)
            log(f"going on from step {self.progress.step} (epochs done: {self.progress.epoch})")


def _restore_memory_format(optimizer: Optimizer) -> None:
    """Checkpoints hold contiguous tensors, and a fused optimiser on a CPU reads averages in the order of its weights."""
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight).copy_(value)


@dataclass
class CheckpointSaver:
    """Saves a state when it is due, and never one that is not finite."""

    state: TrainState
    checkpoints: Checkpoints
    distributed: DistributedContext
    minutes: float
    _saved: float = field(default_factory=time.monotonic, init=False)

    def due_within_epoch(self) -> bool:
        return time.monotonic() - self._saved > self.minutes * 60

    def save(self) -> float:
        """Returns the seconds that it took. Raises Diverged for weights that are not finite."""
        progress = self.state.progress
        for name, network in self.state.networks.items():
            if not all(weight.isfinite().all() for weight in network.state_dict().values()):
                raise Diverged(progress.step, f"the {name}'s weights are not finite", self.checkpoints.newest())
        since = time.monotonic()
        if self.distributed.is_main:
            self.checkpoints.save(progress.step, {"progress": asdict(progress), "networks": self.state.state_dict()})
        self._saved = time.monotonic()
        return self._saved - since

    def end_epoch(self, last: bool) -> None:
        """Saves after the last epoch, and after another one if the last checkpoint is old enough."""
        if last or time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.state.progress.timings[-1]["checkpoints"] += self.save()
