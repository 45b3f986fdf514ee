"""`recolor` as people type it, in a repository with two trained models."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import battery
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from recolor.app.cli import app
from recolor.models.folder import WEIGHTS, weights_sha256
from stages import paths


@pytest.fixture
def repository(tmp_path: Path, tiny_model: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models of two datasets, the newest without a `gan`, and a photo; `loss` is gan."""
    assert params_file == tmp_path / paths.PARAMS
    monkeypatch.chdir(tmp_path)
    for age, (dataset, name) in enumerate([("new", "wgan"), ("mine", "gan"), ("mine", "wgan"), ("old", "gan")]):
        folder = paths.model(dataset, name)
        shutil.copytree(tiny_model, folder)
        os.utime(folder / "model.json", (2000 - age, 2000 - age))
    battery.picture(0).save("photo.jpg")
    return tmp_path


def recolor(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(result: Result) -> str:
    """The error that a command ended with."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_help_waits_for_no_heavy_import() -> None:
    code = "import sys, recolor.app.cli; "
    code += "print({'torch', 'numpy', 'pandas', 'PIL', 'dvc', 'tqdm', 'skimage'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_colorize_takes_the_newest_model_that_loss_names(repository: Path, set_param) -> None:
    result = recolor("colorize", "photo.jpg")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "model: data/models/mine/gan (VanillaGAN, 3 epochs of 40 photos of `mine`)",
        "photo.jpg -> photo-recolor.jpg",
        "1 coloured",
    ]
    assert Image.open("photo-recolor.jpg").size == battery.SIZE
    set_param("loss", "wgan")
    assert "model: data/models/new/wgan" in recolor("colorize", "photo.jpg", "--force").stdout


def test_colorize_takes_its_settings(repository: Path) -> None:
    result = recolor(
        *("colorize", "photo.jpg", "-o", "out.png", "--model", "old/gan", "--side-by-side", "--size", 64),
        *("--upsampling", "bicubic", "--strength", 0, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert "model: data/models/old/gan" in result.stdout
    both = Image.open("out.png")
    assert both.size == (2 * battery.SIZE[0], battery.SIZE[1])
    result = np.asarray(both)[:, battery.SIZE[0] :].astype(int)
    assert np.ptp(result, axis=2).max() <= 1  # grey


def test_failures_are_told_and_the_others_done(repository: Path) -> None:
    Path("empty").mkdir()
    Path("text.jpg").write_text("not a photo")
    battery.picture(0).save("pages.tif", save_all=True, append_images=[battery.picture(1)])
    result = recolor("colorize", "text.jpg", "photo.jpg", "empty", "missing.png", "pages.tif", "-o", "out")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        "photo.jpg -> out/photo-recolor.jpg",
        "pages.tif -> out/pages-recolor.tif (the first of 2 pages or frames)",
        "2 coloured, 3 failed",
    ]
    assert result.stderr.splitlines() == [
        "error: empty: no photos in this folder",
        "error: text.jpg: not a photo, or in a format that is not supported",
        "error: missing.png: no such file (any more)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.jpg", "--model", "nowhere"], "nowhere: no model here"),
        (["photo.jpg", "--size", "40"], "size: got 40; this model takes multiples of 16"),
        (["photo.jpg", "--strength", "inf"], "strength: got inf"),
        (["missing.png", "-o", "out.gif"], "out.gif: cannot write .gif"),
    ],
)
def test_what_the_user_can_mend_is_one_line(repository: Path, arguments: list[str], message: str) -> None:
    assert one_line(recolor("colorize", *arguments)).startswith(f"error: {message}")


def test_a_damaged_model_is_one_line(repository: Path) -> None:
    (paths.model("mine", "gan") / WEIGHTS).write_bytes(b"\0" * 100)
    assert "damaged" in one_line(recolor("colorize", "photo.jpg"))


def test_without_a_model_or_outside_the_repository_both_ways_on_are_told(repository: Path) -> None:
    shutil.rmtree("data")
    assert one_line(recolor("models")) == "error: data/models: no models yet; `dvc repro` trains them"
    for _ in range(2):
        message = one_line(recolor("colorize", "photo.jpg"))
        assert "run `dvc repro` first" in message
        assert "--model" in message
        paths.PARAMS.unlink(missing_ok=True)


def test_models_are_listed_with_their_test_scores(repository: Path) -> None:
    table = paths.metrics("mine") / "scores.csv"
    table.parent.mkdir(parents=True)
    table.write_text("split,model,photos,psnr,fid\ntest,grey,6,22.5,\ntest,gan,6,21.0,\ntrain,gan,34,24.0,\n")
    evaluated = {"gan": weights_sha256(paths.model("mine", "gan"))}
    (table.parent / "notes.json").write_text(json.dumps({"models": evaluated}))
    damaged = paths.model("old", "gan") / "model.json"
    damaged.write_text("{")
    os.utime(damaged, (0, 0))
    result = recolor("models")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "  new/wgan: VanillaGAN, 3 epochs of 40 photos of `mine`",
        "    not evaluated",
        "* mine/gan: VanillaGAN, 3 epochs of 40 photos of `mine`",
        "    N 6, PSNR (dB) 21",
    ]
    assert lines[-1].startswith("  data/models/old/gan/model.json: cannot be read")


def test_a_bundle_colours_like_its_model(repository: Path, tmp_path: Path) -> None:
    assert recolor("export", "mine/gan", "-o", "bundle").exit_code == 0
    assert recolor("colorize", "photo.jpg", "-o", "a.png").exit_code == 0
    shutil.rmtree("data")
    assert recolor("colorize", "photo.jpg", "-o", "b.png", "-m", "bundle").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert "exists already" in one_line(recolor("export", "bundle", "-o", "bundle"))
