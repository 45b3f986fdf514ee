"""The comparison of docs/study.md: its grid, its tables against direct computations, its figures and its sheets."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clone import TINY, dvc, make_clone, set_params, write_photos
from PIL import Image
from surroundings import ROOT

from docs.study import grid, running, sheets
from docs.study.__main__ import main
from docs.study.grid import Run
from recolor.core.errors import UserError
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.evaluation.image_metrics import colourfulness, psnr
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.images.folders import walk
from recolor.models.folder import load_generator, save_generator, weights_sha256
from recolor.models.unet import UNetGenerator, UNetParams
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.context import RuntimeParams
from recolor.sources.listing import listing_of
from stages import paths

RUNS = [Run("l1", None, None, "mine"), Run("gan", 0.5, 1, "mine"), Run("gan", 0.5, 2, "mine")]
RUNS += [Run("wgan-gp", 0.5, 1, "mine"), Run("wgan-gp", 0.5, 2, "mine")]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    set_params(tmp_path, TINY)
    return tmp_path / "params.yaml"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos, out = write_photos(tmp_path_factory.mktemp("photos")), tmp_path_factory.mktemp("cache") / "mine"
    params = CacheParams(seed=42, size=32, train_fraction=0.6, min_chroma=2)
    build(listing_of(photos, walk(photos)), photos, out, params, processes=1)
    return out


@pytest.fixture(scope="module")
def study(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of adversary with two seeds each, of made-up weights and histories."""
    study = tmp_path_factory.mktemp("study")
    running.add_cache(study, cache, None, None)
    for number, run in enumerate(RUNS):
        folder = tmp_path_factory.mktemp("model")
        made_up_model(folder, number, hashlib.sha256((cache / "manifest.csv").read_bytes()).hexdigest())
        history = {"epoch": [1, 2], "generator_l1": [0.2, 0.1], "generator_steps": [3, 6], "critic_steps": [6, 12]}
        pd.DataFrame({**history, "critic_estimate": [0.1, 0.3], "gradient_ratio": 0.5}).to_csv(folder / "history.csv")
        pd.DataFrame({"epoch": [1, 2], "seconds": [10.0, 2.5]}).to_csv(folder / "times.csv")
        running.add_model(study, run, folder, folder / "times.csv")
    return study


def made_up_model(folder: Path, seed: int, manifest: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = UNetGenerator(UNetParams(kind="unet", filters=2, downs=4, dropout=0.5)).eval()
    for weight in generator.parameters():
        weight.data *= 10 if weight.ndim == 4 else 1
    trained = {"gan": {"lr": 0.1}, "wgan": {"constraint": "gradient_penalty"}}
    card = {"dataset": "mine", "epochs": 2, "size": 32, "machine": "cpu", "params": trained}
    save_generator(folder, generator, card | {"data": {"manifest_sha256": manifest}})


@pytest.fixture(scope="module")
def tables(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    main(["--study", str(study), "--out", str(out), "collect"])
    return out


def test_results_are_those_of_stage_evaluate(tables: Path, study: Path, cache: Path, tmp_path: Path) -> None:
    models = {run.name: running.model_folder(study, run) for run in RUNS}
    settings = EvaluateParams(batch_size=32, inception="off", inception_weights=None, bootstrap=1000, examples=2)
    scores = evaluate(cache, models, tmp_path / "scores", settings, RuntimeParams(device="cpu"), 42)
    expected = scores[scores["split"] == "test"].set_index("model").dropna(axis="columns", how="all")
    found = pd.read_csv(tables / "results.csv").set_index("name")
    assert list(found.index) == ["grey", *models]
    for column in expected.columns.drop("split"):
        np.testing.assert_allclose(found[column], expected.loc[found.index, column], rtol=1e-4, err_msg=column)
    assert found.loc["wgan-gp-b0.5-s2", ["generator_steps", "critic_steps", "seconds"]].tolist() == [6, 12, 12.5]
    assert found.loc["wgan-gp-b0.5-s2", "constraint"] == "gradient_penalty"


def test_differences_are_paired_by_photo_and_pool_the_seeds(tables: Path, study: Path) -> None:
    table = pd.read_csv(tables / "differences.csv").set_index(["arm", "metric"])
    row = table.loc["wgan-gp", "psnr"]
    scores = {run: pd.read_csv(study / "runs" / run.name / "scores/photos.csv")["psnr"] for run in RUNS[1:]}
    gan1, gan2, wgan1, wgan2 = scores.values()
    by_photo = ((wgan1 - gan1) + (wgan2 - gan2)) / 2
    assert (row["minus"], row["seeds"], row["photos"]) == ("gan", 2, len(gan1))
    assert row["difference"] == pytest.approx(by_photo.mean())
    assert by_photo.min() < row["low"] < row["difference"] < row["high"] < by_photo.max()
    own = np.random.default_rng(7).choice(by_photo, (4000, len(by_photo))).mean(axis=1)
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(own, [0.025, 0.975]), abs=0.3 * own.std())
    assert table.loc["l1", "psnr"]["seeds"] == 2
    assert pd.isna(table.loc["wgan-gp", "kid_lite0"]["low"])


def test_curves_hold_the_scores_at_every_strength(tables: Path, study: Path, cache: Path) -> None:
    table = pd.read_csv(tables / "curves.csv").set_index(["name", "strength"])
    photos = CachedPhotos(cache, "test")
    lab = photos[range(len(photos))]
    truth = lab_to_rgb(lab)
    with torch.inference_mode():
        ab = load_generator(running.model_folder(study, RUNS[1]))(lab[:, :1])
    for strength in (0.5, 1.5):
        output = lab_to_rgb(into_gamut(torch.cat([lab[:, :1], strength * ab], dim=1)))
        row = table.loc[RUNS[1].name, strength]
        assert row["psnr"] == pytest.approx(psnr(output, truth).mean().item(), rel=1e-4)
        assert row["colourfulness"] == pytest.approx(colourfulness(output).mean().item(), rel=1e-3)


def test_figures_are_drawn_and_a_model_of_another_split_is_refused(tables: Path, study: Path, tmp_path: Path) -> None:
    main(["--study", str(study), "--out", str(tables), "figures"])
    for name in ("tradeoff.png", "curves.png", "photos.jpg"):
        assert len(np.unique(np.asarray(Image.open(tables / name)))) > 50, name
    other = Path(shutil.copytree(study, tmp_path / "other", symlinks=True))
    made_up_model(running.model_folder(other, RUNS[1]), 9, "0" * 64)
    with pytest.raises(UserError, match="another split"):
        main(["--study", str(other), "--out", str(tmp_path), "collect"])


def test_sheets_lie_outside_the_repository_and_their_faults_are_counted(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="outside"):
        sheets.write_sheets(study, ROOT / "docs/sheets", 16)
    monkeypatch.setattr(sheets, "COLUMNS", 2)
    written = sheets.write_sheets(study, tmp_path, 16)
    photos = len(CachedPhotos(study / "cache", "test"))
    assert len(written) == len(RUNS) * -(-photos // 4)
    assert Image.open(written[0]).size == (2 * (3 * 16 + 8), 2 * (16 + 14 + 4))
    rows = list(csv.DictReader((tmp_path / "faults.csv").open()))
    assert len(rows) == len(RUNS) * photos
    rows[0]["fault"], rows[1]["fault"] = "blot", "right"
    pd.DataFrame(rows).to_csv(tmp_path / "faults.csv", index=False)
    sheets.write_sheets(study, tmp_path, 16)  # keeps them
    sheets.count_faults(tmp_path, tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out/faults.csv").open())
    assert {row[key] for key in ("photos", "blot", "right", "grid")} == {"2", "1", "0"}


def test_a_wgan_makes_the_generator_steps_of_the_gan(params: Path) -> None:
    set_params(params.parent, {"modern.wgan.n_critic": 3, "modern.train.decay_epochs": 1})
    gan, clipped, paper = grid.grid(["gan", "wgan-clip", "paper-wgan"], [1.5], [2], "mine")
    of_gan, of_clipped, of_paper = (grid.settings(run, params, "l1", 4) for run in (gan, clipped, paper))
    assert (of_gan["modern.train.epochs"], of_gan["modern.train.decay_epochs"]) == (4, 2)
    assert (of_clipped["modern.train.epochs"], of_clipped["modern.train.decay_epochs"]) == (12, 6)
    assert of_clipped["modern.wgan.constraint"] == "clip"
    assert (of_clipped["modern.wgan.balance"], of_clipped["modern.train.seed"]) == (1.5, 2)
    assert (of_paper["recipe"], paper.balance) == ("paper", None)
    assert not {"paper.train.epochs", "paper.pretrain.start", "paper.wgan.balance"} & set(of_paper)
    set_params(params.parent, {"overrides.mine": {"modern.train.epochs": 1}})
    with pytest.raises(UserError, match=r"overrides\.mine\.modern\.train\.epochs"):
        grid.settings(gan, params, "l1", 4)


def test_a_smaller_cache_keeps_the_split(cache: Path, tmp_path: Path) -> None:
    small = running.add_cache(tmp_path, cache, 5, 2)
    for split, count in (("train", 5), ("test", 2)):
        photos, whole = CachedPhotos(small, split), CachedPhotos(cache, split)
        assert len(photos) == count
        assert set(photos.manifest["path"]) < set(whole.manifest["path"])
        photos.verify()
    assert running.add_cache(tmp_path, cache, 5, 2) == small
    with pytest.raises(UserError):
        running.add_cache(tmp_path, cache, 6, 2)


@pytest.mark.sweep
def test_the_queue_trains_what_the_stages_alone_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    clone = make_clone(tmp_path / "clone", write_photos(tmp_path / "photos"))
    set_params(clone, {"recipe": "modern"})
    dvc(clone, "repro", "pretrain")
    monkeypatch.chdir(clone)
    words = ["run", "mine", "--arms", "wgan-clip,paper-gan", "--balances", "0.5", "--seeds", "3"]
    main([*words, "--epochs", "1"])
    main(["--study", str(tmp_path / "direct"), *words, "--epochs", "1", "--direct"])
    runs = grid.grid(["wgan-clip", "paper-gan"], [0.5], [3], "mine")
    queued, direct = (
        [weights_sha256(running.model_folder(study, run)) for run in runs]
        for study in (Path("data/study"), tmp_path / "direct")
    )
    assert queued == direct
    assert len({weights_sha256(paths.model("mine", "l1")), *queued}) == 3
    main([*words, "--epochs", "1"])  # nothing is left to train
    with pytest.raises(UserError, match="other settings"):
        main([*words, "--epochs", "2"])
