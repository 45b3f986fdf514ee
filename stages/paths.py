"""Where the pipeline keeps things, relative to the repository's root, as `dvc.yaml` names them."""

import glob
from pathlib import Path
from typing import Any

# A queued experiment runs in a copy of the repository, .dvc/tmp/exps/..., which DVC removes. HOME is the repository itself.
_EXPS = [folder for folder in Path.cwd().parents if folder.match(".dvc/tmp/exps")]
QUEUED = bool(_EXPS)
HOME = _EXPS[-1].parents[2] if QUEUED else Path()
PARAMS = Path("params.yaml")
DOWNLOADS = HOME / "data/downloads"  # outside the stages' outs: what was downloaded once survives a rerun
CHECKPOINTS = HOME / "data/checkpoints"  # likewise: DVC removes a stage's outs before it runs
REPORTS = Path("reports")
CHECKED = Path("data/checked/settings.txt")  # exists where params.yaml is valid


def at_home(section: Any, key: str = "path") -> Any:
    """`section` with the path `key`, where it has one, relative to the repository itself."""
    path = getattr(section, key, None)
    return section if path is None else section.model_copy(update={key: type(path)(HOME / Path(path).expanduser())})


def raw(dataset: str) -> Path:
    return Path("data/raw") / dataset


def cache(dataset: str) -> Path:
    return Path("data/cache") / dataset


def batch_checked(dataset: str) -> Path:
    return Path("data/checked") / f"batch-{dataset}.txt"


def model(dataset: str, name: str) -> Path:
    return Path("data/models") / dataset / name


def timings(dataset: str, name: str) -> Path:
    return Path("data/timings") / dataset / f"{name}.csv"


def live(dataset: str, name: str) -> Path:
    """The history of a training, written after each epoch. No stage's output: DVC removes those before a stage runs."""
    return Path("data/live") / dataset / f"{name}.csv"


def samples(dataset: str, name: str) -> Path:
    """Pictures of test photos, coloured while the model trains."""
    return Path("data/samples") / dataset / name


def checkpoints(dataset: str, name: str) -> list[Path]:
    """The folders of checkpoints of that model, of whatever settings (stages/training.py names them)."""
    return sorted(CHECKPOINTS.glob(f"{glob.escape(f'{dataset}-{name}')}-{'[0-9a-f]' * 16}"))


def metrics(dataset: str) -> Path:
    return REPORTS / "metrics" / dataset
