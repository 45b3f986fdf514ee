"""The walk over a dataset, on a tiny cache of real photos and two untrained generators."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_loop as test_training
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image.fid import FrechetInceptionDistance

from recolor.core.errors import UserError
from recolor.dataset.shards import CachedPhotos, CacheError
from recolor.evaluation import evaluate as evaluation
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.evaluation.examples import Examples
from recolor.evaluation.inception import SET_SCORES, TORCH_FIDELITY, Inception, WeightsError, WeightsUnavailableError
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.models.checkpoint import WEIGHTS, Checkpoints, load_generator, save_generator
from recolor.models.networks import GeneratorParams, UNetGenerator
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.devices import RuntimeParams

SIZE = 32
CPU = RuntimeParams(device="cpu")
PARAMS = EvaluateParams(batch_size=4, inception="off", inception_weights=None, bootstrap=200, examples=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crops of each of seven places: five places to train on, two to test."""
    root = tmp_path_factory.mktemp("photos")
    rows = []
    photos = [photo()[:256, :256] for photo in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    for place in range(7):
        for shift in range(2):
            path = f"{place}-{shift}.png"
            corner = 64 * (place // 4) + 8 * shift
            Image.fromarray(photos[place % 4][corner : corner + 96, 80 : 80 + 96]).save(root / path)
            content = (root / path).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            rows.append({"path": path, "size": len(content), "sha256": digest, "crop": "", "group": f"place {place}"})
    out = root / "cache"
    build(pd.DataFrame(rows), root, out, CacheParams(size=SIZE, train_fraction=0.7, min_chroma=0), seed=1, processes=1)
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two generators of different weights: loud enough for each to have its own colours."""
    folders = {}
    for seed, name in enumerate(("gan", "wgan")):
        torch.manual_seed(seed)
        generator = UNetGenerator(GeneratorParams(filters=4, downs=4, dropout=0.5))
        torch.nn.init.normal_(generator.out[1].weight, 0, 0.1)
        folders[name] = tmp_path_factory.mktemp(name)
        save_generator(folders[name], generator, {})
    return folders


@pytest.fixture(scope="module")
def out(cache: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("metrics")
    evaluate(cache, models, out, PARAMS, CPU, seed=3)
    return out


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / name)


def picture(lab: torch.Tensor) -> np.ndarray:
    return lab_to_rgb(lab[None])[0].permute(1, 2, 0).numpy()


def pictures_of(cache: Path, split: str, model: Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Output (grey without a model) and truth of each photo, one at a time."""
    photos = CachedPhotos(cache, split)
    generator = load_generator(model) if model else lambda lightness: torch.zeros(1, 2, *lightness.shape[2:])
    pairs = []
    for lab in photos[range(len(photos))]:
        with torch.inference_mode():
            output = torch.cat([lab[:1], generator(lab[None, :1])[0]])
        pairs.append((picture(into_gamut(output[None])[0]), picture(lab)))
    return pairs


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("model", ["grey", "gan", "wgan"])
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
    order = [(split, model) for split in ("train", "test") for model in ("grey", "gan", "wgan")]
    assert list(scores[["split", "model"]].itertuples(index=False, name=None)) == order
    assert list(scores["photos"]) == [10, 10, 10, 4, 4, 4]
    for (split, model), score in zip(order, scores.to_dict("records"), strict=True):
        rows = photos.query("split == @split and model == @model")
        for metric in ("psnr", "ssim", "colourfulness", "colourfulness_true"):
            assert score[metric] == pytest.approx(rows[metric].mean(), rel=1e-12)
        for metric in ("psnr", "ssim", "colourfulness", "colourfulness_distance"):
            assert score[f"{metric}_low"] <= score[metric] <= score[f"{metric}_high"]
        pairs = np.array(pictures_of(cache, split, models.get(model)))
        assert score["psnr_pooled"] == pytest.approx(peak_signal_noise_ratio(pairs[:, 1], pairs[:, 0]))
        distance = (rows["colourfulness"] - rows["colourfulness_true"]).abs().mean()
        assert score["colourfulness_distance"] == pytest.approx(distance)


def test_doing_nothing_has_no_colour(out: Path) -> None:
    grey = read(out, "photos.csv").query("model == 'grey'")
    assert (grey["colourfulness"] < 1).all()  # Lab's grey is R = G = B within a level
    assert (grey["colourfulness_true"] > 10).all()


def test_switched_off_leaves_the_set_scores_empty_and_says_so(out: Path) -> None:
    assert read(out, "scores.csv")[list(SET_SCORES)].isna().all(axis=None)
    notes = json.loads((out / "notes.json").read_text())
    assert notes["inception"].startswith(
        "evaluate.inception is off for this dataset, in params.yaml or in the dataset's"
    )
    assert notes["device"] == "cpu, fp32"


def test_the_scores_name_the_weights_that_they_are_of(out: Path, models) -> None:
    weights = {name: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for name, folder in models.items()}
    assert json.loads((out / "notes.json").read_text())["models"] == weights


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
    manifest = pd.DataFrame({"split": "test", "group": groups})
    assert sorted(groups[row] for row in Examples(manifest, 3, seed=0).fixed) == ["a", "b", "c"]
    assert sorted(groups[row] for row in Examples(manifest, 5, seed=0).fixed) == ["a", "a", "b", "b", "c"]
    assert Examples(manifest, 3, seed=0).fixed != Examples(manifest, 3, seed=1).fixed
    assert len(Examples(manifest, 64, seed=0).fixed) == 41


def test_the_same_run_writes_the_same_bytes(out: Path, cache: Path, models, tmp_path: Path) -> None:
    evaluate(cache, models, tmp_path, PARAMS, CPU, seed=3)
    names = {"scores.csv", "photos.csv", "notes.json", "examples.csv", "examples.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_photos_result_does_not_depend_on_its_batch(
    out: Path, cache, models, tmp_path: Path, batch_size: int
) -> None:
    evaluate(cache, models, tmp_path, PARAMS.model_copy(update={"batch_size": batch_size}), CPU, seed=3)
    pd.testing.assert_frame_equal(read(tmp_path, "photos.csv"), read(out, "photos.csv"), rtol=1e-7)
    exact = ["psnr", "colourfulness"]  # whole numbers underneath: equal where the 8-bit pictures are
    assert read(tmp_path, "photos.csv")[exact].equals(read(out, "photos.csv")[exact])
    assert (tmp_path / "examples.npz").read_bytes() == (out / "examples.npz").read_bytes()


def test_photos_that_are_not_the_manifests_are_refused(cache: Path, models, tmp_path: Path) -> None:
    shard = cache / "test-000.npy"
    before = shard.read_bytes()
    shard.write_bytes(before[:-2] + b"\x00\x3c")  # one value of the last photo
    try:
        with pytest.raises(CacheError, match="not that of"):
            evaluate(cache, models, tmp_path / "metrics", PARAMS, CPU, seed=3)
    finally:
        shard.write_bytes(before)
    assert not (tmp_path / "metrics").exists()


def test_every_tensor_is_read_once_and_by_one_process(
    cache: Path, models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_rows: list[tuple[str, int]] = []
    half = CachedPhotos.half

    def noted(photos: CachedPhotos, indices) -> torch.Tensor:
        read_rows.extend((photos.split, int(index)) for index in indices)
        return half(photos, indices)

    monkeypatch.setattr(CachedPhotos, "half", noted)
    evaluate(cache, models, tmp_path, PARAMS, CPU, seed=3)
    assert read_rows == [*(("train", row) for row in range(10)), *(("test", row) for row in range(4))]


def test_torch_is_asked_for_the_same_bits_every_time(
    cache: Path, models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = evaluation._pictures

    def noted(*arguments):
        asked.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        return original(*arguments)

    monkeypatch.setattr(evaluation, "_pictures", noted)
    evaluate(cache, models, tmp_path, PARAMS, CPU, seed=3)
    assert set(asked) == {(True, False)}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes an NVIDIA GPU")
def test_trained_and_evaluated_twice_on_a_gpu_the_bytes_are_the_same(
    cache: Path, random_inception: Path, tmp_path: Path
) -> None:
    inception = {"inception": "required", "inception_weights": random_inception}
    params = PARAMS.model_copy(update=inception)
    runtime = RuntimeParams(device="cuda", deterministic=True)
    for turn in ("first", "second"):
        trained = test_training.train(
            CachedPhotos(cache, "train"),
            test_training.settings(),
            runtime,
            test_training.AUGMENT,
            test_training.GENERATOR,
            test_training.DISCRIMINATOR,
            test_training.GAN,
            Checkpoints(tmp_path / turn / "checkpoints"),
        )
        save_generator(tmp_path / turn / "model", trained.generator, {})
        evaluate(cache, {"gan": tmp_path / turn / "model"}, tmp_path / turn / "metrics", params, runtime, seed=3)
    files = [
        "model/generator.safetensors",
        *(f"metrics/{file.name}" for file in (tmp_path / "first/metrics").iterdir()),
    ]
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_a_model_that_has_diverged_is_named(cache: Path, models, tmp_path: Path) -> None:
    generator = load_generator(models["gan"])
    torch.nn.init.constant_(generator.encoder[0][0].weight, 3e38)  # finite, and their sums are not
    save_generator(tmp_path / "broken", generator, {})
    with pytest.raises(UserError, match="model wgan gives colours that are not numbers"):
        evaluate(cache, models | {"wgan": tmp_path / "broken"}, tmp_path / "metrics", PARAMS, CPU, seed=3)


def test_set_scores_are_of_the_pictures_of_the_split(
    cache: Path, models, random_inception: Path, tmp_path: Path
) -> None:
    params = PARAMS.model_copy(update={"inception": "required", "inception_weights": random_inception})
    scores = evaluate(cache, {"gan": models["gan"]}, tmp_path, params, CPU, seed=3)
    assert scores[["fid", "fid64", "kid"]].notna().all(axis=None)
    assert scores[["kid_std", "is", "is_std"]].isna().all(axis=None)  # too few photos
    assert json.loads((tmp_path / "notes.json").read_text())["inception"] is None
    for split, model in (("train", "gan"), ("test", "grey")):
        pairs = np.array(pictures_of(cache, split, models.get(model))).transpose(1, 0, 4, 2, 3)
        metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(random_inception / TORCH_FIDELITY))
        metric.update(torch.from_numpy(pairs[1]), real=True)
        metric.update(torch.from_numpy(pairs[0]), real=False)
        (row,) = scores.query("split == @split and model == @model").to_dict("records")
        assert row["fid64"] == pytest.approx(metric.compute().item(), rel=1e-3)


def test_each_photo_passes_each_network_once(
    cache: Path, models, random_inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inception too: the features of the true photos serve every row of the table."""
    generated: Counter[tuple[object, ...]] = Counter()
    looked_at: Counter[str] = Counter()
    generate, look = UNetGenerator.forward, Inception.__call__

    def counted_generate(self: UNetGenerator, lightness: torch.Tensor) -> torch.Tensor:
        generated.update((id(self), photo.numpy().tobytes()) for photo in lightness)
        return generate(self, lightness)

    def counted_look(self: Inception, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        looked_at.update(hashlib.sha256(picture.contiguous().numpy().tobytes()).hexdigest() for picture in pictures)
        return look(self, pictures)

    monkeypatch.setattr(UNetGenerator, "forward", counted_generate)
    monkeypatch.setattr(Inception, "__call__", counted_look)
    params = PARAMS.model_copy(update={"inception": "required", "inception_weights": random_inception})
    scores = evaluate(cache, models, tmp_path, params, CPU, seed=3)
    assert scores["fid"].notna().all()
    photos = 10 + 4
    assert generated.total() == len(generated) == photos * len(models)
    assert looked_at.total() == len(looked_at) == photos * (2 + len(models))  # truth and grey


def test_without_weights_auto_says_why_and_required_fails(cache: Path, models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    evaluate(cache, models, tmp_path / "auto", PARAMS.model_copy(update={"inception": "auto"}), CPU, seed=3)
    reason = json.loads((tmp_path / "auto" / "notes.json").read_text())["inception"]
    assert "could not be downloaded" in reason
    assert "evaluate.inception_weights" in reason
    assert read(tmp_path / "auto", "scores.csv")[list(SET_SCORES)].isna().all(axis=None)
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded"):
        evaluate(cache, models, tmp_path / "required", PARAMS.model_copy(update={"inception": "required"}), CPU, seed=3)
    assert not (tmp_path / "required").exists()


def test_a_folder_that_was_named_must_hold_the_weights(cache: Path, models, tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"inception": "auto", "inception_weights": tmp_path})
    with pytest.raises(WeightsError, match="is missing"):
        evaluate(cache, models, tmp_path / "metrics", params, CPU, seed=3)
