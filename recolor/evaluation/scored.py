"""Which models are scored, and the check that they were trained on the split that they are scored on."""

from collections.abc import Mapping
from pathlib import Path

from recolor.core.errors import UserError
from recolor.core.storage import file_sha256
from recolor.core.tables import read_rows
from recolor.models.folder import read_card
from recolor.models.objectives import ADVERSARIAL


def model_folders(folder: Path) -> dict[str, Path]:
    """The models in the folder of a dataset, by name, in the order of the tables; `l1` only where there is one."""
    names = [*(["l1"] if (folder / "l1").exists() else []), *ADVERSARIAL]
    return {name: folder / name for name in names}


def scored_models(models: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of `models` (name: folder) whose generator made at least one step; the others hold untrained weights.

    So `l1` is a row of the tables where `pretrain.epochs` is not 0.
    """
    return {name: folder for name, folder in models.items() if is_trained(folder)}


def is_trained(folder: Path) -> bool:
    """Whether the generator in the model's folder made a step."""
    if read_card(folder).get("epochs") == 0:
        return False
    history = folder / "history.csv"
    if not history.exists():  # a bundle
        return True
    steps = [row["generator_steps"] for row in read_rows(history, ["generator_steps"])]
    return not steps or steps[-1] != "0"


def check_trained_on(cache: Path, models: Mapping[str, Path]) -> None:
    """Raises UserError for a model of another split: it may have trained on the test photos of `cache`."""
    file = cache / "manifest.csv"
    manifest = file_sha256(file)
    for name, folder in models.items():
        if read_card(folder).get("data", {}).get("manifest_sha256", manifest) != manifest:
            raise UserError(f"model {name} was trained on other photos than {file} lists: train it again")
