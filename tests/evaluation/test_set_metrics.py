"""Set scores against scipy's matrix root, clean-fid's and torchmetrics' functions, and known Gaussians."""

import tracemalloc
import warnings

import cleanfid.fid
import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data
from torch import nn
from torchmetrics.image.inception import InceptionScore

from recolor.evaluation import set_metrics
from recolor.evaluation.features import Lite0, resize
from recolor.evaluation.set_metrics import frechet_distance, inception_score, kernel_distance


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def textbook_frechet(one: np.ndarray, other: np.ndarray) -> float:
    covariances = [np.cov(features.astype(np.float64), rowvar=False) for features in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def textbook_mmd(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x.astype(np.float64) @ y) / len(x) + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(features) for j, y in enumerate(features) if i != j])
        for features in (one, other)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in one for y in other])


@pytest.mark.parametrize("photos", [2, 40, 300])
def test_frechet_distance_below_and_above_the_number_of_features(photos: int) -> None:
    one, other = normal(2, photos, 96) @ normal(96, 96)
    distance, deviation = frechet_distance(one, other + np.float32(0.3))
    assert distance == pytest.approx(textbook_frechet(one, other + np.float32(0.3)), rel=1e-3)
    assert np.isnan(deviation)


def test_frechet_distance_of_known_gaussians() -> None:
    # N(0, 1) and N(3, 4) in one dimension: 3^2 + (1 - 2)^2.
    sample = normal(1000, 1).astype(np.float64)
    sample = (sample - sample.mean()) / sample.std(ddof=1)
    assert frechet_distance(sample, 3 + 2 * sample)[0] == pytest.approx(10)
    assert frechet_distance(sample, sample)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("block", [3, 96, 200])
def test_frechet_distance_does_not_depend_on_its_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = normal(2, 300, 96)
    whole = frechet_distance(one, other)
    monkeypatch.setattr(set_metrics, "BLOCK", block)
    assert frechet_distance(one, other)[0] == pytest.approx(whole[0], rel=1e-9)


def test_frechet_distance_makes_no_copy_of_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    features = normal(20_000, 16)
    monkeypatch.setattr(set_metrics, "BLOCK", 500)
    tracemalloc.start()
    frechet_distance(features, features[::-1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < features.nbytes / 4


def test_kernel_distance_of_whole_sets() -> None:
    one, other = normal(2, 40, 16) + np.float32(0.2)
    distance, deviation = kernel_distance(one, other, seed=0)
    assert distance == pytest.approx(textbook_mmd(one, other), rel=1e-4)
    assert distance == pytest.approx(cleanfid.fid.kernel_distance(other, one, 1), rel=1e-3)
    assert np.isnan(deviation)
    assert kernel_distance(one, one, seed=0)[0] < 0  # unbiased: pictures differ from each other, not from themselves


def test_kernel_distance_has_a_deviation_where_its_subsets_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = normal(2, 60, 16)
    other = other + np.float32(0.5)
    monkeypatch.setattr(set_metrics, "KID_SUBSET_SIZE", 50)
    distance, deviation = kernel_distance(one, other, seed=3)
    assert distance == pytest.approx(textbook_mmd(one, other), abs=3 * deviation)
    assert (distance, deviation) == kernel_distance(one, other, seed=3) != kernel_distance(one, other, seed=4)
    assert deviation > 0


def test_inception_score_is_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = 3 * normal(200, 1008)
    with warnings.catch_warnings(action="ignore"):
        metric = InceptionScore(nn.Identity(), splits=10)
    metric.update(torch.from_numpy(np.random.default_rng(5).permutation(logits)))
    monkeypatch.setattr(torch, "randperm", torch.arange)
    mean, deviation = metric.compute()
    assert inception_score(logits, logits, seed=5) == pytest.approx((mean.item(), deviation.item()), rel=1e-4)
    assert inception_score(logits, logits, seed=6) != inception_score(logits, logits, seed=5)


@pytest.mark.parametrize(("photo", "category"), [("chelsea", range(281, 286)), ("coffee", [504, 967, 968])])
def test_lite0s_features_are_those_of_a_network_that_knows_what_it_sees(photo: str, category) -> None:
    rgb = torch.from_numpy(getattr(data, photo)()).permute(2, 0, 1)[None]
    lite0 = Lite0(torch.device("cpu"))
    features = lite0(rgb)["lite0"]
    assert features.shape == (1, Lite0.sizes["lite0"])
    assert lite0.network.classifier(features.clone()).argmax().item() in category  # cats; coffee mug, espresso and cup


def test_lite0s_features_do_not_depend_on_the_batch() -> None:
    rgb = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    lite0 = Lite0(torch.device("cpu"))
    alone = torch.cat([lite0(photo[None])["lite0"] for photo in rgb])
    torch.testing.assert_close(lite0(rgb)["lite0"], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [64, 256, 400])
def test_resize_is_clean_fids(size: int) -> None:
    rgb = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clean = cleanfid.fid.build_resizer("clean")
    expected = np.stack([clean(picture.permute(1, 2, 0).numpy()) for picture in rgb]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(resize(rgb, 299), expected, atol=0.01)
