"""Each metric against scikit-image's, or against a known value; the bootstrap against statistics."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from recolor.evaluation.image_metrics import bootstrap, colourfulness, colourfulness_distance, pooled_psnr, psnr, ssim


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """(3, 256, 300, 3) 8-bit RGB."""
    return np.stack([photo()[:256, :300] for photo in (data.astronaut, data.chelsea, data.coffee)])


@pytest.fixture(scope="module")
def output(truth: np.ndarray) -> np.ndarray:
    """A little noise on the first, half the contrast in the second, the third in grey."""
    noise = np.random.default_rng(0).integers(-9, 10, truth[0].shape)
    noisy = np.clip(truth[0] + noise, 0, 255)
    grey = truth[2].mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return np.stack([noisy, truth[1] // 2 + 60, grey]).astype(np.uint8)


def tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_psnr_is_scikit_images_per_photo_and_pooled(output: np.ndarray, truth: np.ndarray) -> None:
    values = psnr(tensor(output), tensor(truth))
    expected = [peak_signal_noise_ratio(*pair) for pair in zip(truth, output, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert pooled_psnr(values) == pytest.approx(peak_signal_noise_ratio(truth, output), rel=1e-12)
    assert pooled_psnr(values) < np.mean(expected)  # Jensen: the logarithm of a mean


def test_the_largest_error_is_summed_exactly() -> None:
    black = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)  # its sum is above what int32 and float32 can count
    assert psnr(black, 255 - black).item() == 0


def test_identical_pictures_have_infinite_psnr(truth: np.ndarray) -> None:
    pictures = tensor(truth)
    assert np.isposinf(psnr(pictures, pictures)).all()
    assert pooled_psnr([np.inf, np.inf]) == np.inf
    assert pooled_psnr([np.inf, 20.0]) == pytest.approx(20 + 10 * np.log10(2))
    assert ssim(pictures, pictures).tolist() == [1, 1, 1]


def test_ssim_is_scikit_images_with_gaussian_weights(output: np.ndarray, truth: np.ndarray) -> None:
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5, "data_range": 255}
    expected = [
        structural_similarity(one.astype(float), other.astype(float), channel_axis=2, **settings)
        for one, other in zip(output, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(tensor(output), tensor(truth)), expected, atol=1e-6)
    assert min(expected) < 0.9


def test_ssim_is_torchmetrics_away_from_the_borders(output: np.ndarray, truth: np.ndarray) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    pair = (tensor(output).double(), tensor(truth).double())
    _, every_window = structural_similarity_index_measure(*pair, data_range=255.0, return_full_image=True)
    inside = every_window[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    np.testing.assert_allclose(ssim(tensor(output), tensor(truth)), inside, atol=1e-6)


def test_colourfulness_is_the_papers_formula(truth: np.ndarray) -> None:
    r, g, b = np.moveaxis(truth.astype(float), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    spread = np.hypot(rg.std(axis=(1, 2)), yb.std(axis=(1, 2)))
    offset = np.hypot(rg.mean(axis=(1, 2)), yb.mean(axis=(1, 2)))
    np.testing.assert_allclose(colourfulness(tensor(truth)), spread + 0.3 * offset, rtol=1e-9)


def test_colourfulness_of_flat_and_striped_pictures() -> None:
    flat = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert colourfulness(flat + 77).item() == 0  # grey has none
    red = flat.clone()
    red[:, 0] = 200
    assert colourfulness(red).item() == pytest.approx(0.3 * np.hypot(200, 100))  # no spread, all offset
    striped = flat.clone()
    striped[:, 2, ::2] = 100
    # yb is -100 on every other line: spread 50, offset 50. Without the sign it would be +100.
    assert colourfulness(striped).item() == pytest.approx(50 + 0.3 * 50)
    red_and_green = flat.clone()
    red_and_green[:, 0, ::2] = red_and_green[:, 1, 1::2] = 100
    # rg is +-100: spread 100 around 0. Absolute values would give no spread and an offset of 100.
    assert colourfulness(red_and_green).item() == pytest.approx(100 + 0.3 * 50)


@pytest.mark.parametrize("metric", [psnr, ssim, colourfulness, colourfulness_distance])
def test_a_photos_value_does_not_depend_on_its_batch(metric, output: np.ndarray, truth: np.ndarray) -> None:
    together = metric(tensor(output), tensor(truth))
    alone = torch.cat([metric(tensor(output[i : i + 1]), tensor(truth[i : i + 1])) for i in range(len(truth))])
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=0)


def test_interval_is_the_normal_one_where_photos_are_independent() -> None:
    values = np.random.default_rng(1).normal(20, 3, (400, 2)) * [1, 10]
    low, high = bootstrap(values, np.arange(400).astype(str), resamplings=2000, seed=3)
    margin = 1.96 * values.std(axis=0) / np.sqrt(400)
    np.testing.assert_allclose((values.mean(axis=0) - low) / margin, 1, atol=0.1)
    np.testing.assert_allclose((high - values.mean(axis=0)) / margin, 1, atol=0.1)


def test_interval_counts_photos_not_crops() -> None:
    photos = np.random.default_rng(2).normal(20, 3, (25, 1))
    crops, groups = photos.repeat(40, axis=0), np.arange(25).repeat(40).astype(str)
    order = np.random.default_rng(3).permutation(len(crops))
    expected = bootstrap(photos, np.arange(25).astype(str), resamplings=500, seed=4)
    by_photo = bootstrap(crops[order], groups[order], resamplings=500, seed=4)
    by_crop = bootstrap(crops, np.arange(len(crops)).astype(str), resamplings=500, seed=4)
    # 40 copies of each photo hold no more than one: the groups' names only decide which draw is whose.
    assert np.ptp(by_photo) == pytest.approx(np.ptp(expected), rel=0.15)
    assert np.ptp(by_photo) > 4 * np.ptp(by_crop)


def test_interval_weighs_photos_alike_when_groups_differ_in_size() -> None:
    values, groups = np.array([[0.0], [0.0], [0.0], [8.0]]), np.array(["a", "a", "a", "b"])
    low, high = bootstrap(values, groups, resamplings=1000, seed=0)
    assert (low.item(), high.item()) == (0, 8)  # all a, or all b


def test_interval_is_seeded_and_stays_honest_at_the_edges() -> None:
    values, groups = np.random.default_rng(5).normal(size=(30, 1)), np.arange(30).astype(str)
    assert bootstrap(values, groups, 200, seed=1) == bootstrap(values, groups, 200, seed=1)
    assert bootstrap(values, groups, 200, seed=1) != bootstrap(values, groups, 200, seed=2)
    one_photo = bootstrap(values, np.repeat("same", 30), 200, seed=1)
    assert np.isnan(one_photo).all()
    values[0] = np.inf  # an identical picture's PSNR: some draws leave it out, most do not
    low, high = bootstrap(values, groups, 200, seed=1)
    assert np.isfinite(low)
    assert np.isposinf(high)
