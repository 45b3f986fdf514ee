"""A bundle: a model's folder to give to others, whose `model.json` has the scores too, with the model card `README.md`."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file, is_folder, user_output
from recolor.core.tables import read_json, read_rows, reading
from recolor.evaluation.metrics import METRICS
from recolor.evaluation.scored import check_rows
from recolor.models.folder import architecture, describe, load_generator, read_card, save_generator, weights_sha256
from recolor.models.pictures import GREY
from recolor.reporting.rendering import render


def check_evaluated(metrics: Path, model: Path) -> None:
    """Raises UserError unless the scores in the folder `metrics` belong to the weights in the folder `model`."""
    notes = metrics / "notes.json"
    evaluated = read_json(notes, "models")["models"] if notes.exists() else {}
    if not isinstance(evaluated, dict) or evaluated.get(model.name) != weights_sha256(model):
        raise UserError(f"{model}: not evaluated since it was trained; run `dvc repro`")


def read_scores(metrics: Path, model: Path) -> list[dict[str, Any]]:
    """The rows of `metrics`/scores.csv of the folder `model` and of grey, without the columns that were not measured.

    [] where there are no scores yet, and for an untrained model. Raises UserError where they belong to other weights.
    """
    table = metrics / "scores.csv"
    if not table.exists() or read_card(model).get("epochs") == 0:
        return []
    check_evaluated(metrics, model)
    kinds: dict[str, type] = {"split": str, "model": str, "photos": int}
    rows = [row for row in read_rows(table, kinds) if row["model"] in (model.name, GREY)]
    check_rows(table, [(row["split"], row["model"]) for row in rows], [GREY, model.name])
    with reading(table):
        return [{key: kinds.get(key, float)(value) for key, value in row.items() if value} for row in rows]


def score_line(score: Mapping[str, Any]) -> str:
    """The headline scores of a row of `read_scores` in one line."""
    shown = [metric for metric in METRICS.values() if metric.headline and metric.name in score]
    return ", ".join(f"{metric.label} {metric.shown(score[metric.name])} {metric.unit}".rstrip() for metric in shown)


def export(
    model: Path,
    out: Path,
    scores: Sequence[Mapping[str, Any]],
    force: bool = False,
    float16: bool = False,
    made: Mapping[str, str] | None = None,
) -> None:
    """Writes the bundle of the folder `model` into `out`, with float16 weights if `float16`.

    `made`: how the model was made, beyond its card: commit, machine, hours. UserError where `out` is not empty, unless `force`.
    """
    generator, card = load_generator(model), read_card(model)
    if os.path.lexists(out) and not is_folder(out):
        raise UserError(f"{out}: is a file, and a bundle is a folder; name another")
    if os.path.realpath(out) == os.path.realpath(model):
        raise UserError(f"{out}: is the model itself; name another folder")
    card |= {"scores": list(scores) or card.get("scores", [])}
    if made:
        card["made"] = dict(made)
    text = model_card(card)
    with user_output(out, force):
        save_generator(out, generator, card, torch.float16 if float16 else torch.float32)
        with atomic_file(out / "README.md", "the model card") as path:
            path.write_text(text)


def model_card(card: Mapping[str, Any]) -> str:
    """A model's README.md, from its `model.json`."""
    scores = [row for row in card.get("scores", []) if row.get("model") in (card.get("model"), GREY)]
    columns = [(metric, *column) for metric in METRICS.values() for column in metric.columns.items()]
    return render(
        "model_card.md",
        card=card,
        network=architecture(card).description,
        training=describe(card),
        scores=scores,
        columns=[(metric, name, heading) for metric, name, heading in columns if any(name in row for row in scores)],
        versions=", ".join(f"{name} {number}" for name, number in card.get("versions", {}).items())
        or "unknown versions",
        settings=json.dumps(card.get("params", {}), indent=2),
    )
