"""Augmentation: what is drawn depends on the key alone, a crop is a box of the photo, and tone and film keep colours."""

import numpy as np
import pytest
import torch
from skimage.color import lab2xyz
from torch import Tensor

from recolor.dataset import augment as module
from recolor.dataset.augment import AugmentParams, augment
from recolor.images.color import rgb_to_lab

NOTHING = AugmentParams(flip=True, crop=1, tone=0, film=0)
CROPS = NOTHING.model_copy(update={"crop": 0.5})
TONES = NOTHING.model_copy(update={"tone": 1})
FILM = NOTHING.model_copy(update={"film": 1})


def ramps(count: int = 64, size: int = 32) -> Tensor:
    """L rises from left to right, a from top to bottom, b is constant."""
    across = torch.linspace(-0.9, 0.9, size).expand(size, size)
    return torch.stack([across, across.T, torch.full_like(across, 0.25)]).repeat(count, 1, 1, 1)


def patches(*colours: tuple[int, int, int]) -> Tensor:
    """64 photos of 32x32, a band for each 8-bit colour."""
    bands = np.repeat(np.array(colours, np.uint8), 32 // len(colours), axis=0)
    return torch.from_numpy(rgb_to_lab(np.repeat(bands[:, None], 32, axis=1))).repeat(64, 1, 1, 1)


def chromaticity(photos: Tensor) -> Tensor:
    """(B, 2, H, W): CIE 1931 xy, by scikit-image."""
    lab = photos.double().movedim(1, -1).numpy()
    xyz = lab2xyz(np.concatenate([50 * (lab[..., :1] + 1), 110 * lab[..., 1:]], axis=-1))
    return torch.from_numpy(xyz[..., :2] / xyz.sum(axis=-1, keepdims=True)).movedim(-1, 1)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    photos = ramps()
    assert augment(photos, NOTHING, (1, 2)) is photos


@pytest.mark.parametrize("params", [CROPS, TONES, FILM])
def test_the_key_decides_every_draw(params: AugmentParams) -> None:
    one, same, other = (augment(ramps(), params, key) for key in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_crop_is_a_box_of_the_photo_at_its_size() -> None:
    photos = augment(ramps(), CROPS, (0,))
    assert photos.shape == (64, 3, 32, 32)
    # On ramps a box is a ramp again, and its slope is the share of the sides; both directions have the same.
    across, down = photos[:, 0].diff(dim=2).mean((1, 2)), photos[:, 1].diff(dim=1).mean((1, 2))
    share = across / ramps()[0, 0].diff(dim=1).mean()
    torch.testing.assert_close(across, down, atol=1e-3, rtol=1e-2)
    assert 0.48 < share.min() < 0.6
    assert 0.9 < share.max() < 1.02
    assert photos[:, 0].mean((1, 2)).std() > 0.05  # the boxes lie in different places
    torch.testing.assert_close(photos[:, 2], torch.full((64, 32, 32), 0.25))


@pytest.mark.parametrize("kind", ["tone", "film"])
def test_darker_colours_keep_their_chromaticity_and_lighter_ones_ab(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BORDER", "GRAIN"):
        monkeypatch.setattr(module, name, 0)
    before = patches((200, 60, 60), (60, 60, 200), (190, 150, 120), (90, 130, 80))
    photos = augment(before, NOTHING.model_copy(update={kind: 1}), (0,))
    inside = torch.arange(32) % 8
    bands = (inside > 0) & (inside < 7)  # a blurred edge lies between two colours
    before, photos = before[:, :, bands], photos[:, :, bands]
    change = photos[:, 0] - before[:, 0]
    darker, lighter = change < -0.02, change > 0.02
    assert min(darker.sum(), lighter.sum()) > 1000
    shift = (chromaticity(photos) - chromaticity(before)).abs().amax(dim=1)
    assert shift[darker & (photos[:, 0] > -0.8)].max() < 1e-4
    assert torch.equal(photos[:, 1:].movedim(1, -1)[lighter], before[:, 1:].movedim(1, -1)[lighter])


def test_a_tone_changes_the_lightness_of_every_photo_within_its_range() -> None:
    lightness = augment(ramps(), TONES, (0,))[:, 0]
    assert lightness.abs().max() <= 1
    assert (lightness - ramps()[:, 0]).abs().mean((1, 2)).min() > 0.005


def test_a_border_is_paper_without_colour() -> None:
    photos = augment(ramps(), TONES, (0,))
    bare = (photos[:, 2] == 0).flatten(1).sum(1)
    assert 4 < (bare > 0).sum() < 32
    assert bare.max() < 0.4 * 32 * 32


def test_film_records_most_reds_darker_blue_lighter_and_grey_as_it_is() -> None:
    before = patches((200, 60, 60), (60, 60, 200), (90, 90, 90), (255, 255, 255))
    photos = augment(before, FILM, (0,))
    red, blue, grey, white = (photos - before)[:, 0].unflatten(1, (4, 8)).mean((2, 3)).T
    assert red.mean() < -0.05
    assert blue.min() > 0.1
    torch.testing.assert_close(torch.stack([grey, white]), torch.zeros(2, 64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["tone", "film"])
def test_a_share_of_the_photos_is_changed(kind: str) -> None:
    params = NOTHING.model_copy(update={kind: 0.5})
    changed = (augment(ramps(200), params, (0,)) != ramps(200)).flatten(1).any(dim=1)
    assert 70 < changed.sum() < 130
