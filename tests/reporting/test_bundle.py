"""A bundle: a copy of the model, with its scores and its card."""

import json
import shutil
from pathlib import Path

import pytest

from recolor.core.errors import UserError
from recolor.models.export import export_onnx
from recolor.models.folder import CARD, WEIGHTS, read_card, weights_sha256
from recolor.reporting.bundle import export, model_card, read_scores, score_line

SCORES = """split,model,photos,fid,psnr,ssim,is
test,grey,6,,22.5,0.92,
test,gan,6,,21.0,0.875,
test,wgan,6,,18.0,0.75,
train,gan,34,12.25,24.0,0.9,3.5
train,grey,34,,23.0,0.94,
"""


@pytest.fixture
def scores(tmp_path: Path, tiny_model: Path) -> list[dict]:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "scores.csv").write_text(SCORES)
    (metrics / "notes.json").write_text(json.dumps({"models": {"gan": weights_sha256(tiny_model)}}))
    return read_scores(metrics, tiny_model)


def test_scores_are_the_models_own_and_greys(scores: list[dict]) -> None:
    assert scores == [
        {"split": "test", "model": "grey", "photos": 6, "psnr": 22.5, "ssim": 0.92},
        {"split": "test", "model": "gan", "photos": 6, "psnr": 21.0, "ssim": 0.875},
        {"split": "train", "model": "gan", "photos": 34, "fid": 12.25, "psnr": 24.0, "ssim": 0.9, "is": 3.5},
        {"split": "train", "model": "grey", "photos": 34, "psnr": 23.0, "ssim": 0.94},
    ]


@pytest.mark.parametrize(
    "content",
    [
        "split,model\ntest,gan,6,7\n",
        "a,b\n1,2\n",
        "split,model,photos\ntest,gan,x\n",
        "split,model,photos\ntest,gan,6",
        SCORES.rpartition("train,gan")[0],
        SCORES.replace("train,gan", "trian,gan"),
        "\xff",
    ],
)
@pytest.mark.parametrize("name", ["scores.csv", "notes.json"])
def test_a_damaged_file_is_named(tiny_model: Path, tmp_path: Path, scores: list[dict], name: str, content: str) -> None:
    (tmp_path / "metrics" / name).write_text(content, "latin-1")
    with pytest.raises(UserError, match=name):
        read_scores(tmp_path / "metrics", tiny_model)


@pytest.mark.parametrize("name", ["scores.csv", "notes.json"])
def test_what_the_system_refuses_is_not_called_damaged(
    tiny_model: Path, tmp_path: Path, scores: list[dict], name: str
) -> None:
    (tmp_path / "metrics" / name).unlink()
    (tmp_path / "metrics" / name).mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        read_scores(tmp_path / "metrics", tiny_model)


@pytest.mark.parametrize("content", ['{"models": []}', '{"models": 1}', "[]", "1", "null"])
def test_notes_of_another_kind_are_one_line(tiny_model: Path, tmp_path: Path, scores: list[dict], content: str) -> None:
    (tmp_path / "metrics/notes.json").write_text(content)
    with pytest.raises(UserError):
        read_scores(tmp_path / "metrics", tiny_model)


def test_a_model_without_a_training_step_has_no_scores_and_needs_none(
    tiny_model: Path, tmp_path: Path, scores: list[dict]
) -> None:
    untrained = tmp_path / "l1"
    shutil.copytree(tiny_model, untrained)
    (untrained / CARD).write_text(json.dumps(read_card(tiny_model) | {"model": "l1", "epochs": 0}))
    assert read_scores(tmp_path / "metrics", untrained) == []


def test_a_bundle_is_the_model_with_its_scores_and_its_card(
    tiny_model: Path, tmp_path: Path, scores: list[dict]
) -> None:
    out = tmp_path / "bundle"
    export(tiny_model, out, scores, made={"commit": "abc1234"})
    assert {path.name for path in out.iterdir()} == {WEIGHTS, CARD, "README.md"}
    assert (out / WEIGHTS).read_bytes() == (tiny_model / WEIGHTS).read_bytes()
    assert read_card(out) == {**read_card(tiny_model), "scores": scores, "made": {"commit": "abc1234"}}
    text = (out / "README.md").read_text()
    for said in (
        "2 filters",
        "4 down-samplings",
        "VanillaGAN",
        "3 epochs of 40 photos of `mine`",
        "5" * 64,
        '"seed": 42',
        "recolor 0.1, torch 2.6",
        "Commit: abc1234",
    ):
        assert said in text
    assert "| test | gan | 6 | 21.00 | 0.875 |  |  |" in text
    assert "| train | gan | 34 | 24.00 | 0.900 | 12.25 | 3.50 |" in text
    again = tmp_path / "again"
    export(out, again, [])  # a bundle of a bundle keeps what came with it
    assert [(again / name).read_bytes() for name in (WEIGHTS, CARD, "README.md")] == [
        (out / name).read_bytes() for name in (WEIGHTS, CARD, "README.md")
    ]


def test_the_line_of_scores_holds_the_headline_metrics_that_were_measured(scores: list[dict]) -> None:
    assert score_line(scores[1]) == "PSNR 21.00 dB, SSIM 0.875"
    assert score_line(scores[2]) == "PSNR 24.00 dB, SSIM 0.900, FID 12.25"


def test_a_card_without_scores_reports_it(tiny_model: Path) -> None:
    assert "has not been evaluated" in model_card(read_card(tiny_model))


def test_nothing_is_overwritten_unless_asked(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for write in (lambda: export(tiny_model, tmp_path, []), lambda: export_onnx(tiny_model, tmp_path / "notes.txt")):
        with pytest.raises(UserError, match="--force"):
            write()
    with pytest.raises(UserError, match=r"notes\.txt: is a file"):
        export(tiny_model, tmp_path / "notes.txt", [], force=True)
    with pytest.raises(UserError, match="--onnx"):
        export_onnx(tiny_model, tmp_path, force=True)
    with pytest.raises(UserError, match="is the model itself"):
        export(tiny_model, tiny_model, [], force=True)
    export(tiny_model, tmp_path, [], force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="no model here"):
        export(tmp_path / "nowhere", tmp_path / "out", [])


def test_where_nothing_can_be_written_the_place_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt" / "bundle", Path("/proc/bundle")):
        for write in (
            lambda out=out: export(tiny_model, out, []),
            lambda out=out: export_onnx(tiny_model, out / "a.onnx"),
        ):
            with pytest.raises(UserError, match=rf"^{out}.*: cannot be written: "):
                write()
