"""Contact sheets of test photos for looking at one by one, and the table into which the faults are written.

They show the photos of a dataset, which may not be published: the folder must lie outside the repository.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from docs.study import measure
from docs.study.grid import read_runs
from docs.study.running import ROOT, model_folder
from recolor.core.errors import UserError
from recolor.dataset.shards import CachedPhotos
from recolor.images.color import into_gamut
from recolor.models.pictures import to_rgb
from recolor.runtime.context import RuntimeContext

COUNT, COLUMNS = 100, 5  # photos; cells in a row and rows in a sheet: 25 a sheet
LINE = 14  # pixels, for a number
SEED = 42
FAULTS = ("blot", "grid", "bleeding", "one tint", "wrong but plausible", "right")
TABLE = "faults.csv"


@torch.inference_mode()
def write_sheets(study: Path, out: Path, side: int) -> list[Path]:
    """Writes NAME-1.png ... for every model: 25 numbered cells of input, output and truth, `side` pixels each.

    The photos are the same for all models. faults.csv has a row for each model and photo, with an empty column `fault`; one
    that exists keeps its rows. Raises UserError for a folder inside the repository.
    """
    if out.resolve().is_relative_to(ROOT.resolve()):
        raise UserError(f"{out}: lies in the repository; name a folder outside, the photos must not be published")
    out.mkdir(parents=True, exist_ok=True)
    photos = CachedPhotos(study / "cache", "test")
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(photos))[:COUNT])
    device, sheets = RuntimeContext.find().device, []
    rows = _read(out / TABLE)
    for run in read_runs(study / "runs").values():
        colour = measure.model(model_folder(study, run), study / "cache", device)
        for number, part in enumerate(np.array_split(chosen, -(-len(chosen) // COLUMNS**2)), 1):
            lab = photos[part].to(device)
            ab = colour(lab)
            kinds = [torch.zeros_like(ab), ab, lab[:, 1:]]
            columns = [_small(to_rgb(into_gamut(torch.cat([lab[:, :1], kind], 1))), side) for kind in kinds]
            sheets.append(out / f"{run.name}-{number}.png")
            _sheet(columns, (number - 1) * COLUMNS**2 + 1, side).save(sheets[-1])
        for position, row in enumerate(chosen, 1):
            rows.setdefault((run.name, str(position)), {"path": photos.manifest["path"][row], "fault": ""})
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "number", "path", "fault"])
        writer.writerows([*key, row["path"], row["fault"]] for key, row in rows.items())
    return sheets


def count_faults(sheets: Path, out: Path) -> None:
    """Counts the filled rows of faults.csv by model and kind, into a table of the same name without the photos' names."""
    rows = _read(sheets / TABLE)
    unknown = {row["fault"] for row in rows.values()} - {"", *FAULTS}
    if unknown:
        raise UserError(f"{sheets / TABLE}: fault: got {min(unknown)!r}; must be one of {', '.join(FAULTS)}")
    counts = Counter((name, row["fault"]) for (name, _), row in rows.items() if row["fault"])
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "photos", *FAULTS])
        for name in dict.fromkeys(name for name, _ in counts):
            found = [counts[name, fault] for fault in FAULTS]
            writer.writerow([name, sum(found), *found])


def _read(table: Path) -> dict[tuple[str, str], dict[str, str]]:
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {(row["name"], row["number"]): row for row in csv.DictReader(file)}


def _small(rgb: Tensor, side: int) -> list[Image.Image]:
    pictures = [Image.fromarray(picture) for picture in rgb.permute(0, 2, 3, 1).cpu().numpy()]
    return [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]


def _sheet(columns: list[list[Image.Image]], first: int, side: int) -> Image.Image:
    width, height = len(columns) * side + 8, side + LINE + 4
    sheet = Image.new("RGB", (COLUMNS * width, COLUMNS * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, cell in enumerate(zip(*columns, strict=True)):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        draw.text((left, top), f"{first + place}", "black")
        for column, picture in enumerate(cell):
            sheet.paste(picture, (left + column * side, top + LINE))
    return sheet
