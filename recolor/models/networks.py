"""U-Net and PatchGAN, as in pix2pix (Isola et al. 2017, section 6.1), colouring in Lab: L in, ab out.

Every convolution is 4x4 with padding 1 and starts from N(0, 0.02); the networks end without a sigmoid, because the objectives
work on logits and on Wasserstein scores.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recolor.core.params import Number, Section
from recolor.models.convolutions import DoublingConv, HalvingConv, ScoringConv


class GeneratorParams(Section, frozen=True):
    """The U-Net's size. 64 filters, 8 down-samplings: 54.4 M parameters."""

    kind: Literal["unet"] = "unet"
    filters: int = Field(ge=1, le=1024)
    downs: int = Field(ge=2, le=12)
    dropout: Number = Field(ge=0, lt=1)


class DiscriminatorParams(Section, frozen=True):
    """The PatchGAN's size. 64 filters, 3 down-samplings: 2.8 M parameters and a receptive field of 70."""

    filters: int = Field(ge=1, le=1024)
    downs: int = Field(ge=1, le=6)


class UNetGenerator(nn.Module):
    """L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W) in [-1, 1]; H and W are multiples of 2 ** downs.

    Encoder and decoder are lists, not nested blocks: each decoder block sees the block below it next to the encoder's
    features of its own size (the skip connection). Widths double from `filters` and stop at 8 * filters. Dropout works in the
    first three decoder blocks, and only in training mode: pix2pix keeps it at test time, here a photo has one result.

    Activations overwrite their input. What the next encoder block leaves in a skip connection so is LeakyReLU's output; the
    decoder's ReLU makes the same of it as of the input.
    """

    def __init__(self, params: GeneratorParams) -> None:
        super().__init__()
        self.params = params
        widths = [params.filters * min(2**level, 8) for level in range(params.downs)]
        innermost = params.downs - 1
        self.encoder = nn.ModuleList(
            # No batch norm on the photo itself, nor at 1x1, where a batch of one would have no variance.
            _encode(1 if level == 0 else widths[level - 1], width, norm=0 < level < innermost, activate=level > 0)
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(
            _decode(
                widths[level] * (1 if level == innermost else 2),
                widths[level - 1],
                dropout=params.dropout if level > innermost - 3 else 0,
            )
            for level in range(innermost, 0, -1)
        )
        last = nn.ConvTranspose2d(widths[0] * 2, 2, 4, stride=2, padding=1)
        self.out = nn.Sequential(nn.ReLU(inplace=True), last, nn.Tanh())
        self.apply(_initialise)

    def forward(self, lightness: Tensor) -> Tensor:
        features, skips = lightness, []
        for encode in self.encoder:
            features = encode(features)
            skips.append(features)
        skips.pop()
        for decode in self.decoder:
            features = _Beside.apply(decode(features), skips.pop())
        return self.out(features).float()  # under autocast, losses are still taken in float32


class PatchDiscriminator(nn.Module):
    """L||ab (B, 3, H, W) in [-1, 1] to one score per patch (B, 1, h, w): 30x30 for 256x256 at 3 down-samplings.

    `norm=False` leaves batch norm out: a gradient penalty is per photo, and batch norm would mix them (Gulrajani et al. 2017).
    """

    def __init__(self, params: DiscriminatorParams, norm: bool = True) -> None:
        super().__init__()
        widths = [params.filters * min(2**level, 8) for level in range(params.downs + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for level in range(1, len(widths)):
            stride = 2 if level < params.downs else 1
            layers.append(nn.Conv2d(widths[level - 1], widths[level], 4, stride, padding=1, bias=not norm))
            if norm:
                layers.append(nn.BatchNorm2d(widths[level]))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.Sequential(*layers, ScoringConv(widths[-1]))
        self.apply(_initialise)

    def forward(self, lab: Tensor) -> Tensor:
        return self.layers(lab).float()


def receptive_field(layers: Iterable[nn.Module]) -> int:
    """Side, in input pixels, of the patch that one output of a chain of layers sees; what is no convolution sees one pixel."""
    side, step = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            side += (layer.kernel_size[0] - 1) * step
            step *= layer.stride[0]
    return side


def parameter_count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


class _Beside(torch.autograd.Function):
    """`torch.cat([one, other], dim=1)` with dense gradients.

    The gradients of torch.cat are views into one tensor. Batch norm's backward pass reads them a value at a time: on a CPU
    it takes 14 times as long, and with it 1/8 of a training step.
    """

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        ctx.widths = one.shape[1], other.shape[1]
        return torch.cat([one, other], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in gradient.split(ctx.widths, dim=1))


def _encode(into: int, out: int, norm: bool, activate: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=True)] if activate else []
    layers.append(HalvingConv(into, out, bias=not norm))
    if norm:
        layers.append(nn.BatchNorm2d(out))
    return nn.Sequential(*layers)


def _decode(into: int, out: int, dropout: float) -> nn.Sequential:
    layers = [
        nn.ReLU(inplace=True),
        DoublingConv(into, out),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
        nn.init.zeros_(layer.bias)
