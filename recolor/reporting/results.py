"""What the stages left behind for one dataset, read for the report. Nothing is computed here but counts."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recolor.core.errors import UserError
from recolor.dataset.shards import kind, read_table
from recolor.reporting.figures import NAMES, Photos

SPLITS = ("test", "train")  # in the order that they are told: what the model never saw comes first


@dataclass(frozen=True)
class Counts:
    """What became of a dataset's photos. Groups are the photos that the pieces were cut from: as many, but for crops."""

    used: int
    groups: int
    test_groups: int
    train: int
    test: int
    rejected: dict[str, int]  # by kind of reason, most frequent first


@dataclass(frozen=True)
class Results:
    """One dataset's. Tables have the columns of the files that they were read from; `history` and `timings` also `model`."""

    dataset: str
    settings: dict[str, Any]
    machines: dict[str, str]  # of each trained model
    counts: Counts
    scores: pd.DataFrame
    photos: pd.DataFrame
    notes: dict[str, Any]
    examples: pd.DataFrame
    pictures: dict[str, Photos]  # input, output, truth
    history: pd.DataFrame
    timings: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """The trained ones: without grey."""
        return list(self.machines)

    def score(self, split: str, model: str) -> "pd.Series[Any]":
        """The row of scores.csv."""
        return self.scores[(self.scores["split"] == split) & (self.scores["model"] == model)].iloc[0]

    def model_history(self, model: str) -> pd.DataFrame:
        return self.history[self.history["model"] == model]


def read(
    dataset: str,
    settings: Mapping[str, Any],
    metrics: Path,
    cache: Path,
    models: Mapping[str, Path],
    timings: Mapping[str, Path],
) -> Results:
    """The results of `dataset` out of the folders of its stages; `models` and `timings` are by model name.

    `settings` are those of data and evaluation; those of training are in the models' cards. Raises UserError for a file that
    is missing.
    """
    cards = {name: json.loads(_there(folder / "model.json").read_text()) for name, folder in models.items()}
    trained: dict[str, Any] = {}
    for card in cards.values():
        trained |= card["params"]
    scores = _table(metrics / "scores.csv")
    order = scores.assign(split=scores["split"].map(SPLITS.index), model=scores["model"].map(list(NAMES).index))
    with np.load(_there(metrics / "examples.npz")) as arrays:
        pictures = dict(arrays)
    return Results(
        dataset=dataset,
        settings=that_matter(dataset, trained | dict(settings)),
        machines={name: card["machine"] for name, card in cards.items()},
        counts=_count(read_table(cache / "manifest.csv"), read_table(cache / "rejected.csv")),
        scores=scores.loc[order.sort_values(["split", "model"]).index].reset_index(drop=True),
        photos=_table(metrics / "photos.csv"),
        notes=_without({"models"}, json.loads(_there(metrics / "notes.json").read_text())),
        examples=_table(metrics / "examples.csv"),
        pictures=pictures,
        history=_by_model({name: folder / "history.csv" for name, folder in models.items()}),
        timings=_by_model(timings),
    )


def that_matter(dataset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` in their order, without those that change no result and without what tells of a machine: paths, devices."""
    idle = {
        "wgan": {"penalty_weight" if settings["wgan"]["constraint"] == "clip" else "clip"},
        "evaluate": {"batch_size", "inception_weights", "examples"},
    }
    unset = {key for key, value in settings["data"][dataset].items() if value is None}
    source = _without({"path"} | unset, settings["data"][dataset])
    rest = ("generator", "discriminator", "augment", "train", "gan", "wgan", "evaluate")
    kept = {name: _without(idle.get(name, set()), settings[name]) for name in rest}
    return {"recipe": settings["recipe"], "data": settings["data"] | {dataset: source}} | kept


def _without(keys: set[str], section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


def _count(manifest: pd.DataFrame, rejected: pd.DataFrame) -> Counts:
    splits = manifest["split"].value_counts()
    reasons = Counter(map(kind, rejected["reason"])).most_common()
    return Counts(
        used=len(manifest),
        groups=manifest["group"].nunique(),
        test_groups=manifest.loc[manifest["split"] == "test", "group"].nunique(),
        train=int(splits.get("train", 0)),
        test=int(splits.get("test", 0)),
        rejected=dict(reasons),
    )


def _by_model(paths: Mapping[str, Path]) -> pd.DataFrame:
    return pd.concat([_table(path).assign(model=name) for name, path in paths.items()], ignore_index=True)


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(_there(path))


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is missing: `dvc repro` makes it")
    return path
