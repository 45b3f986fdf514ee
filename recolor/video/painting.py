"""Colours as a film has them: chroma planes at half of its sides, in its matrix and range. Its luma plane stays as it is."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recolor.images.color import into_gamut, lab_to_rgb, rgb_to_lightness
from recolor.inference.upsampling import Upsampler, Upsampling
from recolor.video.reading import BT709, BT2020, FULL, Plane

# The weights of red and blue in luma: ITU-R BT.709, BT.2020 (non-constant luminance) and, for any other, BT.601.
_LUMA = {BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)
STRIP = 2**15  # pixels painted at a time: what they need stays in a core's cache


def grey(luma: Plane, color_range: int) -> Image.Image:
    """The grey picture that a luma plane shows, in 8-bit sRGB."""
    return Image.fromarray(np.ascontiguousarray(_levels(color_range)[luma]))


@torch.inference_mode()
def chroma(
    luma: Plane, predicted: Tensor, matrix: int, color_range: int, strength: float, upsampling: Upsampling
) -> tuple[Plane, Plane]:
    """U and V at half of the sides of `luma` (H, W), rounded up: the colours of `predicted`, (3, h, w) normalised Lab.

    Luma is no function of L alone, so the RGB values of a colour are moved together until they have the film's luma, and its
    chroma is reduced where that leads out of [0, 1].
    """
    small = np.array(grey(np.asarray(Image.fromarray(np.ascontiguousarray(luma)).reduce(2)), color_range))
    height, width = small.shape
    levels = torch.from_numpy(small).to(predicted.device)
    lightness = _lightness(predicted.device)[levels.int()][None]
    upsampler = Upsampler(predicted, width, height, upsampling)
    columns, rows = upsampler.columns(0, width), max(1, STRIP // width)
    planes = torch.empty(2, height, width, dtype=torch.uint8)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        ab = strength * upsampler.tile(columns, top, lightness[:, strip])
        planes[:, strip] = _uv(torch.cat([lightness[:, strip], ab]), levels[strip], matrix, color_range)
    u, v = planes.numpy()
    return u, v


def _uv(lab: Tensor, levels: Tensor, matrix: int, color_range: int) -> Tensor:
    """(2, h, w) U and V, 0 to 255, of normalised Lab (3, h, w) where the film has these grey `levels` (h, w)."""
    rgb = lab_to_rgb(into_gamut(lab[None]))[0].float() / 255
    red, blue = _LUMA.get(matrix, _BT601)
    away = rgb - (red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2])
    y = levels.float() / 255
    room = torch.where(away > 0, 1 - y, y) / away.abs().clamp(min=1e-6)
    uv = room.amin(0).clamp(max=1) * away[[2, 0]] / (2 - 2 * torch.tensor([blue, red]).to(away))[:, None, None]
    return (uv * (255 if color_range == FULL else 224) + 128).round().clamp(0, 255).to(torch.uint8)


@functools.cache
def _levels(color_range: int) -> NDArray[np.uint8]:
    """The 8-bit grey level of each level of luma."""
    levels = np.arange(256.0)
    return (levels if color_range == FULL else ((levels - 16) / 219 * 255).clip(0, 255).round()).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _lightness(device: torch.device) -> Tensor:
    """(256,) normalised L of each grey level."""
    ramp = torch.arange(256, dtype=torch.uint8, device=device)
    return rgb_to_lightness(ramp[None, :, None].expand(-1, -1, 3))[0, 0]
