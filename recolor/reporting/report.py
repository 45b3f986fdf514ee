"""Writes the report: text, tables and figures of measured scores. Computes nothing."""

import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic_core import to_json

from recolor.core.errors import UserError
from recolor.core.storage import check_disk_space, synchronise
from recolor.core.tables import write_table
from recolor.evaluation.metrics import METRICS, SPLITS
from recolor.models.objectives import MODELS
from recolor.models.pictures import GREY
from recolor.reporting.figures import bars, curves, image_grid, tradeoff
from recolor.reporting.markdown import PAPER, PAPER_SOURCE, results_markdown, timings_markdown
from recolor.reporting.results import Results

PACKAGES = ("torch", "torchvision", "torchmetrics", "clean-fid", "scikit-image", "numpy", "pandas", "dvc")
FIGURE_PHOTO = 176  # pixels wide


def write(results: Sequence[Results], loss: str, out: Path) -> None:
    """Writes the whole report into `out`; `loss` names the headline's model.

    All is made in `out/.new` first, so a failure leaves the previous report complete. The same results give the same bytes,
    except for timings.md.
    """
    if loss not in (models := results[0].models):
        raise UserError(f"loss: got {loss!r}; must be {' or '.join(models)}")
    new = out / ".new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        with check_disk_space("the report", out):
            _write(results, loss, new)
            synchronise(new)
            _replace(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write(results: Sequence[Results], loss: str, new: Path) -> None:
    (new / "figures").mkdir(parents=True)
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    (new / "results.md").write_text(results_markdown(results, loss, versions), encoding="utf-8")
    (new / "timings.md").write_text(timings_markdown(results), encoding="utf-8")
    _write_json(new / "results.json", _machine_readable(results, loss, versions))
    _write_json(new / "metrics.json", headline(results, loss))
    write_table(_labelled({result.dataset: result.scores for result in results}), new / "results.csv")
    write_table(_labelled({result.dataset: result.history for result in results}), new / "history.csv")
    for result in results:
        for name, picture in figures(result).items():
            picture.save(new / "figures" / f"{result.dataset}-{name}.png")


def headline(results: Sequence[Results], loss: str) -> dict[str, float]:
    """What `dvc metrics diff` compares: dataset.split.score of the model that `loss` names, where it was measured."""
    return {
        f"{result.dataset}.{split}.{name}": float(value)
        for result in results
        for split in SPLITS
        for name, value in result.score(split, loss)[list(METRICS)].items()
        if math.isfinite(value)
    }


def figures(result: Results) -> dict[str, Image.Image]:
    """Every figure of a dataset, by name."""
    histories = {model: result.history[result.history["model"] == model] for model in result.models}
    drawn = {"scores": bars(result.scores), "tradeoff": tradeoff(result.scores), "curves": curves(histories)}
    examples = dict(iter(result.examples.groupby(["model", "split", "kind"])))
    for model in result.models:
        for split in SPLITS:
            drawn[f"{model}-{split}"] = _grid(result, model, examples[model, split, "fixed"])
        best, worst = (examples[model, "test", kind] for kind in ("best", "worst"))
        half = (len(best) + 1) // 2  # side by side, as wide as the other grids
        drawn[f"{model}-extremes"] = _grid(result, model, pd.concat([best[:half], worst[:half]]))
    return drawn


def _grid(result: Results, model: str, examples: pd.DataFrame) -> Image.Image:
    grey = result.photos[result.photos["model"] == GREY].set_index(["split", "row"])["psnr"]
    captions = [
        f"{'' if row['kind'] == 'fixed' else row['kind'] + ' '}{row['psnr']:.1f} dB (grey {grey[row['split'], row['row']]:.1f})"
        for row in examples.to_dict("records")
    ]
    rows = {"input L": "input", MODELS[model].label: "output", "truth": "truth"}
    return image_grid(
        {label: _shrunk(result.pictures[name][examples["index"]]) for label, name in rows.items()}, captions
    )


def _shrunk(photos: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) photos at a figure's size: six in a row fill a page, and git keeps every version of them."""
    if photos.shape[2] <= FIGURE_PHOTO:
        return photos
    size = (FIGURE_PHOTO, round(photos.shape[1] * FIGURE_PHOTO / photos.shape[2]))
    return np.stack([np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)) for photo in photos])


def _machine_readable(results: Sequence[Results], loss: str, versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "loss": loss,
        "recipe": results[0].settings["recipe"],
        "datasets": {
            result.dataset: {
                "counts": asdict(result.counts),
                "scores": result.scores.to_dict("records"),
                "notes": result.notes,
                "machines": result.machines,
                "params": result.settings,
            }
            for result in results
        },
        "paper": {
            "source": PAPER_SOURCE,
            "scores": [{"split": split, "model": model, **scores} for (split, model), scores in PAPER.items()],
        },
        "versions": versions,
    }


def _labelled(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of the datasets' `tables`, with the columns dataset and model in front."""
    labelled = [table.assign(dataset=dataset).set_index(["dataset", "model"]) for dataset, table in tables.items()]
    return pd.concat(labelled).reset_index()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON, with null for what was not measured or is infinite, which JSON does not have."""
    path.write_bytes(to_json(content, indent=2, inf_nan_mode="null") + b"\n")


def _replace(new: Path, out: Path) -> None:
    """Moves every file of `new` to its place under `out`, and removes the figures that are not in `new`."""
    for old in (out / "figures").glob("*"):
        if not (new / "figures" / old.name).exists():
            old.unlink()
    (out / "figures").mkdir(exist_ok=True)
    for path in filter(Path.is_file, new.rglob("*")):  # shutil.copytree would set the folders' permissions too
        path.replace(out / path.relative_to(new))
