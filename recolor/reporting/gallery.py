"""A page of a dataset's test photos, for looking: input, what each model made of it, truth; to sort by what was measured.

One HTML file with pictures beside it. It opens from disk and asks nothing of anybody.
"""

import importlib.resources
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recolor.core.errors import UserError
from recolor.core.progress import progress
from recolor.core.storage import whole_folder
from recolor.dataset.shards import CachedPhotos, read_table
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.models.checkpoint import load_generator
from recolor.models.export import check_evaluated
from recolor.runtime.devices import Device, Machine

PAGE, PICTURES = "index.html", "pictures"
INPUT, TRUTH = "input", "truth"
GREY = "grey"  # what the evaluation calls the input: doing nothing
NAMES = {INPUT: "Input", "gan": "GAN", "wgan": "WGAN", TRUTH: "Truth"}
BATCH = 16
MEASURED = ("psnr", "colourfulness", "colourfulness_true")
QUALITY: dict[str, Any] = {"quality": 95, "subsampling": "4:4:4"}  # of JPEG: the pictures are there for their colours


Rows = Sequence[Mapping[Any, Any]]  # of photos.csv, of one model, in the order of the split


class Picture(NamedTuple):
    """One version of a photo; `psnr` and `colourfulness` are None where they were not measured."""

    name: str
    file: str
    psnr: float | None
    colourfulness: float | None


class Photo(NamedTuple):
    """A photo of the test split: its place there, its versions, and the value of each key that it can be sorted by."""

    row: int
    name: str
    pictures: list[Picture]
    keys: dict[str, float | None]


def write_gallery(
    out: Path,
    dataset: str,
    cache: Path,
    models: Mapping[str, Path],
    metrics: Path,
    limit: int = 200,
    device: Device = "auto",
) -> int:
    """Writes the gallery of `cache`'s test photos into the folder `out`, and returns how many it shows.

    Of more than `limit` photos it shows as many, from all over the split. `models` are folders by name, `metrics` is the
    folder of their evaluation. A gallery in `out` is replaced; raises UserError where anything else is in it, for scores
    of other photos or models, and for what is missing.
    """
    if out.exists() and (not out.is_dir() or not {path.name for path in out.iterdir()} <= {PAGE, PICTURES}):
        raise UserError(f"{out}: holds something else than a gallery; name another folder with --out")
    photos = CachedPhotos(cache, "test")
    measured = _measured(metrics / "photos.csv", photos, list(models))
    for folder in models.values():
        check_evaluated(metrics, folder)
    rows = np.unique(np.linspace(0, len(photos) - 1, min(limit, len(photos))).round().astype(int))
    where = Machine.find(device).device
    generators = {name: load_generator(folder, where) for name, folder in models.items()}
    with whole_folder(out, f"the gallery of {dataset}") as folder:
        (folder / PICTURES).mkdir()
        for row, pictures in _coloured(photos, rows.tolist(), generators, where):
            for name, picture in pictures.items():
                Image.fromarray(picture).save(folder / _file(row, name), **QUALITY)
        shown = [_photo(row, measured, list(models)) for row in rows.tolist()]
        (folder / PAGE).write_text(_page(dataset, shown, len(photos), photos.shape[-1]), "utf-8")
    return len(shown)


def _measured(file: Path, photos: CachedPhotos, models: Sequence[str]) -> dict[str, Rows]:
    """The rows of `file` for each model, held against the photos that are to be shown."""
    if not file.is_file():
        raise UserError(f"{file} is missing: `dvc repro` makes it")
    table = read_table(file)
    table = table[table["split"] == "test"].astype(dict.fromkeys(MEASURED, float))
    measured = {model: table[table["model"] == model].sort_values("row") for model in (*models, GREY)}
    for model, rows in measured.items():
        if list(rows["path"]) != list(photos.manifest["path"]):
            raise UserError(f"{file}: does not speak of {model} on the photos of {photos.directory}; run `dvc repro`")
    return {model: rows.to_dict("records") for model, rows in measured.items()}


@torch.inference_mode()
def _coloured(
    photos: CachedPhotos, rows: Sequence[int], generators: Mapping[str, torch.nn.Module], device: torch.device
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Each row with its pictures, (H, W, 3) 8-bit RGB, by name."""

    def rgb(lab: Tensor) -> np.ndarray:
        picture: np.ndarray = lab_to_rgb(lab).permute(0, 2, 3, 1).cpu().numpy()
        return picture

    for start in progress(range(0, len(rows), BATCH), desc="gallery"):
        batch = rows[start : start + BATCH]
        lab = photos[batch].to(device)
        lightness = lab[:, :1]
        pictures = {INPUT: rgb(torch.cat([lightness, torch.zeros_like(lab[:, 1:])], dim=1))}
        for name, generator in generators.items():
            pictures[name] = rgb(into_gamut(torch.cat([lightness, generator(lightness)], dim=1)))
        pictures[TRUTH] = rgb(lab)
        for place, row in enumerate(batch):
            yield row, {name: several[place] for name, several in pictures.items()}


def _file(row: int, name: str) -> str:
    return f"{PICTURES}/{row:05d}-{name}.jpg"


def _photo(row: int, measured: Mapping[str, Rows], models: Sequence[str]) -> Photo:
    """What the page says of one row."""
    first = measured[models[0]][row]
    name = f"{first['path']} [{first['crop']}]" if first["crop"] else first["path"]
    grey = measured[GREY][row]
    psnr = {model: measured[model][row]["psnr"] for model in models} | {INPUT: grey["psnr"]}
    coloured = {model: measured[model][row]["colourfulness"] for model in models} | {TRUTH: first["colourfulness_true"]}
    colourfulness = coloured | {INPUT: grey["colourfulness"]}
    versions = [INPUT, *models, TRUTH]
    pictures = [Picture(_title(name), _file(row, name), psnr.get(name), colourfulness.get(name)) for name in versions]
    keys = _keys("PSNR", psnr) | _keys("Colourfulness", coloured)
    return Photo(row, name, pictures, {"Order of the split": row} | keys)


def _keys(metric: str, values: Mapping[str, float]) -> dict[str, float | None]:
    """`values` and the differences of each two; None, which JSON has and infinity not, where there is no finite one."""
    keys = {f"{metric}: {_title(name)}": value for name, value in values.items()}
    for (one, first), (other, second) in combinations(values.items(), 2):
        keys[f"{metric}: {_title(one)} - {_title(other)}"] = first - second
    return {key: value if math.isfinite(value) else None for key, value in keys.items()}


def _title(name: str) -> str:
    return NAMES.get(name, name)


def _page(dataset: str, photos: Sequence[Photo], total: int, size: int) -> str:
    template = (importlib.resources.files("recolor.reporting") / "templates" / "gallery.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        dataset=dataset, photos=photos, total=total, size=size, keys=list(photos[0].keys)
    )
