"""Joint upsampling: the colour that the network predicts at 256x256, brought to the photo's own size and edges.

The guided filter (He et al. 2013, equations 5 and 6; its subsampled form, He and Sun 2015) models colour as a linear function
of lightness in every small window, so that a step in the photo's lightness becomes a step in its colour. It is applied to what
bicubic interpolation loses: colour = bicubic(ab) + slope * (L - bicubic(L at the network's size)). In this form a photo of the
network's own size keeps the prediction to the last bit, and where lightness is flat (slope 0) what remains is bicubic.

Interpolation is linear and separable, a matrix for the rows and one for the columns. A tile of the photo needs a few lines of
each, so photos of any size and shape are done in tiles which fit together without a seam.
"""

import functools
import math
from typing import get_args

import torch
from torch import Tensor

from recolor.core.errors import UserError
from recolor.inference.options import Upsampling

BLOCK = 64  # columns interpolated at a time: more depend on more of the network's pixels, most of them with weight 0
# By PSNR, windows of 3x3 are the best of 3x3 to 9x9, and this epsilon of 1e-5 to 0.04: with the true ab at 256, 128 and 64
# pixels, on scikit-image's photos, 0.5, 0.6 and 0.7 dB above bicubic. It also costs least where lightness misleads.
EPSILON = 0.04  # variance of normalised L below which a window counts as flat: a deviation of 10 units of L


class Upsampler:
    """The ab of `predicted`, normalised Lab (3, h, w), for a photo of `width` x `height` pixels.

    Raises UserError for a method that is not one of `Upsampling`.
    """

    def __init__(self, predicted: Tensor, width: int, height: int, method: Upsampling = "guided") -> None:
        if method not in get_args(Upsampling):
            raise UserError(f"upsampling: got {method}; must be {' or '.join(get_args(Upsampling))}")
        self._maps = predicted[1:]
        if method == "guided":
            self._maps = torch.cat([predicted[1:], _slopes(predicted), predicted[:1]])
        self._width, self._height = width, height

    def columns(self, left: int, count: int) -> Tensor:
        """(maps, h, count): the maps at the width of the photo, for its `count` columns from `left` on."""
        blocks = []
        for first in range(left, left + count, BLOCK):
            start, weights = _weights(self._maps.shape[2], self._width, first, min(BLOCK, left + count - first))
            weights = weights.to(self._maps)
            blocks.append(self._maps[..., start : start + weights.shape[1]] @ weights.T)
        return torch.cat(blocks, dim=-1)

    def tile(self, columns: Tensor, top: int, lightness: Tensor) -> Tensor:
        """ab (2, rows, count) of what `columns` gave, from row `top` on; `lightness` is its normalised L (1, rows, count)."""
        start, weights = _weights(columns.shape[1], self._height, top, lightness.shape[1])
        maps = weights.to(columns) @ columns[:, start : start + weights.shape[1]]
        if len(maps) == 2:
            return maps
        ab, slopes, smooth = maps.split([2, 2, 1])
        return ab + slopes * (lightness - smooth)


def _slopes(lab: Tensor) -> Tensor:
    """(2, h, w): the slopes of a and b over L around each pixel (a_k of He et al. 2013, equation 5, averaged as in 8)."""
    mean = _window_mean(torch.cat([lab, lab[:1] * lab]))
    covariance = mean[3:] - mean[:1] * mean[:3]  # of L with L, a, b
    return _window_mean(covariance[1:] / (covariance[:1] + EPSILON))


def _window_mean(maps: Tensor) -> Tensor:
    """The means of (C, h, w) over windows of 3x3, at the edges over what lies inside; a third of `F.avg_pool2d`'s time."""
    means, count = torch.empty_like(maps), _window_sum(torch.ones_like(maps[0]))
    for plane, mean in zip(maps, means, strict=True):
        mean.copy_(_window_sum(plane)).div_(count)
    return means


def _window_sum(plane: Tensor) -> Tensor:
    for axis in (0, 1):
        neighbours, inner = plane, plane.shape[axis] - 1
        plane = plane.clone()
        plane.narrow(axis, 1, inner).add_(neighbours.narrow(axis, 0, inner))
        plane.narrow(axis, 0, inner).add_(neighbours.narrow(axis, 1, inner))
    return plane


@functools.lru_cache(maxsize=256)  # the same for each frame of a film
def _weights(source: int, target: int, first: int, count: int) -> tuple[int, Tensor]:
    """The first source pixel that `count` target pixels from `first` on depend on, and their weights, (count, source pixels).

    Bicubic (Keys 1981), and a mean over more pixels where it shrinks, as Pillow and `F.interpolate(antialias=True)` have it.
    """
    scale = source / target
    shrink = max(scale, 1.0)
    centres = (torch.arange(first, first + count, dtype=torch.float64) + 0.5) * scale - 0.5
    taps = torch.arange(math.ceil(4 * shrink) + 1) + torch.ceil(centres[:, None] - 2 * shrink).long()
    weights = _keys((taps - centres[:, None]) / shrink) * ((taps >= 0) & (taps < source))
    weights /= weights.sum(dim=1, keepdim=True)
    taps = taps.clamp(0, source - 1)
    start, end = int(taps[0, 0]), int(taps[-1, -1]) + 1
    return start, torch.zeros(count, end - start).scatter_add_(1, taps - start, weights.float())


def _keys(x: Tensor) -> Tensor:
    """Keys's cubic kernel, equation 15 (a = -1/2), for distances in pixels."""
    x = x.abs()
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0.0))
