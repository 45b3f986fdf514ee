"""Generators as inference runs them."""

import pytest
import torch
from networks import SMALL_PRETRAINED
from torch import Tensor, nn

from recolor.models.fusing import for_inference
from recolor.models.layers import Generator
from recolor.models.pretrained import PretrainedUNet
from recolor.models.unet import UNetGenerator, UNetParams

UNET = UNetParams(kind="unet", filters=4, downs=4, dropout=0.5)


def trained(generator: Generator) -> Generator:
    """With statistics, scales and offsets that each batch norm shows in the result."""
    torch.manual_seed(0)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.3, 0.3)):
                nn.init.uniform_(values, low, high)
            layer.running_mean.uniform_(-0.3, 0.3)
            layer.running_var.uniform_(0.5, 2)
    last = [layer for layer in generator.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)][-1]
    nn.init.normal_(last.weight)  # it starts near 0
    return generator.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("kind", ["unet", "pretrained", "small ab"])
@torch.no_grad()
def test_batch_norm_is_folded_and_the_result_stays(kind: str) -> None:
    scaled = SMALL_PRETRAINED.model_copy(update={"ab_scale": 0.25})
    generator = trained(
        UNetGenerator(UNET) if kind == "unet" else PretrainedUNet(scaled if kind == "small ab" else SMALL_PRETRAINED)
    )
    before, weights = norms(generator), {name: value.clone() for name, value in generator.state_dict().items()}
    fused, photos = for_inference(generator), torch.rand(2, 1, 64, 96) * 2 - 1
    assert (norms(generator), norms(fused)) == (before, 0)
    expected = generator(photos)
    assert expected.std() > 0.05
    torch.testing.assert_close(fused(photos), expected, rtol=0, atol=2e-5)
    for name, value in generator.state_dict().items():  # as before
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


class Shortcut(Generator):
    """The convolution's output goes to a batch norm and past it."""

    params = UNET

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, lightness: Tensor) -> Tensor:
        features = self.convolution(lightness)
        return features + self.norm(features)


@torch.no_grad()
def test_a_network_that_cannot_be_folded_stays_as_it_is() -> None:
    generator = trained(Shortcut())
    assert for_inference(generator) is generator
