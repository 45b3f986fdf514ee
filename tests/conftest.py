"""Fixtures of more than one test file. Everything is tiny, seeded and offline."""

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import battery
import pytest
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
SLOWEST = ("test_dvc_reliability.py", "test_end_to_end.py", "test_interruptions.py")  # a minute or two each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slowest files first, so that no process still has one of them when the others have finished."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


def photos_in(folder: Path, names: list[str]) -> Path:
    """Small photos, all different, under these names."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(battery.encoded(battery.picture(seed, (9, 9))))
    return folder


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Runs the block without the rights of root, if the tests have them."""
    if not battery.ROOT:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    """A copy of the repository's params.yaml that a test may change."""
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


@pytest.fixture
def set_param(params_file: Path):
    """Sets a value in that copy: set_param("train.epochs", 0)."""

    def set_value(name: str, value: object) -> None:
        yaml = YAML()
        tree = yaml.load(params_file)
        *sections, key = name.split(".")
        target = tree
        for section in sections:
            target = target[section]
        target[key] = value
        yaml.dump(tree, params_file)

    return set_value


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


@contextlib.contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """A separate disk at `disk`. Needs root, or `sudo` on a CI machine; elsewhere the test is skipped."""
    disk.mkdir()
    sudo = ["sudo", "-n"] if os.environ.get("CI") and os.geteuid() and shutil.which("sudo") else []
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", f"{options},uid={os.geteuid()}", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield disk
    finally:
        subprocess.run([*sudo, "umount", disk], check=True)


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
        generator = UNetGenerator(UNetParams(filters=2, downs=4, dropout=0.5)).eval()
    for weight in generator.parameters():
        weight.data *= 10 if weight.ndim == 4 else 1
    card = {"dataset": "mine", "model": "gan", "objective": "VanillaGAN", "epochs": 3, "photos": 40, "size": 32}
    card |= {"data": {"manifest_sha256": "5" * 64}, "params": {"seed": 42}}
    save_generator(folder, generator, card | {"versions": {"recolor": "0.1", "torch": "2.6"}})
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One for each module: while it is open, Playwright keeps an event loop running in this thread."""
    from browser import chromium

    with chromium() as browser:
        yield browser
