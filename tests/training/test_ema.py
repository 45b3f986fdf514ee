"""Averaged weights: the average of a known sequence, batch norm's statistics in it, and its state."""

import pytest
import torch

from recolor.models.unet import UNetGenerator, UNetParams
from recolor.training.ema import AveragedGenerator

PARAMS = UNetParams(kind="unet", filters=2, downs=3, dropout=0.5)


def filled(value: float) -> UNetGenerator:
    generator = UNetGenerator(PARAMS)
    for tensor in generator.state_dict().values():
        tensor.fill_(value)
    return generator


def test_the_average_of_a_sequence_is_the_one_of_the_formula() -> None:
    average, expected = AveragedGenerator(filled(0), decay=0.5), 0.0
    for number, value in enumerate([1.0, 2.0, 4.0, 8.0], start=1):
        average.update(filled(value))
        keep = min(0.5, (1 + number) / (10 + number))
        expected = keep * expected + (1 - keep) * value
    for name, tensor in average.network.state_dict().items():
        wanted = 8.0 if name.endswith("num_batches_tracked") else expected
        assert tensor.float().mean().item() == pytest.approx(wanted), name


def test_the_average_colours_in_eval_mode_and_learns_nothing_itself() -> None:
    average = AveragedGenerator(UNetGenerator(PARAMS), decay=0.9)
    assert not average.network.training
    assert not any(weight.requires_grad for weight in average.network.parameters())


def test_the_average_is_a_copy() -> None:
    generator = filled(1)
    average = AveragedGenerator(generator, decay=0.9)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.zero_()
    assert all(weight.min() == 1 for weight in average.network.parameters())


def test_a_restored_average_continues_as_if_nothing_had_happened() -> None:
    one, other = AveragedGenerator(filled(0), 0.9), AveragedGenerator(filled(5), 0.9)
    one.update(filled(1))
    other.load_state_dict(one.state_dict())
    for average in (one, other):
        average.update(filled(3))
    assert one.updates == other.updates == 2
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name
