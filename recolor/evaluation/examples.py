"""The photos to look at: for each split and model some photos drawn with the seed, and its best and its worst by PSNR."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from recolor.core.tables import write_table
from recolor.dataset.shards import CachedPhotos
from recolor.models.pictures import GREY, TRUTH, coloured_arrays

ARRAYS = ("input", "output", "truth")


def choose_examples(photos: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """The rows of examples.csv: split, model, kind (fixed, best, worst), row of the split, psnr, index.

    `photos` is photos.csv with its group column. `fixed` are the same photos for every model, from as many groups as possible:
    crops of one photo share their group. `best` and `worst` begin with the very best and worst.
    """
    chosen = []
    for _, table in photos[photos["model"] != GREY].groupby(["split", "model"], sort=False):
        turns = table.sample(frac=1, random_state=seed).groupby("group").cumcount()
        fixed = table.loc[turns.sort_values(kind="stable").index[:count]].sort_values("row")
        ranked = table.sort_values(["psnr", "row"])
        for kind, rows in {"fixed": fixed, "best": ranked[::-1][:count], "worst": ranked[:count]}.items():
            chosen.append(rows[["split", "model", "row", "psnr"]].assign(kind=kind))
    table = pd.concat(chosen, ignore_index=True)[["split", "model", "kind", "row", "psnr"]]
    return table.assign(index=range(len(table)))


def write_examples(
    examples: pd.DataFrame,
    splits: Mapping[str, CachedPhotos],
    generators: Mapping[str, nn.Module],
    device: torch.device,
    batch_size: int,
    out: Path,
) -> None:
    """Writes `examples.csv` and `examples.npz`, whose arrays `input`, `output` and `truth`, (N, H, W, 3) 8-bit RGB, hold the
    pictures of an example at its `index`. The pictures are made again: few photos, and none has to be kept before."""
    first = next(iter(splits.values()))
    arrays = {name: np.empty((len(examples), *first.shape[1:], 3), np.uint8) for name in ARRAYS}
    for key, rows in examples.groupby(["split", "model"], sort=False):
        split, model = map(str, key)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            lab = splits[split][batch["row"].to_numpy()].to(device)
            pictures = coloured_arrays(lab, {model: generators[model]})
            for name, source in zip(ARRAYS, (GREY, model, TRUTH), strict=True):
                arrays[name][batch["index"]] = pictures[source]
    write_table(examples, out / "examples.csv")
    np.savez_compressed(out / "examples.npz", **arrays)  # type: ignore[arg-type]
