"""Pretraining's optimiser and the schedule of its learning rate."""

from itertools import pairwise

import pytest
from torch.optim import AdamW

from recolor.models.unet import UNetGenerator, UNetParams
from recolor.runtime.context import RuntimeContext
from recolor.training.methods import Pretraining, PretrainParams

METHOD = Pretraining(PretrainParams(epochs=2, start="none", lr=1e-3, warmup_steps=4, weight_decay=0.02, clip_norm=1))


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    factors = [METHOD.rate_factor(step, 1, 24) for step in range(24)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1]
    assert factors[4] == 1
    assert factors[14] == pytest.approx(0.5)  # half way down
    assert all(one > other for one, other in pairwise(factors[4:]))
    assert 0 < factors[-1] < 0.01


def test_a_short_run_warms_up_for_a_quarter_of_its_steps() -> None:
    factors = [METHOD.rate_factor(step, 2, 4) for step in range(8)]
    assert factors[:3] == [0.5, 1, 1]
    assert factors[3] < 1
    assert METHOD.rate_factor(0, 1, 1) == 1


def test_the_optimiser_is_adamw_with_the_settings() -> None:
    generator = UNetGenerator(UNetParams(kind="unet", filters=2, downs=3, dropout=0))
    optimizer = METHOD.start(generator, RuntimeContext.find("cpu"), 0).optimizers["generator"]
    assert isinstance(optimizer, AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.02)
