"""A page of a dataset's test photos: input, each model's output and truth, to be sorted by any score. Opens from disk."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recolor.core.devices import find_device
from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.storage import atomic_folder, is_folder, user_output
from recolor.dataset.shards import CachedPhotos, read_table
from recolor.evaluation.metrics import ImageMetric, image_metrics
from recolor.models.folder import load_generator
from recolor.models.fusing import for_inference
from recolor.models.objectives import MODELS
from recolor.models.pictures import GREY, TRUTH, coloured_arrays
from recolor.reporting.bundle import check_evaluated
from recolor.reporting.rendering import render

PAGE, PICTURES = "index.html", "pictures"
TITLES = {name: model.label for name, model in MODELS.items()} | {GREY: "Input", TRUTH: "Truth"}
BATCH = 16
QUALITY: dict[str, Any] = {"quality": 95, "subsampling": "4:4:4"}  # of JPEG, for the colours

Rows = Sequence[Mapping[Any, Any]]  # of photos.csv, for one model, in the order of the split


def write_gallery(
    out: Path,
    dataset: str,
    cache: Path,
    models: Mapping[str, Path],
    metrics: Path,
    limit: int = 200,
    device: str = "auto",
) -> int:
    """Writes the gallery of `cache`'s test photos into the folder `out`, and returns the number of photos.

    Of more than `limit` photos it shows `limit`, evenly spaced. `models` are folders by name, `metrics` is the folder of their
    evaluation. Raises UserError where `out` holds anything but a gallery, and for missing scores or those of others.
    """
    if os.path.lexists(out) and (not is_folder(out) or not {path.name for path in out.iterdir()} <= {PAGE, PICTURES}):
        raise UserError(f"{out}: holds something else than a gallery; name another folder with --out")
    photos = CachedPhotos(cache, "test")
    measured = _measured(metrics / "photos.csv", photos, list(models))
    for folder in models.values():
        check_evaluated(metrics, folder)
    rows = np.unique(np.linspace(0, len(photos) - 1, min(limit, len(photos))).round().astype(int)).tolist()
    found = find_device(device, "--device")
    generators = {name: for_inference(load_generator(folder, found)) for name, folder in models.items()}
    with user_output(out), atomic_folder(out, f"the gallery of {dataset}") as folder:
        (folder / PICTURES).mkdir()
        for start in progress_bar(range(0, len(rows), BATCH), desc="gallery"):
            batch = rows[start : start + BATCH]
            for name, pictures in coloured_arrays(photos[batch].to(found), generators).items():
                for row, picture in zip(batch, pictures, strict=True):
                    Image.fromarray(picture).save(folder / _file(row, name), **QUALITY)
        shown = [_photo(row, measured, list(models)) for row in rows]
        page = {"photos": shown, "total": len(photos), "size": photos.shape[-1], "measures": list(shown[0]["measures"])}
        (folder / PAGE).write_text(render("gallery.html", dataset=dataset, **page), "utf-8")
    return len(shown)


def _shown_metrics() -> list[ImageMetric]:
    return [metric for metric in image_metrics() if metric.headline]


def _measured(file: Path, photos: CachedPhotos, models: Sequence[str]) -> dict[str, Rows]:
    """The rows of `file` for grey and each model, which must be those of `photos`."""
    columns = [column for metric in _shown_metrics() for column in metric.columns]
    table = read_table(file, ["split", "model", "row", "path", *columns])
    table = table[table["split"] == "test"].astype(dict.fromkeys(columns, float))
    measured = {model: table[table["model"] == model].sort_values("row") for model in (*models, GREY)}
    for model, rows in measured.items():
        if list(rows["path"]) != list(photos.manifest["path"]):
            raise UserError(f"{file}: its rows of {model} are not the photos of {photos.directory}; run `dvc repro`")
    return {model: rows.to_dict("records") for model, rows in measured.items()}


def _file(row: int, name: str) -> str:
    return f"{PICTURES}/{row:05d}-{'input' if name == GREY else name}.jpg"


def _photo(row: int, measured: Mapping[str, Rows], models: Sequence[str]) -> dict[str, Any]:
    """What the page shows of a photo: its versions with their scores, and the measures that it can be sorted by."""
    first = measured[GREY][row]
    name = f"{first['path']} [{first['crop']}]" if first["crop"] else first["path"]
    measures: dict[str, float | None] = {"Order of the split": row}
    captions: dict[str, list[str]] = {version: [] for version in (GREY, *models, TRUTH)}
    for metric in _shown_metrics():
        values = {model: measured[model][row][metric.name] for model in (*models, GREY)}
        if metric.better == "truth":
            values[TRUTH] = first[f"{metric.name}_true"]
        for version, value in values.items():
            captions[version].append(" ".join(filter(None, (metric.label, metric.shown(value), metric.unit))))
        reference = TRUTH if metric.better == "truth" else GREY
        measures |= _measures(metric, {version: values[version] for version in (*models, reference)})
    pictures = [
        {"name": TITLES[version], "file": _file(row, version), "scores": ", ".join(scores)}
        for version, scores in captions.items()
    ]
    return {"name": name, "pictures": pictures, "measures": measures}


def _measures(metric: ImageMetric, values: Mapping[str, float]) -> dict[str, float | None]:
    """`values` and the differences of each two, scaled; None, for JSON, where one is not finite."""
    scaled = {f"{metric.label}: {TITLES[name]}": value * metric.scale for name, value in values.items()}
    for (one, first), (other, second) in combinations(values.items(), 2):
        scaled[f"{metric.label}: {TITLES[one]} - {TITLES[other]}"] = (first - second) * metric.scale
    return {key: value if math.isfinite(value) else None for key, value in scaled.items()}
