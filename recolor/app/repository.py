"""The repository and its models, found from any folder that `recolor` is called in."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from recolor.core.errors import UserError
from recolor.core.params import expanded
from recolor.core.storage import is_folder
from stages import paths

SAMPLE = "sample"  # the dataset that only proves the pipeline


class Choice(NamedTuple):
    """A model's folder and why it is the one that is used."""

    folder: Path
    reason: str


def repository() -> Path | None:
    """The root, if any: the current folder, one above it (a relative path), or where the package is installed from."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_repository(folder):
            return Path(os.path.relpath(folder, here))
    installed = _installed_from()
    return installed if _is_repository(installed) else None


def need_repository() -> Path:
    """As `repository`; raises UserError, which names the folders looked in, where there is none."""
    found = repository()
    if found is None:
        raise UserError(
            f"no repository of recolor, with params.yaml and dvc.yaml, in {Path.cwd()} and the folders above it, "
            f"nor in {_installed_from()}, where recolor is installed: change into a clone of it"
        )
    return found


def available_models() -> list[Path]:
    """The models that come with recolor, then the repository's, newest first."""
    from recolor.models.folder import shipped_models

    return [*shipped_models(), *trained_models()]


def trained_models() -> list[Path]:
    """The repository's models, newest first by the dates of their files, which `dvc pull` sets anew."""
    from recolor.models.folder import CARD

    root = repository()
    cards = [] if root is None else list(root.glob(f"{paths.model('*', '*')}/{CARD}"))
    return [card.parent for card in sorted(cards, key=lambda card: (-card.stat().st_mtime_ns, card))]


def default_model() -> Choice | None:
    """The newest model that `loss` names, of photos of one's own, else the one that comes with recolor, else the sample's."""
    from recolor.core.params import Params
    from recolor.models.folder import shipped_models

    root = repository()
    loss = None if root is None else Params(root / paths.PARAMS).section("loss", str)
    trained = [folder for folder in trained_models() if folder.name == loss]
    own = [folder for folder in trained if folder.parent.name != SAMPLE]
    if own:
        return Choice(own[0], f"the newest one trained here with loss: {loss}")
    if shipped := shipped_models():
        return Choice(shipped[0], "comes with recolor; none is trained here on photos of your own")
    if trained:
        return Choice(trained[0], "trained on the sample only, which proves the pipeline: its colours mean nothing")
    return None


def need_model(name: str | None) -> Choice:
    """The model that `--model` names, or the default one. Raises UserError where there is none."""
    if name is not None:
        return Choice(_named(name), "named by --model")
    choice = default_model()
    if choice is None:
        root = need_repository()
        raise UserError(
            f"{root / paths.model('', '')}: no model of the kind that `loss` in params.yaml names; `recolor train PHOTOS` "
            "trains one, or name a model's folder with --model"
        )
    return choice


def _named(name: str) -> Path:
    from recolor.models.folder import CARD

    path = expanded(Path(name))
    if not is_folder(path):
        for folder in available_models():
            if model_name(folder) == name:
                return folder
        if os.path.lexists(path):
            raise UserError(f"model {name}: is no folder; must be one with model.json and generator.safetensors")
    if not os.path.lexists(path / CARD):
        known = ", ".join(map(model_name, available_models())) or "none"
        raise UserError(f"model {name}: no model here; must be the folder of one, or one of those known here: {known}")
    return path


def model_name(folder: Path) -> str:
    """A model's name for people: DATASET/MODEL, that of a model that comes with recolor, or its path."""
    from recolor.models.folder import SHIPPED

    root = repository()
    for models in (SHIPPED, *([root / paths.model("", "")] if root is not None else [])):
        if folder.is_relative_to(models):
            return folder.relative_to(models).as_posix()
    return str(folder)


def scores_of(folder: Path, card: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of a model: those of its evaluation in the repository, or those in the card of an exported one."""
    from recolor.reporting.bundle import read_scores

    root, dataset = repository(), folder.resolve().parent.name
    if root is not None and folder.resolve() == (root / paths.model(dataset, folder.resolve().name)).resolve():
        return read_scores(root / paths.metrics(dataset), folder)
    return card.get("scores", [])


def _installed_from() -> Path:
    return Path(__file__).parents[2]


def _is_repository(folder: Path) -> bool:
    try:
        return (folder / paths.PARAMS).is_file() and "-m stages." in (folder / "dvc.yaml").read_text(errors="replace")
    except OSError:
        return False
