"""A working folder for tests that run training stages, and a checkpoint after each epoch."""

import shutil
from pathlib import Path

import pytest
from clone import TINY, set_params, write_photos
from surroundings import ROOT
from working_folder import stage

from recolor.images.folders import walk
from recolor.preprocessing.build import CacheParams, build
from recolor.sources.listing import listing_of
from recolor.training import recorder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with settings and a cache: what a training stage needs."""
    folder = tmp_path_factory.mktemp("made") / "work"
    photos = write_photos(tmp_path_factory.mktemp("photos"))
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    every_step = {"runtime.checkpoint_minutes": 1e-9}
    set_params(folder, {**TINY, "data.mine.path": str(photos), "paper.train.batch_size": 7, **every_step})
    cache = CacheParams(seed=42, size=32, train_fraction=0.85, min_chroma=2)
    build(listing_of(photos, walk(photos)), photos, folder / "data/cache/mine", cache, processes=1)
    assert stage(folder, "train mine l1").returncode == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture
def checkpoint_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 0)
