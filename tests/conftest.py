"""Fixtures of more than one test file. Everything is tiny, seeded and offline."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clone import set_params
from surroundings import ROOT, mounted

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from recolor.inference.colorizer import Colorizer

SLOWEST = ("test_end_to_end.py", "test_dvc_reliability.py", "test_interruptions.py")  # up to a minute each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slowest files first: started last, one of them would run on alone."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    """A copy of the repository's params.yaml that a test may change."""
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


@pytest.fixture
def set_param(params_file: Path) -> Callable[[str, object], None]:
    """Sets a value in that copy: set_param("paper.train.epochs", 0)."""
    return lambda name, value: set_params(params_file.parent, {name: value})


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with both Inception files, of random weights, which are accepted as the published ones while tests run."""
    import random_inception

    from recolor.evaluation.inception import SHA256

    folder = tmp_path_factory.mktemp("inception")
    random_inception.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in SHA256:
            patch.setitem(SHA256, name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
        yield folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        yield disk


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained model of 32x32 pixels that makes strong colours."""
    import torch

    from recolor.models.folder import save_generator
    from recolor.models.unet import UNetGenerator, UNetParams

    folder = tmp_path_factory.mktemp("models") / "mine" / "gan"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        generator = UNetGenerator(UNetParams(kind="unet", filters=2, downs=4, dropout=0.5)).eval()
    for weight in generator.parameters():
        weight.data *= 10 if weight.ndim == 4 else 1
    card = {"dataset": "mine", "model": "gan", "objective": "VanillaGAN", "epochs": 3, "photos": 40, "size": 32}
    card |= {"data": {"manifest_sha256": "5" * 64}, "params": {"seed": 42}}
    save_generator(folder, generator, card | {"versions": {"recolor": "0.1", "torch": "2.6"}})
    return folder


@pytest.fixture(scope="session")
def colorizer(tiny_model: Path) -> "Colorizer":
    from recolor.inference.colorizer import Colorizer

    return Colorizer.load(tiny_model, "cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One for each module: while it is open, Playwright runs an event loop in this thread."""
    from browser import chromium

    with chromium() as browser:
        yield browser
