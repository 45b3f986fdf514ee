"""What the stages wrote for one dataset, read for the report. Computes nothing but counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recolor.core.tables import read_arrays, read_json, reading
from recolor.dataset.shards import CacheCounts, read_table
from recolor.evaluation.examples import ARRAYS
from recolor.evaluation.metrics import SPLITS
from recolor.evaluation.scored import check_rows
from recolor.models.objectives import ADVERSARIAL, MODELS
from recolor.models.pictures import GREY
from recolor.reporting.figures import Photos

# Settings that change no score, and paths, which are a machine's.
HIDDEN = {"data": {"path"}, "evaluate": {"batch_size", "inception_weights", "examples"}}


@dataclass(frozen=True)
class Results:
    """The results of one dataset. Tables have the columns of their files; `history` and `timings` also `model`."""

    dataset: str
    settings: dict[str, Any]
    machines: dict[str, str]  # of each trained model that was scored
    counts: CacheCounts
    scores: pd.DataFrame
    photos: pd.DataFrame
    notes: dict[str, Any]
    examples: pd.DataFrame
    pictures: dict[str, Photos]  # input, output, truth
    history: pd.DataFrame
    timings: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """The trained models: without grey."""
        return list(self.machines)

    def score(self, split: str, model: str) -> "pd.Series[Any]":
        """The row of scores.csv."""
        return self.scores[(self.scores["split"] == split) & (self.scores["model"] == model)].iloc[0]


def read(
    dataset: str,
    settings: Mapping[str, Any],
    metrics: Path,
    cache: Path,
    models: Mapping[str, Path],
    timings: Mapping[str, Path],
) -> Results:
    """The results of `dataset` from the folders of its stages; `models` and `timings` are by model name.

    `settings` are those of data and evaluation. A model without scores is left out. Raises UserError for an unfit file.
    """
    scores = read_table(metrics / "scores.csv", ["split", "model", "photos"], numbers=True)
    models = {name: folder for name, folder in models.items() if name in set(scores["model"])}
    check_rows(metrics / "scores.csv", zip(scores["split"], scores["model"], strict=True), [GREY, *models])
    cards = {name: read_json(folder / "model.json", "machine", "params", "epochs") for name, folder in models.items()}
    epochs = {name: card["epochs"] for name, card in cards.items()}
    trained = {key: value for card in cards.values() for key, value in card["params"].items()}
    order = [*SPLITS, *MODELS]
    examples = read_table(metrics / "examples.csv", ["split", "model", "kind", "row", "psnr", "index"], numbers=True)
    notes = read_json(metrics / "notes.json", "inception")
    measured, used = (int(rows["photos"].sum()) for rows in (scores, scores[scores["model"] == GREY]))
    return Results(
        dataset=dataset,
        settings=shown_settings(dataset, trained | dict(settings)),
        machines={name: card["machine"] for name, card in cards.items()},
        counts=CacheCounts.of(
            read_table(cache / "manifest.csv", ["split", "group"], rows=used),
            read_table(cache / "rejected.csv", ["reason"]),
        ),
        scores=scores.sort_values(["split", "model"], key=lambda names: names.map(order.index), ignore_index=True),
        photos=read_table(metrics / "photos.csv", ["split", "row", "model", "psnr"], True, measured),
        notes=_without({"models"}, notes),
        examples=examples,
        pictures=_arrays(metrics / "examples.npz", len(examples)),
        history=_by_model(epochs, {name: folder / "history.csv" for name, folder in models.items()}, "epoch"),
        timings=_by_model(epochs, timings, "seconds", "photos", "data_wait", "checkpoints"),
    )


def shown_settings(dataset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings behind a dataset's results: the recipe and the sections in use, without values that change no score."""
    unused = HIDDEN | {name: kind.unused(settings[name]) for name, kind in ADVERSARIAL.items() if name in settings}
    data = settings["data"]
    source = {key: value for key, value in _without(HIDDEN["data"], data[dataset]).items() if value is not None}
    shown = {"recipe": settings["recipe"], "data": data | {dataset: source}}
    for name, section in settings.items():
        if name not in shown and isinstance(section, Mapping) and section.get("epochs") != 0:
            shown[name] = _without(unused.get(name, set()), section)
    return shown


def _without(keys: set[str], section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


def _by_model(epochs: Mapping[str, int], paths: Mapping[str, Path], *columns: str) -> pd.DataFrame:
    """The tables `paths`, with a row for each of the epochs of a model."""
    tables = [read_table(paths[name], columns, True, count).assign(model=name) for name, count in epochs.items()]
    return pd.concat(tables, ignore_index=True)


def _arrays(path: Path, count: int) -> dict[str, Photos]:
    found = read_arrays(path, *ARRAYS)
    with reading(path):
        if any(found[name].shape[:1] != (count,) for name in ARRAYS):
            raise ValueError("other photos than examples.csv lists")
    return found
