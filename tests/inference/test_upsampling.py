"""Colour at the photo's size: the reference is Pillow where nothing guides, and the true colour where lightness does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from recolor.core.errors import UserError
from recolor.images.color import lab_to_rgb, rgb_to_lab
from recolor.inference.upsampling import Upsampler, _weights


def psnr(rgb: torch.Tensor, truth: np.ndarray) -> float:
    difference = rgb.permute(1, 2, 0).numpy().astype(float) - truth
    return 10 * np.log10(255**2 / (difference**2).mean())


def upsample(lab: torch.Tensor, lightness: torch.Tensor, method: str) -> torch.Tensor:
    upsampler = Upsampler(lab, lightness.shape[2], lightness.shape[1], method)
    return upsampler.tile(upsampler.columns(0, lightness.shape[2]), 0, lightness)


@pytest.mark.parametrize(("name", "gain"), [("astronaut", 0.6), ("coffee", 0.6), ("chelsea", 0.2), ("rocket", 0.5)])
def test_guided_comes_nearer_to_the_true_colour_than_bicubic(name: str, gain: float) -> None:
    photo = getattr(data, name)()
    small = np.asarray(Image.fromarray(photo).resize((64, 64), Image.Resampling.BICUBIC))
    true_small, lightness = torch.from_numpy(rgb_to_lab(small)), torch.from_numpy(rgb_to_lab(photo)[:1])
    guided, bicubic = (
        psnr(lab_to_rgb(torch.cat([lightness, upsample(true_small, lightness, method)])[None])[0], photo)
        for method in ("guided", "bicubic")
    )
    assert guided > bicubic + gain  # dB


def test_a_step_in_lightness_is_a_step_in_colour() -> None:
    fine = torch.full((1, 64, 64), -0.6)
    fine[:, :, 30:] = 0.6  # inside a pixel of the small picture
    small = torch.nn.functional.avg_pool2d(fine, 8)
    lab = torch.cat([small, 0.3 * small, -0.2 * small])
    expected = torch.cat([0.3 * fine, -0.2 * fine])
    errors = {method: (upsample(lab, fine, method) - expected).abs().mean() for method in ("guided", "bicubic")}
    assert errors["guided"] < errors["bicubic"] / 2


@pytest.mark.parametrize("size", [(50, 70), (11, 9), (16, 16)])
def test_bicubic_is_pillows(size: tuple[int, int]) -> None:
    lab = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = [np.asarray(Image.fromarray(plane.numpy()).resize(size, Image.Resampling.BICUBIC)) for plane in lab[1:]]
    found = upsample(lab, torch.zeros(1, size[1], size[0]), "bicubic")
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [(16, 50), (256, 1000), (16, 16), (64, 9), (256, 1)])
def test_weights_are_torchs(source: int, target: int) -> None:
    """Up to the rounding of its positions, which are float32."""
    identity = torch.eye(source)[None, None]
    expected = F.interpolate(identity, size=(target, source), mode="bicubic", antialias=True)[0, 0]
    for first, count in ((0, target), (target // 2, 1)):
        start, weights = _weights(source, target, first, count)
        found = F.pad(weights, (start, source - start - weights.shape[1]))
        torch.testing.assert_close(found, expected[first : first + count], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["guided", "bicubic"])
def test_tiles_make_the_whole(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    lab, lightness = (torch.rand(shape, generator=generator) * 2 - 1 for shape in ((3, 16, 16), (1, 100, 30)))
    upsampler = Upsampler(lab, 30, 100, method)
    tiles = []
    for left in range(0, 30, 11):
        columns = upsampler.columns(left, min(11, 30 - left))
        strips = [lightness[:, top : top + 7, left : left + 11] for top in range(0, 100, 7)]
        tiles.append(torch.cat([upsampler.tile(columns, 7 * row, strip) for row, strip in enumerate(strips)], dim=1))
    torch.testing.assert_close(torch.cat(tiles, dim=2), upsample(lab, lightness, method))


@pytest.mark.parametrize("method", ["guided", "bicubic"])
def test_at_its_own_size_the_prediction_stays(method: str) -> None:
    lab = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(upsample(lab, lab[:1], method), lab[1:])


def test_unknown_method_is_the_users_error() -> None:
    with pytest.raises(UserError, match="upsampling: got nearest"):
        Upsampler(torch.zeros(3, 8, 8), 8, 8, "nearest")
