"""Scores the models of a dataset: one walk over every photo of its cache, and the tables and pictures that it leaves.

Beside the models stands `grey`, the do-nothing row: ab = 0. PSNR and SSIM reward it, colourfulness and FID show what it lacks.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from recolor.core.errors import UserError
from recolor.core.params import Section, expandable
from recolor.core.progress import progress
from recolor.core.storage import whole_folder
from recolor.dataset.shards import CachedPhotos, Split, write_table
from recolor.evaluation.examples import Examples, write_examples
from recolor.evaluation.image_metrics import bootstrap, colourfulness, psnr, squared_error, ssim
from recolor.evaluation.inception import (
    SET_SCORES,
    FeatureSet,
    Inception,
    WeightsUnavailableError,
    find_weights,
    set_scores,
)
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.models.checkpoint import load_generator, read_card, weights_sha256
from recolor.runtime.devices import Machine, RuntimeParams, determinism, memory_kept
from recolor.runtime.distributed import Crew

SPLITS: tuple[Split, ...] = ("train", "test")
TRUTH, GREY = "truth", "grey"
PER_PHOTO = ["psnr", "ssim", "colourfulness", "colourfulness_distance"]
MEASURED = ["squared_error", "ssim", "colourfulness", "colourfulness_true"]
PIECE = 8  # photos that a CPU's caches hold while their pixels are gone over again and again: three times as fast as 64


class EvaluateParams(Section, frozen=True):
    """Section `evaluate`."""

    batch_size: int = Field(ge=1, le=4096)
    inception: Literal["auto", "required", "off"]
    # Strictly, text would not do.
    inception_weights: Annotated[Path, Field(strict=False), AfterValidator(expandable)] | None
    bootstrap: int = Field(ge=100, le=1_000_000)
    examples: int = Field(ge=1, le=64)


@memory_kept()
def evaluate(
    cache: Path, models: Mapping[str, Path], out: Path, params: EvaluateParams, runtime: RuntimeParams, seed: int
) -> pd.DataFrame:
    """Scores grey and `models` (name: folder) on both splits of `cache`, writes the folder `out` and returns the scores.

    `scores.csv` has a row for each split and model, its intervals drawn alike for every model, and nothing where something was
    not measured; `photos.csv` has one for each photo as well; `examples.csv` and `examples.npz` are `write_examples`'s;
    `notes.json` says why set scores are missing (`inception`), the `device`, and whose scores they are: the SHA-256 of each
    model's weights (`models`). Colourfulness's distance is the mean over photos of the difference from the true photo's. Run
    again on the same machine it writes the same, byte for byte; on a GPU as far as torch has deterministic algorithms (a
    warning names an operation that has none).
    Several processes (crew.py) take turns at the batches; the main one takes the scores and writes, and the others return an
    empty table.

    Raises UserError where the cache is not exactly its manifest's, a model or a weight file cannot be used, or
    `inception: required` finds no weights.
    """
    machine, crew = Machine.find(runtime.device), Crew.find()
    inception, why_not = _load_inception(params, machine.device, crew)
    generators = {
        name: load_generator(folder, machine.device).to(memory_format=torch.channels_last)
        for name, folder in models.items()
    }
    weights = {name: weights_sha256(folder) for name, folder in models.items()}
    splits = [CachedPhotos(cache, split) for split in SPLITS]
    _check_trained_on(cache, models)

    tables, scores, examples = [], [], []
    for photos in splits:
        shown = Examples(photos.manifest, params.examples, seed)
        with determinism(True, strict=False):
            table, features = _walk(photos, generators, inception, shown, params.batch_size, machine.device, crew)
        values_each = int(np.prod(photos.shape))
        models_rows = table.groupby("model", sort=False) if crew.main else ()
        scores += [_score(rows, features, values_each, params, seed) for _, rows in models_rows]
        tables.append(table.drop(columns=["group", "squared_error"]))
        examples.append(shown)

    summary = pd.DataFrame(scores)
    if crew.main:
        summary = summary.astype(dict.fromkeys(SET_SCORES, float))  # None, not measured, becomes NaN
        notes = {"inception": why_not, "device": str(machine), "models": weights}
        _write(out, summary, pd.concat(tables), examples, notes)
    return summary


def _write(
    out: Path, summary: pd.DataFrame, table: pd.DataFrame, examples: list[Examples], notes: dict[str, Any]
) -> None:
    with whole_folder(out, "the scores") as folder:
        summary.to_csv(folder / "scores.csv", index=False)
        write_table(table, folder / "photos.csv")
        write_examples(examples, folder)
        (folder / "notes.json").write_text(json.dumps(notes, indent=2) + "\n")


def _load_inception(params: EvaluateParams, device: torch.device, crew: Crew) -> tuple[Inception | None, str | None]:
    """The networks, or why there are none: what one process lacks, none of them uses."""
    weights, why_not = _find_inception(params)
    missing = [reason for reason in crew.gather(why_not) if reason]
    if weights is None or missing:
        return None, missing[0]
    return Inception(weights, device), None


def _find_inception(params: EvaluateParams) -> tuple[dict[str, Path] | None, str | None]:
    """The networks' weights, or why there are none."""
    if params.inception == "off":
        where = "in params.yaml or in the dataset's overrides"
        return None, f"evaluate.inception is off for this dataset, {where}; auto or required fills them"
    try:
        return find_weights(params.inception_weights), None
    except WeightsUnavailableError as error:
        if params.inception == "required":
            raise
        return None, str(error)


def _walk(
    photos: CachedPhotos,
    generators: Mapping[str, nn.Module],
    inception: Inception | None,
    shown: Examples,
    batch_size: int,
    device: torch.device,
    crew: Crew,
) -> tuple[pd.DataFrame, dict[str, FeatureSet]]:
    """Every photo once through everything. Returns a row for each photo and model, and the features of truth and models.

    Each tensor is held to the manifest as it is read: CacheError.
    """
    count, values_each = len(photos), int(np.prod(photos.shape))
    models = [GREY, *generators]
    measured = np.zeros((len(models), count, len(MEASURED)))
    features = {name: FeatureSet.zeros(count) for name in (TRUTH, *models)} if inception else {}
    starts: Iterable[int] = range(0, count, batch_size)[crew.rank :: crew.size]
    if crew.main:
        starts = progress(starts, desc=f"evaluate {photos.split}")
    for start in starts:
        batch = slice(start, min(start + batch_size, count))
        pictures = _pictures(photos.verified(range(count)[batch]).to(device).float(), generators)
        if inception:
            for name, picture in pictures.items():
                features[name].put(start, inception(picture))
        measured[:, batch] = _measure([pictures[model] for model in models], pictures[TRUTH])
        for model, values in zip(models[1:], measured[1:, batch], strict=True):
            quality = psnr(values[:, 0], values_each)
            shown.offer(model, start, quality, pictures[GREY], pictures[model], pictures[TRUTH])
    # Each process has filled its own rows and left 0 in the others'.
    crew.add_up([measured, *(part for name in features for part in vars(features[name]).values())])
    for others in crew.gather(shown.held):
        shown.take(others)

    known = photos.manifest[["split", "row", "path", "crop", "group"]]
    tables = []
    for model, values in zip(models, measured, strict=True):
        own = pd.DataFrame(values, columns=MEASURED)
        own["colourfulness_distance"] = (own["colourfulness"] - own["colourfulness_true"]).abs()
        tables.append(known.assign(model=model, psnr=psnr(values[:, 0], values_each)).join(own))
    return pd.concat(tables, ignore_index=True), features


def _check_trained_on(cache: Path, models: Mapping[str, Path]) -> None:
    """Refuses a model of another split: it may have trained on this one's test photos."""
    manifest = hashlib.sha256((cache / "manifest.csv").read_bytes()).hexdigest()
    for name, folder in models.items():
        if read_card(folder).get("data", {}).get("manifest_sha256", manifest) != manifest:
            raise UserError(
                f"model {name} was trained on other photos than {cache / 'manifest.csv'} lists: train it again"
            )


@torch.inference_mode()
def _pictures(lab: Tensor, generators: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The 8-bit RGB pictures of truth, grey and each generator, (B, 3, H, W), on `lab`'s device."""
    lightness = lab[:, :1].contiguous(memory_format=torch.channels_last)
    coloured = {TRUTH: lab, GREY: torch.cat([lightness, torch.zeros_like(lab[:, 1:])], dim=1)}
    for name, generator in generators.items():
        ab = generator(lightness)
        if not ab.isfinite().all():
            raise UserError(f"model {name} gives colours that are not numbers: train it again")
        coloured[name] = into_gamut(torch.cat([lightness, ab], dim=1))  # as Colorizer does
    return {name: _in_pieces(lab_to_rgb, picture.contiguous()) for name, picture in coloured.items()}


def _in_pieces(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """`function` of the batches, a few photos at a time on a CPU."""
    piece = PIECE if batches[0].device.type == "cpu" else len(batches[0])
    return torch.cat([function(*pieces) for pieces in zip(*(batch.split(piece) for batch in batches), strict=True)])


def _measure(outputs: list[Tensor], truth: Tensor) -> NDArray[np.float64]:
    """(models, B, len(MEASURED)) values of (B, 3, H, W) 8-bit pictures, which leave the device together."""
    true = _in_pieces(colourfulness, truth)
    values = [
        torch.stack(
            [
                _in_pieces(squared_error, output, truth),
                _in_pieces(ssim, output, truth),
                _in_pieces(colourfulness, output),
                true,
            ],
            dim=1,
        )
        for output in outputs
    ]
    return torch.stack(values).cpu().numpy()


def _score(
    rows: pd.DataFrame, features: dict[str, FeatureSet], values_each: int, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """The row of scores.csv that one model's rows on one split make."""
    split, model = rows[["split", "model"]].iloc[0]
    score: dict[str, Any] = {"split": split, "model": model, "photos": len(rows)}
    score |= set_scores(features[model], features[TRUTH], seed) if features else dict.fromkeys(SET_SCORES)
    low, high = bootstrap(rows[PER_PHOTO].to_numpy(), rows["group"].to_numpy(), params.bootstrap, seed)
    for metric, low_end, high_end in zip(PER_PHOTO, low, high, strict=True):
        score |= {metric: rows[metric].mean(), f"{metric}_low": low_end, f"{metric}_high": high_end}
    score["psnr_pooled"] = psnr(rows["squared_error"].sum(), values_each * len(rows))
    score["colourfulness_true"] = rows["colourfulness_true"].mean()
    return score
