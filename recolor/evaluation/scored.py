"""Which models are scored, and the check that they were trained on the split that they are scored on."""

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from pathlib import Path

from recolor.core.errors import UserError
from recolor.core.storage import file_sha256
from recolor.core.tables import reading
from recolor.evaluation.metrics import SPLITS
from recolor.models.folder import read_card, trained_on
from recolor.models.objectives import PRETRAINED, TRAINED


def scored_models(folder: Path) -> dict[str, Path]:
    """The trained models in a dataset's `folder`, by name, in the order of the tables; `l1` unless `pretrain.epochs` is 0."""
    models = {name: folder / name for name in TRAINED if name != PRETRAINED or (folder / name).exists()}
    return {name: model for name, model in models.items() if read_card(model).get("epochs") != 0}


def check_trained_on(cache: Path, models: Mapping[str, Path]) -> None:
    """Raises UserError for a model of another split: it may have trained on the test photos of `cache`."""
    file = cache / "manifest.csv"
    manifest = file_sha256(file)
    for name, folder in models.items():
        if not trained_on(folder, manifest):
            raise UserError(f"model {name} was trained on other photos than {file} lists: `dvc repro` trains it again")


def check_rows(file: Path, rows: Iterable[tuple[str, str]], models: Collection[str]) -> None:
    """Raises UserError unless `rows`, the split and model of each row of `file`, are each split with each of `models`."""
    found, expected = list(rows), list(product(SPLITS, models))
    with reading(file):
        if unknown := [row for row in found if row not in expected]:
            raise ValueError(f"unknown split or model: {unknown[0]}")
        if missing := [row for row in expected if row not in found]:
            raise ValueError(f"it has no row of {missing[0]}")
