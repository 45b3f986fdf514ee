"""Fixtures that more than one test module uses. Everything is tiny, seeded and offline."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    """A copy of the repository's params.yaml that a test may spoil."""
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
