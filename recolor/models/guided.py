"""The guided filter as the last layer of a generator: colours end where the photo's lightness changes."""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 16  # pixels of the photo from the middle of a window to its side
EPSILON = 0.03  # variance of normalised L below which a window counts as flat: a deviation of 9 units of L


def guided_upsample(ab: Tensor, lightness: Tensor) -> Tensor:
    """ab (B, 2, h, w) at the size of the normalised lightness (B, 1, H, W), H / h = W / w a whole number; in [-1, 1].

    In every window ab is a linear function of lightness, fitted at the size of ab (He et al. 2013, equations 5 to 8; its
    subsampled form, He and Sun 2015). It has no weights and passes gradients.
    """
    factor = lightness.shape[-1] // ab.shape[-1]
    radius = REACH // factor
    small = F.avg_pool2d(lightness, factor)
    means = _window_mean(torch.cat([small, small * small, ab, small * ab], dim=1), radius)
    mean_l, mean_ll, mean_ab, mean_lab = means.split([1, 1, 2, 2], dim=1)
    slope = (mean_lab - mean_l * mean_ab) / (mean_ll - mean_l * mean_l + EPSILON)
    maps = _window_mean(torch.cat([slope, mean_ab - slope * mean_l], dim=1), radius)
    slope, offset = F.interpolate(maps, lightness.shape[-2:], mode="bilinear").chunk(2, dim=1)
    return (slope * lightness + offset).clamp(-1, 1)


def _window_mean(maps: Tensor, radius: int) -> Tensor:
    """Means over square windows, at the edges over what lies inside; first along rows, then along columns."""
    for side, padding in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        maps = F.avg_pool2d(maps, side, stride=1, padding=padding, count_include_pad=False)
    return maps
