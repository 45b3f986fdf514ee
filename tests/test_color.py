"""Lab and back: scikit-image's numbers, no 8-bit level lost on the way."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import lab2rgb, rgb2lab

from recolor.color import lab_to_rgb, rgb_to_lab

PHOTOS = ["astronaut", "chelsea", "coffee"]


def decode(lab: np.ndarray) -> np.ndarray:
    return lab_to_rgb(torch.from_numpy(lab)[None])[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", PHOTOS)
def test_float16_round_trip_loses_nothing(name: str) -> None:
    photo = getattr(data, name)()
    np.testing.assert_array_equal(decode(rgb_to_lab(photo).astype(np.float16)), photo)


def test_every_colour_stays_in_range_and_comes_back() -> None:
    cube = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    cube[:5, :25] = np.stack(np.meshgrid(*[np.array([0, 1, 127, 254, 255])] * 3), axis=-1).reshape(5, 25, 3)
    lab = rgb_to_lab(cube)
    assert lab.min() >= -1
    assert lab.max() <= 1
    np.testing.assert_array_equal(decode(lab), cube)
    # In float16 about one colour in 180, all more saturated than photos' are, comes back one level off in one channel.
    off = np.abs(decode(lab.astype(np.float16)).astype(int) - cube)
    assert off.max() == 1
    assert off.any(axis=-1).mean() < 0.006


def test_in_is_scikit_images_lab_normalised() -> None:
    photo = data.astronaut()
    lab = rgb2lab(photo)
    expected = np.stack([lab[..., 0] / 50 - 1, lab[..., 1] / 110, lab[..., 2] / 110])
    np.testing.assert_allclose(rgb_to_lab(photo), expected, atol=2e-6)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_out_is_scikit_images_rgb_outside_the_gamut_too() -> None:
    lab = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64))
    expected = lab2rgb(np.stack([lab[0] * 50 + 50, lab[1] * 110, lab[2] * 110], axis=-1)) * 255
    assert np.abs(decode(lab) - expected).max() <= 0.501  # the nearest level, but for float32's last digits at a half
