"""The pictures that are measured and shown: the true photo, doing nothing (`grey`), and what each model makes of it."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recolor.images.color import into_gamut, lab_to_rgb

TRUTH, GREY = "truth", "grey"
PIECE = 8  # photos that fit a CPU's caches: three times as fast as 64


@torch.inference_mode()
def colourings(lab: Tensor, generators: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """(B, 3, H, W) normalised Lab, float32, of `truth`, `grey` and each generator; `lab` is the true photos'."""
    lightness = lab[:, :1].contiguous(memory_format=torch.channels_last)
    coloured = {TRUTH: lab, GREY: torch.cat([lightness, torch.zeros_like(lab[:, 1:])], dim=1)}
    for name, generator in generators.items():
        coloured[name] = into_gamut(torch.cat([lightness, generator(lightness)], dim=1))  # as in Colorizer
    return coloured


def coloured_arrays(lab: Tensor, generators: Mapping[str, nn.Module]) -> dict[str, NDArray[np.uint8]]:
    """The `colourings` as arrays of 8-bit RGB, (B, H, W, 3)."""
    return {name: to_rgb(one).permute(0, 2, 3, 1).cpu().numpy() for name, one in colourings(lab, generators).items()}


def to_rgb(lab: Tensor) -> Tensor:
    """(B, 3, H, W) normalised Lab to 8-bit RGB."""
    return in_pieces(lab_to_rgb, lab.contiguous())


def in_pieces(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Applies `function` to the batches, PIECE photos at a time on a CPU."""
    piece = PIECE if batches[0].device.type == "cpu" else len(batches[0])
    return torch.cat([function(*pieces) for pieces in zip(*(batch.split(piece) for batch in batches), strict=True)])
