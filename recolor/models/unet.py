"""The paper's generator: pix2pix's U-Net (Isola et al. 2017, section 6.1.1), colouring in Lab: L in, ab out."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from recolor.core.params import Section
from recolor.models.layers import ConcatDenseGrad, Generator, initialise


class UNetParams(Section, frozen=True):
    """Section `generator` with `kind: unet`. 64 filters and 8 down-samplings make 54.4 M parameters."""

    kind: Literal["unet"]
    filters: int = Field(ge=1, le=1024)
    downs: int = Field(ge=2, le=12)
    dropout: float = Field(ge=0, lt=1)

    @property
    def multiple(self) -> int:
        return 2**self.downs

    @property
    def description(self) -> str:
        return f"a U-Net ({self.filters} filters, {self.downs} down-samplings)"


class UNetGenerator(Generator):
    """L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W) in [-1, 1]; H and W are multiples of 2 ** downs.

    Every convolution is 4x4 with stride 2 and padding 1. Widths double from `filters` and stop at 8 * filters. Each decoder
    block reads the block below it next to the encoder's features of its own size (the skip connection). The first three
    decoder blocks have dropout, in training mode only: pix2pix keeps it at test time, here a photo has one result.
    """

    def __init__(self, params: UNetParams) -> None:
        super().__init__()
        self.params = params
        widths = [params.filters * min(2**level, 8) for level in range(params.downs)]
        innermost = params.downs - 1
        self.encoder = nn.ModuleList(
            # No batch norm on the photo itself, nor at 1x1, where a batch of one has no variance.
            _down_block(1 if level == 0 else widths[level - 1], width, norm=0 < level < innermost, activate=level > 0)
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(
            _up_block(
                widths[level] * (1 if level == innermost else 2),
                widths[level - 1],
                dropout=params.dropout if level > innermost - 3 else 0,
            )
            for level in range(innermost, 0, -1)
        )
        last = nn.ConvTranspose2d(widths[0] * 2, 2, 4, stride=2, padding=1)
        self.out = nn.Sequential(nn.ReLU(), last, nn.Tanh())
        self.apply(initialise)

    def forward(self, lightness: Tensor) -> Tensor:
        features, skips = lightness, []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        skips.pop()
        for block in self.decoder:
            features = ConcatDenseGrad.apply(block(features), skips.pop())
        return self.out(features).float()  # losses are float32 under autocast too


def _down_block(inputs: int, outputs: int, norm: bool, activate: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if activate else []
    layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=not norm))
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers)


def _up_block(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    dropouts = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs), *dropouts)
