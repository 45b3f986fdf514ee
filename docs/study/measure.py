"""Scores of every test photo for one model, and the same model at other strengths of its colours.

As in stage `evaluate`: 8-bit pictures, after `into_gamut`. `strength` multiplies ab, as in `recolor colorize --strength`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from docs.study.running import FULL_MANIFEST
from recolor.core.errors import UserError
from recolor.core.iterators import progress_bar
from recolor.core.storage import atomic_folder, file_sha256
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation.features import FeatureNetwork
from recolor.evaluation.image_metrics import bootstrap, pooled_psnr
from recolor.evaluation.metrics import METRICS, image_metrics, set_metrics
from recolor.evaluation.set_metrics import Features
from recolor.images.color import into_gamut
from recolor.models.folder import load_generator, read_card
from recolor.models.pictures import in_pieces, to_rgb

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
OF_CURVE = ("psnr", "colourfulness")
BATCH = 16
SEED, RESAMPLINGS = 42, 1000  # of the intervals
Colour = Callable[[Tensor], Tensor]  # true photos (B, 3, H, W), normalised Lab, to the predicted ab (B, 2, H, W)


def truth(lab: Tensor) -> Tensor:
    return lab[:, 1:]


def grey(lab: Tensor) -> Tensor:
    return torch.zeros_like(lab[:, 1:])


def model(folder: Path, cache: Path, device: torch.device) -> Colour:
    """The generator of a folder. Raises UserError where it may have trained on test photos of `cache`."""
    manifests = [cache / name for name in ("manifest.csv", FULL_MANIFEST) if (cache / name).exists()]
    known = [file_sha256(manifest) for manifest in manifests]
    if read_card(folder).get("data", {}).get("manifest_sha256") not in known:
        raise UserError(f"{folder}: was trained on another split than {manifests[0]} lists")
    generator = load_generator(folder, device).to(memory_format=torch.channels_last)
    return lambda lab: generator(lab[:, :1].contiguous(memory_format=torch.channels_last))


def measured(
    out: Path,
    made_by: str,
    cache: Path,
    colour: Callable[[], Colour],
    networks: Sequence[FeatureNetwork],
    device: torch.device,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Features]]:
    """Scores of each test photo, of each at every strength, and features (N, D) by name; kept in the folder `out`.

    What `out` holds is used again where it has the same `made_by` (the SHA-256 of the weights), photos and networks.
    """
    manifest = file_sha256(cache / "manifest.csv")
    made_of = [made_by, manifest, *(name for network in networks for name in network.sizes), *map(str, STRENGTHS)]
    if not (out / "key.json").exists() or json.loads((out / "key.json").read_text()) != made_of:
        photos, curve, features = _measure(CachedPhotos(cache, "test"), colour(), networks, device, out.parent.name)
        with atomic_folder(out, "the scores") as folder:
            photos.to_csv(folder / "photos.csv", index=False)
            curve.to_csv(folder / "curve.csv", index=False)
            np.savez(folder / "features.npz", **features)
            (folder / "key.json").write_text(json.dumps(made_of))
    with np.load(out / "features.npz") as arrays:
        return pd.read_csv(out / "photos.csv"), pd.read_csv(out / "curve.csv"), dict(arrays)


@torch.inference_mode()
def _measure(
    photos: CachedPhotos, colour: Colour, networks: Sequence[FeatureNetwork], device: torch.device, name: str
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Features]]:
    scores, curves = [], []
    features: dict[str, list[Features]] = {key: [] for network in networks for key in network.sizes}
    for start in progress_bar(range(0, len(photos), BATCH), desc=f"measure {name}"):
        rows = range(start, min(start + BATCH, len(photos)))
        lab = photos.verified(rows).to(device).float()
        true, ab = to_rgb(lab), colour(lab)
        if not ab.isfinite().all():
            raise UserError(f"{name}: its colours are not numbers")
        for strength in STRENGTHS:
            picture = true if colour is truth else to_rgb(into_gamut(torch.cat([lab[:, :1], strength * ab], dim=1)))
            curves.append(_frame(rows, _scores(picture, true, OF_CURVE)).assign(strength=strength))
            if strength == 1:
                names = [metric.name for metric in image_metrics()]
                scores.append(_frame(rows, _scores(picture, true, names)))
                for network in networks:
                    for key, values in network(picture).items():
                        features[key].append(values.cpu().numpy())
    known = photos.manifest[["path", "group"]]
    return (
        known.join(pd.concat(scores).set_index("row")),
        pd.concat(curves, ignore_index=True),
        {key: np.concatenate(parts) for key, parts in features.items()},
    )


def _scores(picture: Tensor, true: Tensor, names: Sequence[str]) -> dict[str, Any]:
    found = {}
    for metric in image_metrics():
        if metric.name in names:
            found[metric.name] = in_pieces(metric.compute, picture, true).cpu().numpy()
            if metric.better == "truth":
                found[f"{metric.name}_true"] = in_pieces(metric.compute, true, true).cpu().numpy()
    return found


def _frame(rows: range, columns: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"row": list(rows), **columns})


def summary(photos: pd.DataFrame, features: dict[str, Features], true: dict[str, Features]) -> dict[str, Any]:
    """The scores of a model with 95% intervals, by the names of scores.csv."""
    metrics = image_metrics()
    names = [metric.name for metric in metrics]
    low, high = bootstrap(photos[names].to_numpy(), photos["group"].to_numpy(), RESAMPLINGS, SEED)
    found: dict[str, Any] = {"photos": len(photos)}
    for metric, low_end, high_end in zip(metrics, low, high, strict=True):
        found |= {column: photos[column].mean() for column in metric.columns}
        found |= {f"{metric.name}_low": low_end, f"{metric.name}_high": high_end}
    found["psnr_pooled"] = pooled_psnr(photos["psnr"])
    for of_set in set_metrics():
        if of_set.features in features and len(photos) >= of_set.minimum:
            value, deviation = of_set.compute(features[of_set.features], true[of_set.features], SEED)
            found |= {of_set.name: value, f"{of_set.name}_std": deviation}
    return found


def measured_metrics(scores: pd.DataFrame) -> list[str]:
    return [name for name in METRICS if name in scores and scores[name].notna().any()]
