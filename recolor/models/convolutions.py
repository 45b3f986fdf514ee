"""The networks' 4x4 convolutions, taken as matrix products where that is quicker.

On a CPU the library's convolutions come close to the processor's matrix product, but for two kinds: on maps of a few
positions, where the weights are most of what is read and written, and with one output channel, where most of each vector stays
empty. As products a training step spends a quarter of the time in them. Elsewhere, in eval mode and on a GPU, these layers are
torch's own; weights, names and results are the same, up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HalvingConv(nn.Conv2d):
    """(B, C, 2h, 2w) to (B, out, h, w): kernel 4, stride 2, padding 1."""

    def __init__(self, into: int, out: int, bias: bool) -> None:
        super().__init__(into, out, 4, stride=2, padding=1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        if not _as_product(self, features, height * width // 4):
            return super().forward(features)
        patches = F.unfold(features, 4, padding=1, stride=2).view(batch, channels, 16, -1).transpose(1, 3).flatten(2)
        weights = self.weight.movedim(1, -1)  # (out, 4, 4, C), as it lies in memory
        result = F.linear(patches, weights.flatten(1), self.bias)  # (B, h * w, out)
        return result.view(batch, height // 2, width // 2, -1).movedim(-1, 1)


class DoublingConv(nn.ConvTranspose2d):
    """(B, C, h, w) to (B, out, 2h, 2w): transposed, kernel 4, stride 2, padding 1, without bias."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, 4, stride=2, padding=1, bias=False)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        batch, _, height, width = features.shape
        if not _as_product(self, features, height * width):
            return super().forward(features, output_size)
        weights = self.weight.movedim(1, -1)  # (C, 4, 4, out), as it lies in memory
        patches = features.movedim(1, -1) @ weights.flatten(1)  # (B, h, w, 4 * 4 * out)
        patches = patches.view(batch, height * width, 16, -1).transpose(1, 3).flatten(1, 2)
        result = F.fold(patches.float(), (2 * height, 2 * width), 4, padding=1, stride=2)
        return result.to(patches.dtype, memory_format=torch.channels_last)


class ScoringConv(nn.Conv2d):
    """(B, C, H, W) to (B, 1, H - 1, W - 1): kernel 4, stride 1, padding 1."""

    def __init__(self, into: int) -> None:
        super().__init__(into, 1, 4, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        if not _as_product(self, features):
            return super().forward(features)
        # What each position adds to the 16 scores that see it: a transposed convolution with the kernel turned round.
        weights = self.weight.flip(2, 3).movedim(1, -1).reshape(16, channels)
        added = F.linear(features.movedim(1, -1), weights).view(batch, height * width, 16).transpose(1, 2)
        scores = F.fold(added.float(), (height + 3, width + 3), 4)[..., 2:-2, 2:-2]
        return scores if self.bias is None else scores + self.bias


def _as_product(layer: nn.Module, features: Tensor, positions: int = 0) -> bool:
    """Whether that is quicker. Measured on an AMD EPYC (Zen 5, avx512_bf16): in bf16 up to 4x4 positions, in fp32 2x2."""
    few = 16 if torch.is_autocast_enabled("cpu") else 4
    return layer.training and features.device.type == "cpu" and positions <= few
