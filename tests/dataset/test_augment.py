"""Augmentation: what is drawn depends on the key alone, a crop is a box of the photo, and tone and film change L only."""

import numpy as np
import pytest
import torch
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


def test_a_tone_changes_lightness_within_its_range_and_keeps_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BORDER", 0)
    photos, before = augment(ramps(), TONES, (0,)), ramps()
    assert torch.equal(photos[:, 1:], before[:, 1:])
    assert photos[:, 0].abs().max() <= 1
    assert (photos[:, 0] - before[:, 0]).abs().mean((1, 2)).min() > 0.005


def test_a_border_is_paper_without_colour() -> None:
    photos = augment(ramps(), TONES, (0,))
    bare = (photos[:, 2] == 0).flatten(1).sum(1)
    assert 4 < (bare > 0).sum() < 32
    assert bare.max() < 0.4 * 32 * 32


def test_film_records_most_reds_darker_blue_lighter_and_grey_as_it_is() -> None:
    patches = np.zeros((32, 32, 3), np.uint8)
    patches[:8], patches[8:16], patches[16:24], patches[24:] = (
        (200, 60, 60),
        (60, 60, 200),
        (90, 90, 90),
        (255, 255, 255),
    )
    before = torch.from_numpy(rgb_to_lab(patches)).repeat(64, 1, 1, 1)
    photos = augment(before, FILM, (0,))
    assert torch.equal(photos[:, 1:], before[:, 1:])
    red, blue, grey, white = (photos - before)[:, 0].unflatten(1, (4, 8)).mean((2, 3)).T
    assert red.mean() < -0.05
    assert blue.min() > 0.1
    torch.testing.assert_close(torch.stack([grey, white]), torch.zeros(2, 64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["tone", "film"])
def test_a_share_of_the_photos_is_changed(kind: str) -> None:
    params = NOTHING.model_copy(update={kind: 0.5})
    changed = (augment(ramps(200), params, (0,)) != ramps(200)).flatten(1).any(dim=1)
    assert 70 < changed.sum() < 130
