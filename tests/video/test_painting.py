"""Chroma planes against colours that are computed one by one."""

import numpy as np
import pytest
import torch
from films import BT601, BT709, FULL, LIMITED
from PIL import Image

from recolor.images.color import into_gamut, lab_to_rgb, rgb_to_lightness
from recolor.video.painting import chroma, grey

SIDE = 64
# Kr, Kb of ITU-R BT.601 and BT.709
WEIGHTS = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}


@pytest.mark.parametrize("matrix", [BT601, BT709])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("strength", [0, 0.5, 1.6])
def test_chroma_is_that_of_the_colours(matrix: int, color_range: int, strength: float) -> None:
    """Each level of luma with a ramp of a or b, in and out of sRGB."""
    levels = np.linspace(16, 235, SIDE).round().astype(np.uint8)
    luma = np.repeat(np.repeat(levels[:, None], SIDE, 1), 2, 0).repeat(2, 1)
    ramp = torch.linspace(-1, 1, SIDE).expand(SIDE, SIDE)
    shown = np.asarray(grey(Image.fromarray(luma), color_range))[::2, ::2]
    # Kept by bicubic upsampling from the same size.
    predicted = torch.stack([torch.zeros(SIDE, SIDE), ramp, 0.6 * ramp.flip(1)])
    u, v = chroma(luma, predicted, matrix, color_range, strength, "bicubic")

    red, blue = WEIGHTS[matrix]
    lab = torch.cat([lightness(shown), strength * predicted[1:]])
    r, g, b = lab_to_rgb(into_gamut(lab[None]))[0].double().numpy() / 255
    y = red * r + (1 - red - blue) * g + blue * b
    level = shown / 255
    room = np.full(level.shape, 1.0)
    for value in (r, g, b):
        away = value - y
        space = np.where(away > 0, 1 - level, level)
        room = np.where(np.abs(away) > 1e-6, np.minimum(room, space / np.maximum(np.abs(away), 1e-6)), room)
    scale = 255 if color_range == FULL else 224
    for plane, value, weight in ((u, b, blue), (v, r, red)):
        expected = (scale * room * (value - y) / (2 - 2 * weight) + 128).clip(0, 255)
        difference = np.abs(plane - expected)
        assert np.quantile(difference, 0.99) < 1
        assert difference.max() < 5  # at the edge of sRGB, where the colours have a kink
    if not strength:
        assert np.abs(u.astype(int) - 128).max() <= 1


def lightness(levels: np.ndarray) -> torch.Tensor:
    return rgb_to_lightness(torch.from_numpy(np.repeat(levels[..., None], 3, -1)))
