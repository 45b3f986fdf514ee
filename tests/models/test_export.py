"""Models to hand out: a bundle is the model again, with what there is to say of it, and ONNX gives torch's numbers."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recolor.core.errors import UserError
from recolor.models import export as bundle
from recolor.models.export import export, export_onnx, model_card, read_scores, trained
from recolor.models.folder import CARD, WEIGHTS, ModelError, load_generator, read_card, weights_sha256

SCORES = """split,model,photos,fid,psnr,ssim,is
test,grey,6,,22.5,0.92,
test,gan,6,,21.0,0.875,
test,wgan,6,,18.0,0.75,
train,gan,34,12.25,24.0,0.9,3.5
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
    ]


def test_models_are_found_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["b/gan", "a/wgan", "a/gan"]):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / CARD).write_text("{}")
        os.utime(tmp_path / name / CARD, (1000 - age, 1000 - age))
    (tmp_path / "a/empty").mkdir()
    assert [folder.relative_to(tmp_path).as_posix() for folder in trained(tmp_path)] == ["b/gan", "a/wgan", "a/gan"]
    assert trained(tmp_path / "nowhere") == []


def test_a_bundle_is_the_model_with_its_scores_and_its_card(
    tiny_model: Path, tmp_path: Path, scores: list[dict]
) -> None:
    out = tmp_path / "bundle"
    export(tiny_model, out, scores)
    assert {path.name for path in out.iterdir()} == {WEIGHTS, CARD, "README.md"}
    assert (out / WEIGHTS).read_bytes() == (tiny_model / WEIGHTS).read_bytes()
    assert read_card(out) == {**read_card(tiny_model), "scores": scores}
    text = (out / "README.md").read_text()
    for said in (
        "2 filters",
        "4 down-samplings",
        "VanillaGAN",
        "3 epochs of 40 photos of `mine`",
        "5" * 64,
        '"seed": 42',
        "Trained with recolor 0.1, torch 2.6. Settings",
    ):
        assert said in text
    assert "| test | gan | 6 | 21 | 0.875 |  |  |" in text
    assert "| train | gan | 34 | 24 | 0.9 | 12.25 | 3.5 |" in text
    assert "colours are invented" in text
    again = tmp_path / "again"
    export(out, again, [])  # a bundle of a bundle keeps what came with it
    assert [(again / name).read_bytes() for name in (WEIGHTS, CARD, "README.md")] == [
        (out / name).read_bytes() for name in (WEIGHTS, CARD, "README.md")
    ]


def test_a_card_without_scores_says_so(tiny_model: Path) -> None:
    assert "has not been evaluated" in model_card(read_card(tiny_model))


def test_nothing_is_overwritten_unless_asked(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for write in (lambda: export(tiny_model, tmp_path, []), lambda: export_onnx(tiny_model, tmp_path / "notes.txt")):
        with pytest.raises(UserError, match="exists already; --force"):
            write()
    with pytest.raises(UserError, match=r"notes.txt: is a file, and a bundle is a folder"):
        export(tiny_model, tmp_path / "notes.txt", [], force=True)
    with pytest.raises(UserError, match=r"is a folder, and --onnx writes a file"):
        export_onnx(tiny_model, tmp_path, force=True)
    with pytest.raises(UserError, match="is the model itself"):
        export(tiny_model, tiny_model, [], force=True)
    export(tiny_model, tmp_path, [], force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ModelError, match="no model here"):
        export(tmp_path / "nowhere", tmp_path / "out", [])


def test_where_nothing_can_be_written_the_place_is_told(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt" / "bundle", Path("/proc/bundle")):
        for write in (
            lambda out=out: export(tiny_model, out, []),
            lambda out=out: export_onnx(tiny_model, out / "a.onnx"),
        ):
            with pytest.raises(UserError, match=rf"^{out}.*: cannot be written: "):
                write()


def test_without_onnx_its_users_are_told(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx and onnxscript missing: pip install 'recolor\[onnx\]'"):
        export_onnx(tiny_model, tmp_path / "model.onnx")


def test_onnx_gives_torchs_numbers_for_any_batch_and_size(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'recolor[onnx]'")
    import onnxruntime

    file = tmp_path / "out/model.onnx"
    export_onnx(tiny_model, file)
    assert capfd.readouterr().out == ""
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]  # weights included
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in metadata.items()} == read_card(tiny_model)
    generator = load_generator(tiny_model)
    for shape in ((1, 1, 32, 32), (5, 1, 32, 32), (2, 1, 16, 48)):
        lightness = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            expected = generator(lightness).numpy()
        (ab,) = session.run(["ab"], {"lightness": lightness.numpy()})
        np.testing.assert_allclose(ab, expected, atol=1e-3)
        assert np.abs(expected).mean() > 0.01
