"""Colours that are carried along the motion."""

import numpy as np
import pytest
import torch
from films import moving

from recolor.core.errors import UserError
from recolor.inference.colorizer import BATCH, Colorizer
from recolor.inference.steady import Steady

pytest.importorskip("cv2", reason="the extra `video` is not installed")

SIDE = 64


def lab(luma: np.ndarray, ab: float | np.ndarray) -> torch.Tensor:
    """(3, h, w) normalised Lab of a grey picture and its colours."""
    lightness = torch.from_numpy(luma.astype(np.float32) / 127.5 - 1)
    return torch.stack([lightness, *torch.as_tensor(ab, dtype=torch.float32).expand(2, *lightness.shape)])


def test_flicker_becomes_less_and_colours_move_with_their_things() -> None:
    pictures = moving(30, (SIDE, SIDE), step=2)
    true = moving(30, (SIDE, SIDE), step=2)  # colours that belong to the things that move
    noise = np.random.default_rng(0).normal(0, 0.1, 30)
    steady = Steady(0.9)
    errors = []
    for luma, colour, shift in zip(pictures, true, noise, strict=True):
        wanted = colour / 255 - 0.5
        errors.append((steady(lab(luma, wanted + shift))[1].numpy() - wanted).mean())
        spread = steady.state.ab[..., 0] - wanted
        assert spread[8:-8, 8:-8].std() < 0.02
    assert np.diff(errors[5:]).std() < np.diff(noise[5:]).std() / 3


def test_a_cut_starts_afresh() -> None:
    steady = Steady(1)
    for luma in moving(10, (SIDE, SIDE)):
        steady(lab(luma, 0.5))
    after = steady(lab(moving(1, (SIDE, SIDE), seed=1)[0], -0.5))
    torch.testing.assert_close(after[1:], torch.full((2, SIDE, SIDE), -0.5))


@pytest.mark.parametrize(("side", "change"), [(4, 0.2), (8, 0.2), (12, 0.1), (16, 0.1)])
def test_the_smallest_pictures_without_motion(side: int, change: float) -> None:
    steady = Steady(1)
    pictures = [lab(moving(1, (side, side))[0], ab) for ab in (0.2, 0.4)]
    first, second = map(steady, pictures)
    torch.testing.assert_close(second[1:] - first[1:], torch.full((2, side, side), change), atol=0.01, rtol=0)


def test_what_comes_into_sight_has_its_own_colour() -> None:
    background = moving(1, (SIDE, SIDE), seed=2)[0] // 2  # dark
    steady = Steady(0.95)
    for left in range(0, 40, 2):
        luma, ab = background.copy(), np.full((2, SIDE, SIDE), -0.3)
        luma[20:44, left : left + 16], ab[:, 20:44, left : left + 16] = 220, 0.3
        result = steady(lab(luma, ab))
        wrong = (result[1] - torch.from_numpy(ab[0])).abs() > 0.3
        assert wrong.float().mean() < 0.02  # no trail behind the bright square; its edges are a pixel or two wide


def test_the_state_is_all_that_is_carried() -> None:
    pictures = [lab(luma, number % 3 / 10) for number, luma in enumerate(moving(12, (SIDE, SIDE)))]
    whole, first = Steady(0.9), Steady(0.9)
    expected = [whole(picture) for picture in pictures]
    begun = [first(picture) for picture in pictures[:5]]
    second = Steady(0.9, first.state)
    torch.testing.assert_close(begun + [second(picture) for picture in pictures[5:]], expected, rtol=0, atol=0)


def test_without_steadiness_nothing_changes_and_other_amounts_are_refused() -> None:
    picture = lab(moving(1, (SIDE, SIDE))[0], 0.2)
    assert Steady(0)(picture) is picture
    for amount in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError):
            Steady(amount)


def test_a_film_of_arrays_is_coloured_as_it_is_read(colorizer: Colorizer) -> None:
    pictures, taken = [np.dstack([luma] * 3) for luma in moving(2 * BATCH + 1)], []

    def frames():
        for picture in pictures:
            taken.append(len(taken))
            yield picture

    coloured = colorizer.video(frames(), steady=0)
    first = next(coloured)
    assert len(taken) == BATCH
    np.testing.assert_array_equal(np.stack([first, *coloured]), colorizer(np.stack(pictures)))
    steadied = np.stack(list(colorizer.video(pictures)))
    assert steadied.shape == (len(pictures), *pictures[0].shape)
    assert list(colorizer.video([])) == []
    with pytest.raises(UserError):
        next(colorizer.video(pictures, steady=2))
