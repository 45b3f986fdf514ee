"""Evaluation of a tiny cache of real photos with two untrained generators."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image.fid import FrechetInceptionDistance

from recolor.core.errors import UserError
from recolor.dataset.shards import CachedPhotos, CacheError
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.evaluation.examples import choose_examples
from recolor.evaluation.features import Lite0
from recolor.evaluation.inception import TORCH_FIDELITY, Inception, WeightsUnavailableError
from recolor.evaluation.metrics import METRICS, ImageMetric, SetMetric
from recolor.evaluation.scored import scored_models
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.models.folder import WEIGHTS, load_generator, save_generator
from recolor.models.objectives import ADVERSARIAL
from recolor.models.unet import UNetGenerator, UNetParams
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.context import RuntimeParams
from recolor.sources.listing import listing_of

INCEPTION_SCORES = ["fid", "fid64", "kid", "kid_std", "is", "is_std"]
CPU = RuntimeParams(device="cpu")
PARAMS = EvaluateParams(batch_size=4, inception="off", inception_weights=None, bootstrap=200, examples=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops of each of seven places: five places to train on, two to test."""
    return made_cache(tmp_path_factory.mktemp("photos"), places=7)


def made_cache(root: Path, places: int) -> Path:
    photos = [photo()[:256, :256] for photo in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    for place in range(places):
        for shift in range(2):
            corner = 64 * (place // 4) + 8 * shift
            crop = photos[place % 4][corner : corner + 96, 80 : 80 + 96]
            Image.fromarray(crop).save(root / f"{place}-{shift}.png")
    listing = listing_of(root, [path.name for path in root.iterdir()])
    listing["group"] = "place " + listing["path"].str[0]
    params = CacheParams(seed=1, size=32, train_fraction=0.7, min_chroma=0)
    build(listing, root, root / "cache", params, processes=1)
    return root / "cache"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two generators whose weights are large enough for each to have its own colours."""
    folders = {}
    for seed, name in enumerate(("gan", "wgan")):
        torch.manual_seed(seed)
        generator = UNetGenerator(UNetParams(kind="unet", filters=4, downs=4, dropout=0.5))
        torch.nn.init.normal_(generator.out[1].weight, 0, 0.1)
        folders[name] = tmp_path_factory.mktemp(name)
        save_generator(folders[name], generator, {})
    return folders


@pytest.fixture(scope="module")
def out(cache: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("metrics")
    scored(cache, models, out)
    return out


def scored(cache: Path, models, out: Path, runtime: RuntimeParams = CPU, **changed: object) -> pd.DataFrame:
    """Evaluates with PARAMS and what is `changed` in them."""
    return evaluate(cache, models, out, PARAMS.model_copy(update=changed), runtime, seed=3)


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / name)


def pictures_of(cache: Path, split: str, model: Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Output (grey without a model) and truth of each photo, one at a time."""
    photos = CachedPhotos(cache, split)
    generator = load_generator(model) if model else lambda lightness: torch.zeros(1, 2, *lightness.shape[2:])
    pairs = []
    for lab in photos[range(len(photos))]:
        with torch.inference_mode():
            output = into_gamut(torch.cat([lab[None, :1], generator(lab[None, :1])], dim=1))
        ours, truth = lab_to_rgb(torch.cat([output, lab[None]])).permute(0, 2, 3, 1).numpy()
        pairs.append((ours, truth))
    return pairs


@pytest.mark.parametrize(("split", "model"), [("train", "grey"), ("train", "gan"), ("test", "wgan")])
def test_each_photo_has_scikit_images_scores(out: Path, cache: Path, models, split: str, model: str) -> None:
    table = read(out, "photos.csv").query("split == @split and model == @model")
    pairs = pictures_of(cache, split, models.get(model))
    assert list(table["row"]) == list(range(len(pairs)))
    assert list(table["path"]) == list(CachedPhotos(cache, split).manifest["path"])
    np.testing.assert_allclose(table["psnr"], [peak_signal_noise_ratio(true, ours) for ours, true in pairs])
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 2, "data_range": 255}
    expected = [structural_similarity(ours / 1.0, true / 1.0, **settings) for ours, true in pairs]
    np.testing.assert_allclose(table["ssim"], expected, atol=1e-5)  # float32


def test_scores_are_the_means_of_the_photos(out: Path, cache: Path, models) -> None:
    scores, photos = read(out, "scores.csv"), read(out, "photos.csv")
    order = [(split, model) for split in ("test", "train") for model in ("grey", "gan", "wgan")]
    assert list(scores[["split", "model"]].itertuples(index=False, name=None)) == order
    assert list(scores["photos"]) == [4, 4, 4, 10, 10, 10]
    for (split, model), score in zip(order, scores.to_dict("records"), strict=True):
        rows = photos.query("split == @split and model == @model")
        for metric in ("psnr", "ssim", "colourfulness", "colourfulness_true"):
            assert score[metric] == pytest.approx(rows[metric].mean(), rel=1e-12)
        for metric in ("psnr", "ssim", "colourfulness", "colourfulness_distance"):
            assert score[f"{metric}_low"] <= score[metric] <= score[f"{metric}_high"]
        pairs = np.array(pictures_of(cache, split, models.get(model)))
        assert score["psnr_pooled"] == pytest.approx(peak_signal_noise_ratio(pairs[:, 1], pairs[:, 0]))
        distances = (rows["colourfulness"] - rows["colourfulness_true"]).abs()
        assert score["colourfulness_distance"] == pytest.approx(distances.mean())
    assert (photos.query("model == 'grey'")["colourfulness"] < 1).all()  # Lab's grey is R = G = B within a level


def test_notes_hold_the_device_the_weights_and_why_inceptions_scores_are_missing(out: Path, models) -> None:
    assert read(out, "scores.csv")[INCEPTION_SCORES].isna().all(axis=None)
    notes = json.loads((out / "notes.json").read_text())
    assert notes["inception"].startswith("evaluate.inception is off")
    assert notes["device"] == "cpu, fp32"
    assert notes["models"] == {
        name: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for name, folder in models.items()
    }


def test_examples_show_what_the_tables_say(out: Path, cache: Path, models) -> None:
    examples, photos = read(out, "examples.csv"), read(out, "photos.csv")
    pictures = np.load(out / "examples.npz")
    assert list(examples["index"]) == list(range(2 * 2 * 3 * 2))  # splits, models, kinds, examples
    for (split, model), rows in examples.groupby(["split", "model"]):
        ranked = photos.query("split == @split and model == @model").sort_values("psnr")["row"]
        kinds = {kind: list(own["row"]) for kind, own in rows.groupby("kind")}
        assert kinds["worst"] == list(ranked[:2])
        assert kinds["best"] == list(ranked[::-1][:2])
        assert kinds["fixed"] == list(examples.query("split == @split and kind == 'fixed'")["row"][:2])
        greys, pairs = pictures_of(cache, split, None), pictures_of(cache, split, models[model])
        for index, row, psnr in rows[["index", "row", "psnr"]].itertuples(index=False):
            np.testing.assert_array_equal(pictures["input"][index], greys[row][0])
            np.testing.assert_array_equal(pictures["output"][index], pairs[row][0])
            np.testing.assert_array_equal(pictures["truth"][index], pairs[row][1])
            assert psnr == pytest.approx(peak_signal_noise_ratio(pairs[row][1], pairs[row][0]))


def test_fixed_examples_are_of_different_photos_as_long_as_there_are_any() -> None:
    groups = ["a"] * 20 + ["b"] * 20 + ["c"]
    photos = pd.DataFrame({"split": "test", "model": "gan", "row": range(41), "group": groups, "psnr": 20.0})

    def fixed(count: int, seed: int) -> list[int]:
        return list(choose_examples(photos, count, seed).query("kind == 'fixed'")["row"])

    assert sorted(groups[row] for row in fixed(3, 0)) == ["a", "b", "c"]
    assert sorted(groups[row] for row in fixed(5, 0)) == ["a", "a", "b", "b", "c"]
    assert fixed(3, 0) != fixed(3, 1)
    assert len(fixed(64, 0)) == 41


@pytest.mark.parametrize("epochs", [0, 3])
def test_pretraining_is_scored_unless_it_was_switched_off(models, tmp_path: Path, epochs: int) -> None:
    cards: dict[str, dict[str, int]] = {"l1": {"epochs": epochs}} | {name: {"epochs": 3} for name in ADVERSARIAL}
    cards["gan"] = {}  # of an older version
    for name, card in cards.items():
        save_generator(tmp_path / name, load_generator(models["gan"]), card)
    assert list(scored_models(tmp_path)) == [name for name in cards if name != "l1" or epochs]


def test_another_metric_is_one_entry(cache, models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red = ImageMetric("red", "red", "truth", ".1f", lambda rgb, _: rgb[:, 0].double().mean((1, 2)))
    count = SetMetric("count", "N", "higher", ".0f", lambda output, truth, seed: (len(output), 0.5), "lite0")
    monkeypatch.setitem(METRICS, "red", red)
    monkeypatch.setitem(METRICS, "count", count)
    scores = scored(cache, {"gan": models["gan"]}, tmp_path)
    score = scores.query("split == 'test' and model == 'gan'").iloc[0]
    assert (score["count"], score["count_std"]) == (4, 0.5)
    pairs = np.array(pictures_of(cache, "test", models["gan"]))
    assert (score["red"], score["red_true"]) == pytest.approx(tuple(pairs[..., 0].mean(axis=(0, 2, 3))))
    assert score["red_low"] <= score["red"] <= score["red_high"]


def test_the_same_run_writes_the_same_bytes(out: Path, cache: Path, models, tmp_path: Path) -> None:
    scored(cache, models, tmp_path)
    names = {"scores.csv", "photos.csv", "notes.json", "examples.csv", "examples.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_a_photos_result_does_not_depend_on_its_batch(out: Path, cache, models, tmp_path: Path) -> None:
    scored(cache, models, tmp_path, batch_size=7)
    pd.testing.assert_frame_equal(read(tmp_path, "photos.csv"), read(out, "photos.csv"), rtol=1e-7)
    exact = ["psnr", "colourfulness"]  # computed from the 8-bit pictures: equal where those are
    assert read(tmp_path, "photos.csv")[exact].equals(read(out, "photos.csv")[exact])
    assert (tmp_path / "examples.npz").read_bytes() == (out / "examples.npz").read_bytes()


def test_photos_that_are_not_the_manifests_are_refused(cache: Path, models, tmp_path: Path) -> None:
    shard = cache / "shard-000.npy"
    before = shard.read_bytes()
    shard.write_bytes(before[:-2] + b"\x00\x3c")  # one value of the last photo
    try:
        with pytest.raises(CacheError, match="test: "):
            scored(cache, models, tmp_path / "metrics")
    finally:
        shard.write_bytes(before)
    assert not (tmp_path / "metrics").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_deterministic_evaluation_on_a_gpu_writes_the_same_bytes_twice(
    cache: Path, models, random_inception: Path, tmp_path: Path
) -> None:
    runtime = RuntimeParams(device="cuda", deterministic=True)
    for turn in ("first", "second"):
        scored(cache, models, tmp_path / turn, runtime, inception="required", inception_weights=random_inception)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_a_model_that_has_diverged_is_named(cache: Path, models, tmp_path: Path) -> None:
    generator = load_generator(models["gan"])
    torch.nn.init.constant_(generator.encoder[0][0].weight, 3e38)  # finite, and their sums are not
    save_generator(tmp_path / "broken", generator, {})
    with pytest.raises(UserError, match="wgan"):
        scored(cache, models | {"wgan": tmp_path / "broken"}, tmp_path / "metrics")


def test_set_scores_are_of_verified_pictures_that_pass_each_network_once(
    models, random_inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    cache = made_cache(tmp_path / "photos", places=2)
    verified: list[tuple[str, int]] = []
    passes: dict[type, Counter[str]] = {Inception: Counter(), Lite0: Counter()}
    verify = CachedPhotos.verified

    def noted(photos: CachedPhotos, rows) -> torch.Tensor:
        verified.extend((photos.split, row) for row in rows)
        return verify(photos, rows)

    def counted(kind: type):
        look = kind.__call__

        def call(self, rgb: torch.Tensor) -> dict[str, torch.Tensor]:
            passes[kind].update(hashlib.sha256(photo.contiguous().numpy().tobytes()).hexdigest() for photo in rgb)
            return look(self, rgb)

        return call

    monkeypatch.setattr(CachedPhotos, "verified", noted)
    for kind in passes:
        monkeypatch.setattr(kind, "__call__", counted(kind))
    gan = {"gan": models["gan"]}
    scores = scored(cache, gan, tmp_path / "out", inception="required", inception_weights=random_inception)
    assert scores[["fid", "fid64", "kid"]].notna().all(axis=None)
    assert scores[["kid_std", "is", "is_std"]].isna().all(axis=None)  # too few photos
    assert json.loads((tmp_path / "out/notes.json").read_text())["inception"] is None
    assert sorted(verified) == [(split, row) for split in ("test", "train") for row in range(2)]
    for counts in passes.values():
        assert counts.total() == len(counts) == 4 * 3  # truth, grey and GAN
    for split, model in (("train", "gan"), ("test", "grey")):
        pairs = np.array(pictures_of(cache, split, models.get(model))).transpose(1, 0, 4, 2, 3)
        metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(random_inception / TORCH_FIDELITY))
        metric.update(torch.from_numpy(pairs[1]), real=True)
        metric.update(torch.from_numpy(pairs[0]), real=False)
        (row,) = scores.query("split == @split and model == @model").to_dict("records")
        assert row["fid64"] == pytest.approx(metric.compute().item(), rel=1e-3)


def test_without_weights_auto_notes_the_reason_and_required_fails(
    cache: Path, models, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a closed port
    scored(cache, models, tmp_path / "auto", inception="auto")
    reason = json.loads((tmp_path / "auto" / "notes.json").read_text())["inception"]
    assert "evaluate.inception_weights" in reason
    assert read(tmp_path / "auto", "scores.csv")[INCEPTION_SCORES].isna().all(axis=None)
    with pytest.raises(WeightsUnavailableError, match=r"evaluate\.inception_weights"):
        scored(cache, models, tmp_path / "required", inception="required")
    assert not (tmp_path / "required").exists()
