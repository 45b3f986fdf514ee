"""ONNX files that give torch's numbers."""

import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull
from recolor.models import export as exporting
from recolor.models.export import export_onnx
from recolor.models.folder import load_generator, read_card
from recolor.reporting.bundle import export


def test_without_onnx_the_package_is_named(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'recolor\[onnx\]'"):
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


@pytest.mark.parametrize("onnx", [True, False])
def test_a_full_disk_leaves_nothing_and_is_known_before_the_export(
    tiny_model: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, onnx: bool
) -> None:
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: pytest.fail("exports first"))
    with pytest.raises(DiskFull, match="the model needs"):
        (export_onnx if onnx else partial(export, scores=[]))(tiny_model, small_disk / "new")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
