"""A picture of a few fixed photos, coloured by the generator, to look at while it trains."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recolor.images.color import into_gamut, lab_to_rgb


@torch.no_grad()
def sample_grid(generator: nn.Module, lab: Tensor) -> NDArray[np.uint8]:
    """8-bit RGB (3 H, B W, 3): the photos `lab` (B, 3, H, W) in grey, coloured and as they are, one below the other."""
    training = generator.training
    device = next(generator.parameters()).device
    lightness = lab[:, :1]
    ab = generator.eval()(lightness.to(device)).cpu()
    generator.train(training)
    rows = [
        torch.cat([lightness, torch.zeros_like(ab)], dim=1),
        into_gamut(torch.cat([lightness, ab], dim=1)),
        lab,
    ]
    rgb = [torch.cat(list(lab_to_rgb(row.contiguous())), dim=2) for row in rows]
    grid: NDArray[np.uint8] = torch.cat(rgb, dim=1).permute(1, 2, 0).numpy()
    return grid
