"""A repository to call `recolor` in."""

import os
import shutil
from pathlib import Path

import battery
import pytest
import torch
from surroundings import ROOT

from recolor.app import repository as finding
from recolor.models import folder
from recolor.models.folder import save_generator
from recolor.models.unet import UNetGenerator, UNetParams
from stages import paths


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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that give strong colours, each its own."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("gan", "wgan")):
        torch.manual_seed(seed)
        generator = UNetGenerator(UNetParams(kind="unet", filters=2, downs=5, dropout=0.5))
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.mul_(20)
        card = {"size": 32, "dataset": "tiny", "model": name, "epochs": 0, "photos": 0}
        save_generator(place / "tiny" / name, generator, card)
    return {f"tiny/{name}": place / "tiny" / name for name in ("gan", "wgan")}
