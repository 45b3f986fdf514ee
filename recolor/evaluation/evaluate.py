"""Scores the models of a dataset, and `grey` (ab = 0): one pass over every photo, then tables and example pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.params import Section, expandable
from recolor.core.storage import atomic_folder
from recolor.core.tables import write_table
from recolor.dataset.batches import read_ahead
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation.examples import choose_examples, write_examples
from recolor.evaluation.features import FeatureNetwork, Lite0
from recolor.evaluation.image_metrics import bootstrap, pooled_psnr
from recolor.evaluation.inception import Inception, WeightsUnavailableError, find_weights
from recolor.evaluation.metrics import SPLITS, ImageMetric, image_metrics, set_metrics
from recolor.evaluation.scored import check_trained_on
from recolor.evaluation.set_metrics import Features
from recolor.models.folder import load_generator, weights_sha256
from recolor.models.fusing import for_inference
from recolor.models.pictures import GREY, TRUTH, colourings, in_pieces, to_rgb
from recolor.runtime.context import RuntimeContext, RuntimeParams, determinism, retain_heap
from recolor.runtime.distributed import DistributedContext

READERS = 2  # threads that read batches while one is measured
OFF = "evaluate.inception is off, in params.yaml or this dataset's overrides; set auto or required to compute them"


class EvaluateParams(Section, frozen=True):
    """Section `evaluate`."""

    batch_size: int = Field(ge=1, le=4096)
    inception: Literal["auto", "required", "off"]
    inception_weights: Annotated[Path, Field(strict=False), AfterValidator(expandable)] | None  # a string in YAML
    bootstrap: int = Field(ge=100, le=1_000_000)
    examples: int = Field(ge=1, le=64)


@retain_heap()
def evaluate(
    cache: Path, models: Mapping[str, Path], out: Path, params: EvaluateParams, runtime: RuntimeParams, seed: int
) -> pd.DataFrame:
    """Scores grey and `models` (name: folder) on both splits of `cache`, writes the folder `out` and returns the scores.

    `scores.csv` has a row for each split and model, with nothing where a score was not measured; `photos.csv` for each photo
    too. `examples.csv` and `examples.npz` are `write_examples`'s. `notes.json` holds the reason for missing set scores
    (`inception`), the `device`, and the SHA-256 of each model's weights (`models`). A rerun on the same machine writes the same
    bytes; on a GPU with `runtime.deterministic`. The main process writes, the others return an empty table. Raises UserError
    for a cache, model or weight file that cannot be used, and where `inception: required` finds no weights.
    """
    context = RuntimeContext.find(runtime.device)
    distributed = context.distributed
    inception, why_not = _load_inception(params, context.device, distributed)
    networks = [Lite0(context.device), *inception]
    generators = {name: for_inference(load_generator(folder, context.device)) for name, folder in models.items()}
    weights = {name: weights_sha256(folder) for name, folder in models.items()}
    splits: dict[str, CachedPhotos] = {split: CachedPhotos(cache, split) for split in SPLITS}
    check_trained_on(cache, models)

    tables, scores = [], []
    with determinism(runtime.deterministic, strict=False):
        for photos in splits.values():
            table, features = _measure(photos, generators, networks, params.batch_size, context)
            tables.append(table)
            if distributed.is_main:
                scores += [_score(rows, features, params, seed) for _, rows in table.groupby("model", sort=False)]
        if not distributed.is_main:
            return pd.DataFrame()
        summary, table = pd.DataFrame(scores), pd.concat(tables, ignore_index=True)
        with atomic_folder(out, "the scores") as folder:
            write_table(summary, folder / "scores.csv")
            write_table(table.drop(columns="group"), folder / "photos.csv")
            examples = choose_examples(table, params.examples, seed)
            write_examples(examples, splits, generators, context.device, params.batch_size, folder)
            notes = {"inception": why_not, "device": str(context), "models": weights}
            (folder / "notes.json").write_text(json.dumps(notes, indent=2) + "\n")
    return summary


def _load_inception(
    params: EvaluateParams, device: torch.device, distributed: DistributedContext
) -> tuple[list[FeatureNetwork], str | None]:
    """[Inception], or [] and the reason. Where one process has no weights, none uses them."""
    weights, why_not = dict[str, Path](), ""
    if params.inception == "off":
        why_not = OFF
    else:
        try:
            weights = find_weights(params.inception_weights)
        except WeightsUnavailableError as error:
            if params.inception == "required":
                raise
            why_not = str(error)
    if missing := next(filter(None, distributed.all_gather(why_not)), None):
        return [], missing
    return [Inception(weights, device)], None


def _batches(photos: CachedPhotos, size: int, context: RuntimeContext) -> Iterator[tuple[int, Tensor]]:
    """This process's batches, verified: their first row and (B, 3, H, W) float32 on the device. Raises CacheError."""
    distributed = context.distributed
    starts = range(0, len(photos), size)[distributed.rank :: distributed.world_size]

    def read(start: int) -> Tensor:
        return photos.verified(range(start, min(start + size, len(photos))))

    shown = progress_bar(starts, desc=f"evaluate {photos.split}") if distributed.is_main else starts
    for start, half in zip(starts, read_ahead(read, shown, context.device, READERS), strict=True):
        yield start, half.float()


def _measure(
    photos: CachedPhotos,
    generators: Mapping[str, nn.Module],
    networks: list[FeatureNetwork],
    batch_size: int,
    context: RuntimeContext,
) -> tuple[pd.DataFrame, dict[tuple[str, str], Features]]:
    """The rows of photos.csv of a split, each with its photo's group, and features by picture (truth, grey, model) and name.

    Raises UserError for colours that are not finite.
    """
    metrics, models = image_metrics(), [GREY, *generators]
    columns = [column for metric in metrics for column in metric.columns]
    values = np.zeros((len(models), len(photos), len(columns)))
    sizes = {key: size for network in networks for key, size in network.sizes.items()}
    names = product((TRUTH, *models), sizes)
    features = {(name, key): np.zeros((len(photos), sizes[key]), np.float32) for name, key in names}
    for start, lab in _batches(photos, batch_size, context):
        rows = slice(start, start + len(lab))
        coloured = colourings(lab, generators)
        for model in models:
            if not coloured[model].isfinite().all():
                raise UserError(f"model {model} gives colours that are not numbers (NaN): its weights cannot be used")
        pictures = {name: to_rgb(colours) for name, colours in coloured.items()}
        values[:, rows] = _scores(pictures, models, metrics).cpu().numpy()
        for name, picture in pictures.items():
            for network in networks:
                for key, of_batch in network(picture).items():
                    features[name, key][rows] = of_batch.cpu().numpy()
    # Each process has filled its rows and left 0 in the others'.
    context.distributed.all_reduce_sum(values, *features.values())
    known = photos.manifest.assign(row=range(len(photos)))[["split", "row", "path", "crop", "group"]]
    scores = [pd.DataFrame(of_model, columns=columns) for of_model in values]
    tables = [known.assign(model=model).join(table) for model, table in zip(models, scores, strict=True)]
    return pd.concat(tables, ignore_index=True), features


def _scores(pictures: Mapping[str, Tensor], models: Sequence[str], metrics: Sequence[ImageMetric]) -> Tensor:
    """The values of a batch, (models, B, columns)."""
    truth, columns = pictures[TRUTH], []
    for metric in metrics:
        columns.append([in_pieces(metric.compute, pictures[model], truth) for model in models])
        if metric.better == "truth":
            columns.append([in_pieces(metric.compute, truth, truth)] * len(models))
    return torch.stack([torch.stack(column) for column in columns], dim=2)


def _score(
    rows: pd.DataFrame, features: Mapping[tuple[str, str], Features], params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """The row of scores.csv of one model on one split, from its rows of photos.csv."""
    split, model = rows[["split", "model"]].iloc[0]
    score: dict[str, Any] = {"split": split, "model": model, "photos": len(rows)}
    metrics = image_metrics()
    values = rows[[metric.name for metric in metrics]].to_numpy()
    ends = bootstrap(values, rows["group"].to_numpy(), params.bootstrap, seed)
    for metric, low_end, high_end in zip(metrics, *ends, strict=True):
        score |= {column: rows[column].mean() for column in metric.columns}
        score |= {f"{metric.name}_low": low_end, f"{metric.name}_high": high_end}
    score["psnr_pooled"] = pooled_psnr(rows["psnr"])
    for of_set in set_metrics():
        value, deviation = np.nan, np.nan
        if (model, of_set.features) in features and len(rows) >= of_set.minimum:
            output, truth = (features[name, of_set.features] for name in (model, TRUTH))
            value, deviation = of_set.compute(output, truth, seed)
        score |= {of_set.name: value, f"{of_set.name}_std": deviation}
    return score
