"""Colours as a film has them: chroma planes at half of its sides, in its matrix and range. Its luma plane stays as it is."""

import functools

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recolor.images.color import into_gamut, lab_to_rgb, rgb_to_lightness
from recolor.inference.options import Upsampling
from recolor.inference.upsampling import Upsampler
from recolor.video.reading import BT709, BT2020, FULL, Plane

# The weights of red and blue in luma: ITU-R BT.709, BT.2020 (non-constant luminance) and, for any other, BT.601.
_LUMA = {BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)
STRIP = 2**15  # pixels painted at a time: what they need stays in a core's cache
GRID = 127  # steps of a and of b in the table of colours; 256 times as many rows are the most that OpenCV's remap takes


def grey(luma: Image.Image, color_range: int) -> Image.Image:
    """The grey picture that a luma plane shows, in 8-bit sRGB."""
    return luma.point(_levels(color_range))


@torch.inference_mode()
def chroma(
    luma: Plane, predicted: Tensor, matrix: int, color_range: int, strength: float, upsampling: Upsampling
) -> tuple[Plane, Plane]:
    """U and V at half of the sides of `luma` (H, W), rounded up: the colours of `predicted`, (3, h, w) normalised Lab.

    They are interpolated in a table: a quarter of the time of `_uv`. In three films a sixth of the values
    differ by one level, 2 of 13 million by two; at the edge of sRGB, where colours have a kink, up to four.
    """
    levels = np.asarray(grey(Image.fromarray(luma).reduce(2), color_range))
    height, width = levels.shape
    lightness = torch.from_numpy(cv2.LUT(levels, _lightness().numpy()))[None]
    upsampler = Upsampler(predicted.cpu(), width, height, upsampling)
    columns, rows = upsampler.columns(0, width), max(1, STRIP // width)
    table, middle = _table(matrix, color_range), (GRID - 1) / 2
    planes = np.empty((2, height, width), np.uint8)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        ab = strength * upsampler.tile(columns, top, lightness[:, strip])
        # Beyond 1 a colour lies outside of the table and of sRGB: it is moved towards grey, as in `into_gamut`.
        outside = torch.maximum(*ab.abs()).clamp_(min=1)
        x, y = (ab * (middle / outside) + middle).numpy()
        y += np.float32(GRID) * levels[strip]
        uv = cv2.remap(table, x, y, cv2.INTER_LINEAR)
        planes[:, strip] = cv2.convertScaleAbs(uv).transpose(2, 0, 1)
    u, v = planes
    return u, v


@functools.lru_cache(maxsize=2)
def _table(matrix: int, color_range: int) -> NDArray[np.float32]:
    """(256 * GRID, GRID, 2): U and V of each grey level with b (rows) and a (columns) from -1 to 1; 33 MB."""
    steps = torch.linspace(-1, 1, GRID)
    b, a = torch.meshgrid(steps, steps, indexing="ij")
    table = np.empty((256, GRID, GRID, 2), np.float32)
    for level, lightness in enumerate(_lightness()):
        lab = torch.stack([lightness.expand_as(a), a, b])
        table[level] = _uv(lab, torch.tensor(level), matrix, color_range).permute(1, 2, 0)
    return table.reshape(256 * GRID, GRID, 2)


def _uv(lab: Tensor, levels: Tensor, matrix: int, color_range: int) -> Tensor:
    """(2, h, w) U and V, 0 to 255, of normalised Lab (3, h, w) where the film has these grey `levels`, (h, w) or one.

    Luma is no function of L alone, so the RGB values of a colour are moved together until they have the film's luma, and its
    chroma is reduced where that leads out of [0, 1].
    """
    rgb = lab_to_rgb(into_gamut(lab[None]))[0].float() / 255
    red, blue = _LUMA.get(matrix, _BT601)
    away = rgb - (red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2])
    y = levels.float() / 255
    room = torch.where(away > 0, 1 - y, y) / away.abs().clamp(min=1e-6)
    uv = room.amin(0).clamp(max=1) * away[[2, 0]] / (2 - 2 * torch.tensor([blue, red]))[:, None, None]
    return (uv * (255 if color_range == FULL else 224) + 128).clamp(0, 255)


@functools.cache
def _levels(color_range: int) -> list[int]:
    """The 8-bit grey level of each level of luma."""
    levels = np.arange(256.0)
    return (levels if color_range == FULL else ((levels - 16) / 219 * 255).clip(0, 255).round()).astype(int).tolist()


@functools.cache
def _lightness() -> Tensor:
    """(256,) normalised L of each grey level."""
    ramp = torch.arange(256, dtype=torch.uint8)
    return rgb_to_lightness(ramp[None, :, None].expand(-1, -1, 3))[0, 0]
