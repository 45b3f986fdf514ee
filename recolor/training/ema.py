"""Averaged weights: what is scored and kept where `train.ema` is not 0 (Polyak and Juditsky 1992; Karras et al. 2018)."""

from copy import deepcopy
from typing import Any

import torch

from recolor.models.layers import Generator


class AveragedGenerator:
    """`network`, in eval mode: an exponential moving average of a generator's weights and of its batch norm's statistics.

    `decay` is the share of the average that stays at every step. It is warmed up as (1 + n) / (10 + n), so that the first
    weights, which are random, are soon forgotten.
    """

    def __init__(self, generator: Generator, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = deepcopy(generator).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, generator: Generator) -> None:
        """Moves the average towards `generator`: for after each step of its optimiser."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current, averaged = generator.state_dict(), self.network.state_dict()
        floats = [name for name, value in averaged.items() if value.is_floating_point()]
        torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - keep)
        for name in averaged.keys() - set(floats):  # batch norm's counters
            averaged[name].copy_(current[name])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.network.load_state_dict(state["network"])
