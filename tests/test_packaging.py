"""The dependencies in pyproject.toml: each one is used, and the base installation colours photos."""

import ast
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import battery
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from surroundings import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {
    package: {canonicalize_name(name) for name in names} for package, names in packages_distributions().items()
}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def with_dependencies(distributions: set[str]) -> set[str]:
    """These distributions and, recursively, what they require on this machine without extras of their own."""
    found: set[str] = set()
    waiting = list(distributions)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
        waiting += [canonicalize_name(item.name) for item in needed]
    return found


def distributions_imported() -> set[str]:
    found: set[str] = set()
    for path in [*(ROOT / "recolor").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                found |= DISTRIBUTIONS.get(module.split(".")[0], set())
    return found


def test_every_dependency_is_imported() -> None:
    listed = [PROJECT["dependencies"], *(EXTRAS[extra] for extra in ("pipeline", "demo"))]
    unused = set.union(*map(names, listed)) - distributions_imported()
    weights = {name for name in unused if name.startswith("efficientnet-")}  # found by name
    assert unused - weights == {"dvc"}  # a program


BASE_ONLY = """
import json, socket, sys
def offline(*arguments):
    raise OSError("this test has no network")
socket.socket.connect = offline
blocked, commands = json.loads(sys.argv.pop(1))
class Without:
    # a finder that does not find the blocked packages
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *arguments):
        return None if name.split(".")[0] in blocked else self.finder.find_spec(name, *arguments)
sys.meta_path[:] = map(Without, sys.meta_path)
from recolor.inference import Colorizer
from recolor.app.cli import app
for command in commands:
    app(command, standalone_mode=False)
    print(end="--")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    wheels = tmp_path_factory.mktemp("wheels")
    source = wheels / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, source],
        check=True,
    )
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheels / "installed")
    return wheels / "installed"


def test_the_wheel_colours_a_photo_without_extras_repository_or_network(installed: Path, tmp_path: Path) -> None:
    base = with_dependencies(names(PROJECT["dependencies"])) | {"recolor"}
    blocked = sorted(package for package, owners in DISTRIBUTIONS.items() if not owners & base)
    assert {"dvc", "pandas", "matplotlib", "accelerate", "skimage", "jinja2"} - set(blocked) <= {
        "jinja2"
    }  # torch requires it
    (tmp_path / "photo.png").write_bytes(battery.encoded(battery.picture(1, (40, 50))))
    commands = ["models"], ["colorize", "photo.png", "-o", "new.png"]
    done = subprocess.run(
        [sys.executable, "-c", BASE_ONLY, json.dumps([blocked, commands])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed / "recolor/weights") in done.stdout.split("--")[1]  # what colorize has printed
    before, after = (np.array(Image.open(tmp_path / name).convert("HSV")) for name in ("photo.png", "new.png"))
    assert after.shape == before.shape
    assert after[..., 1].mean() > 5  # saturation
