"""The state of a training run: networks, optimisers and progress; how it resumes."""

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from recolor.models.layers import Generator
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.ema import AveragedGenerator
from recolor.training.progress import TrainProgress

RESUMED = "continuing from step"


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

    def end_step(self, loss_terms: Collection[str]) -> None:
        """Counts a batch and what it trained. Averages the generator's weights if it was trained."""
        self.progress.end_step(loss_terms)
        if self.averaged and "generator_loss" in loss_terms:
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

    def resume(self, checkpoints: Checkpoints, distributed: DistributedContext, log: Callable[[str], None]) -> None:
        """Continues from the newest complete checkpoint, if there is one; without a shared disk, the newest of all machines."""
        steps = distributed.all_gather(newest.stem if (newest := checkpoints.newest()) else "")
        source = steps.index(max(steps))
        fresh = deepcopy(self.state_dict()) if any(steps) else {}

        def use(state: dict[str, Any]) -> None:
            try:
                self.load_state_dict(state["networks"])
                self.progress = TrainProgress(**state["progress"])
            except Exception:
                self.load_state_dict(fresh)  # never parts of two states
                raise

        state = distributed.broadcast(checkpoints.load(log, use) if distributed.rank == source else None, source)
        checkpoints.damaged = distributed.broadcast(checkpoints.damaged, source)
        if state is not None:
            use(state)
            log(f"{RESUMED} {self.progress.step} (epochs done: {self.progress.epoch})")
