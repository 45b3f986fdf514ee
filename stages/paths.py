"""Where the pipeline keeps things, relative to the repository's root, as `dvc.yaml` names them."""

from pathlib import Path

PARAMS = Path("params.yaml")
DOWNLOADS = Path("data/downloads")  # outside the stages' outs: what was downloaded once survives a rerun
CHECKPOINTS = Path("data/checkpoints")  # likewise: DVC removes a stage's outs before it runs
REPORTS = Path("reports")
CHECKED = Path("data/checked.txt")  # says that params.yaml was found valid

MODELS = ("gan", "wgan")


def raw(dataset: str) -> Path:
    return Path("data/raw") / dataset


def cache(dataset: str) -> Path:
    return Path("data/cache") / dataset


def model(dataset: str, name: str) -> Path:
    return Path("data/models") / dataset / name


def timings(dataset: str, name: str) -> Path:
    return Path("data/timings") / dataset / f"{name}.csv"


def metrics(dataset: str) -> Path:
    return REPORTS / "metrics" / dataset
