"""Lab and back: scikit-image's numbers, no 8-bit level lost on the way."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import lab2rgb, rgb2lab

from recolor.images.color import (
    L_CENTRE,
    LIGHTNESS_SLACK,
    film_lightness,
    into_gamut,
    lab_to_rgb,
    rgb_to_lab,
    rgb_to_lightness,
)

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


@pytest.mark.parametrize("channels", [3, 4])
def test_lightness_is_the_first_channel(channels: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, channels), dtype=np.uint8)
    photo[:3, 0] = np.array([0, 1, 255])[:, None]
    np.testing.assert_allclose(rgb_to_lightness(torch.from_numpy(photo)), rgb_to_lab(photo[..., :3])[:1], atol=2e-6)


def test_film_of_one_colour_records_that_channel() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    lab = torch.from_numpy(rgb_to_lab(photo)).expand(4, -1, -1, -1)
    recorded = film_lightness(lab, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.212671, 0.715160, 0.072169]]))
    for channel in range(3):
        grey = np.repeat(photo[..., channel : channel + 1], 3, axis=2)
        np.testing.assert_allclose(recorded[channel, 0], rgb_to_lab(grey)[0], atol=1e-3)
    np.testing.assert_allclose(recorded[3], lab[3, :1], atol=1e-3)  # the eye's sensitivity: L itself


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_out_is_scikit_images_rgb_outside_the_gamut_too() -> None:
    lab = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64))
    expected = lab2rgb(np.stack([lab[0] * 50 + 50, lab[1] * 110, lab[2] * 110], axis=-1)) * 255
    assert np.abs(decode(lab) - expected).max() <= 0.501  # the nearest level, but for float32's last digits at a half


@pytest.mark.parametrize("strength", [0.3, 1.0, 4.0])
def test_into_gamut_keeps_lightness(strength: float) -> None:
    lab = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lab[:, 1:] *= strength
    lightness = rgb_to_lab(lab_to_rgb(into_gamut(lab))[0].permute(1, 2, 0).numpy())[0]
    # Rounding to 8 bits moves L by up to 0.25.
    assert np.abs(lightness - lab[0, 0].numpy()).max() * L_CENTRE < LIGHTNESS_SLACK + 0.25


def test_into_gamut_keeps_hue_and_most_of_the_chroma() -> None:
    """A bisection for every single colour, in place of a table, keeps 0.5275 of the chroma here."""
    lab = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reduced = into_gamut(lab)
    chroma, original = reduced[0, 1:].norm(dim=0), lab[0, 1:].norm(dim=0)
    angle = (reduced[0, 1:] * lab[0, 1:]).sum(dim=0) / (chroma * original)
    assert angle.min() > 1 - 1e-5
    assert chroma.mean() / original.mean() == pytest.approx(0.5275, abs=0.005)


def test_into_gamut_leaves_srgb_alone() -> None:
    photo = torch.from_numpy(rgb_to_lab(data.astronaut()))[None]
    torch.testing.assert_close(into_gamut(photo), photo, rtol=0, atol=0)
