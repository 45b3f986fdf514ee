"""Convolutions taken as matrix products: torch's own results, gradients and second derivatives, up to rounding."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recolor.models.convolutions import DoublingConv, HalvingConv, ScoringConv

CASES = {
    "halving, 2x2 to one": (lambda: HalvingConv(6, 5, bias=True), (3, 6, 2, 2)),
    "halving, 2x4 without bias": (lambda: HalvingConv(6, 5, bias=False), (3, 6, 2, 4)),
    "halving, 4x4": (lambda: HalvingConv(6, 5, bias=True), (1, 6, 4, 4)),
    "doubling, one to 2x2": (lambda: DoublingConv(6, 5), (3, 6, 1, 1)),
    "doubling, 1x2": (lambda: DoublingConv(6, 5), (3, 6, 1, 2)),
    "doubling, 2x2": (lambda: DoublingConv(6, 5), (1, 6, 2, 2)),
    "scoring, 31x31": (lambda: ScoringConv(6), (3, 6, 31, 31)),
    "scoring, 3x2": (lambda: ScoringConv(6), (1, 6, 3, 2)),
}

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)  # sums of up to 5,000 products in float32


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = CASES[request.param]
    layer = make().to(memory_format=torch.channels_last)
    return layer, torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()


def test_results_and_gradients_are_those_of_torchs_own(case: tuple[nn.Module, Tensor]) -> None:
    layer, features = case
    inputs = [features, *layer.parameters()]
    own, product = layer.eval()(features), layer.train()(features)
    assert product.shape == own.shape
    close(product, own)
    upstream = torch.randn(own.shape)
    for found, expected in zip(
        torch.autograd.grad(product, inputs, upstream), torch.autograd.grad(own, inputs, upstream), strict=True
    ):
        close(found, expected)


def test_the_second_derivative_that_a_gradient_penalty_takes(case: tuple[nn.Module, Tensor]) -> None:
    layer, features = case

    def penalty(training: bool) -> Tensor:
        scores = layer.train(training)(features).square()
        (slope,) = torch.autograd.grad(scores.sum(), features, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), layer.weight)[0]

    close(penalty(training=True), penalty(training=False))


def test_no_convolution_runs_where_a_product_is_quicker(
    case: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, features = case
    asked = []
    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(F, name, lambda *args, **kwargs: asked.append(1) or torch.zeros(()))
    layer.train()(features)
    assert not asked
    layer.eval()(features)
    assert asked


@pytest.mark.parametrize("layer", [HalvingConv(2, 2, bias=False), DoublingConv(2, 2)])
def test_larger_maps_are_convolved(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "linear", None)
    monkeypatch.setattr(F, "fold", None)
    assert layer.train()(torch.zeros(1, 2, 16, 16)).shape in {(1, 2, 8, 8), (1, 2, 32, 32)}
