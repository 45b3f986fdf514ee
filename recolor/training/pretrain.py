"""Pretraining: the generator with L1 alone. The adversarial models start from its weights."""

import math

from pydantic import Field
from torch.optim import AdamW, Optimizer

from recolor.core.params import Section
from recolor.models.layers import Generator


class PretrainParams(Section, frozen=True):
    """Section `pretrain`. With `epochs` 0 the generator keeps its initial weights.

    `start`: none, a model folder whose weights training starts from, or shipped for the model that comes with the package. A
    model that was trained on photos of the test split makes the scores too good; training warns of one with another split.
    """

    epochs: int = Field(ge=0, le=1_000_000)
    start: str
    lr: float = Field(gt=0, le=1)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)

    def optimizer(self, generator: Generator) -> Optimizer:
        """AdamW (Loshchilov and Hutter 2019) on the generator's parameter groups."""
        return AdamW(generator.parameter_groups(self.lr), self.lr, weight_decay=self.weight_decay, fused=True)

    def rate_factor(self, step: int, steps: int) -> float:
        """Factor of the learning rates for step 0 to `steps` - 1: linear up over `warmup_steps`, then half a cosine to 0.

        A short run warms up for a quarter of its steps, so that its rate reaches the peak.
        """
        warmup = min(self.warmup_steps, steps // 4)
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
