"""A repository to call `recolor` in."""

import os
import shutil
from pathlib import Path

import battery
import pytest

from recolor.app import repository as finding
from recolor.models import folder
from stages import paths

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_repository(tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One without models, in the current folder; `recolor` comes without models and from a folder without a repository."""
    assert params_file == tmp_path / paths.PARAMS
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(finding, "_installed_from", lambda: tmp_path / "nowhere")
    monkeypatch.setattr(folder, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository(empty_repository: Path, tiny_model: Path) -> Path:
    """Models of four datasets, the sample's the newest, then one without a `gan`; a photo; `loss` is gan."""
    names = [("sample", "gan"), ("new", "wgan"), ("mine", "gan"), ("mine", "wgan"), ("old", "gan")]
    for age, (dataset, name) in enumerate(names):
        shutil.copytree(tiny_model, paths.model(dataset, name))
        os.utime(paths.model(dataset, name) / "model.json", (2000 - age, 2000 - age))
    battery.picture(0).save("photo.jpg")
    return empty_repository
