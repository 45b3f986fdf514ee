"""Made-up results of a dataset: the files that evaluation and training leave for the report."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recolor.evaluation.metrics import set_metrics
from recolor.reporting.results import Results, read
from stages import paths

REASON = "the Inception weights could not be downloaded: name a folder with them in evaluate.inception_weights"
# Out of the report's order, as evaluation may well write it.
SCORES = """
split,model,photos,psnr,psnr_low,psnr_high,psnr_pooled,ssim,ssim_low,ssim_high
train,grey,40,22.5,22.1,22.9,20.0,0.92,0.91,0.93
train,gan,40,23.0,22.5,23.5,20.5,0.93,0.92,0.94
train,wgan,40,21.0,20.5,21.5,18.5,0.90,0.89,0.91
test,grey,8,22.6,22.2,23.0,20.1,0.92,0.91,0.93
test,gan,8,22.1,21.7,22.5,19.6,0.91,0.90,0.92
test,wgan,8,20.4,20.0,20.8,18.0,0.89,0.88,0.90
train,l1,40,23.4,22.9,23.9,21.0,0.94,0.93,0.95
test,l1,8,23.2,22.8,23.6,20.7,0.93,0.92,0.94
"""
COLOURFULNESS = """
colourfulness,colourfulness_low,colourfulness_high,colourfulness_true,DISTANCE,DISTANCE_low,DISTANCE_high
0.0,0.0,0.0,41.0,41.0,39.5,42.5
30.0,28.0,32.0,41.0,11.0,9.0,13.0
50.0,48.0,52.0,41.0,9.0,7.5,10.5
0.0,0.0,0.0,42.5,42.5,41.0,44.0
31.2,30.0,33.0,42.5,13.0,11.5,14.5
52.0,50.0,54.0,42.5,9.5,8.0,11.0
15.0,14.0,16.0,41.0,26.0,24.5,27.5
15.2,14.0,16.5,42.5,27.3,25.0,29.0
""".replace("DISTANCE", "colourfulness_distance")
EXAMPLES = {"fixed": 3, "best": 2, "worst": 2}


def scores_table(inception: bool) -> pd.DataFrame:
    columns = [column for metric in set_metrics() for column in (metric.name, f"{metric.name}_std")]
    measured: dict[str, object] = dict.fromkeys(columns)
    steps = np.arange(8)
    measured |= {"fd_lite0": 30.5 + steps, "kid_lite0": 0.0054 + steps / 1000, "kid_lite0_std": 0.0003}
    if inception:
        measured |= {"fid": 61.25 + steps, "fid64": 0.052 + steps / 1000, "is": 11.5 + steps, "is_std": 0.4}
        measured |= {"kid": 0.0203 + steps / 100, "kid_std": 0.0011}
    tables = [pd.read_csv(StringIO(text)) for text in (SCORES, COLOURFULNESS)]
    table = pd.concat(tables, axis=1).assign(**measured)
    return table if inception else table[table["model"] != "l1"]  # the sample was not pretrained


def folders(root: Path, dataset: str) -> tuple[Path, Path, dict[str, Path], dict[str, Path]]:
    """Metrics, cache, models and timings of a dataset in a repository at `root`."""
    models = {name: root / paths.model(dataset, name) for name in ("l1", "gan", "wgan")}
    timings = {name: root / paths.timings(dataset, name) for name in models}
    return root / paths.metrics(dataset), root / paths.cache(dataset), models, timings


def write_results(root: Path, dataset: str, inception: bool, source: dict[str, Any]) -> Results:
    """Writes what the stages leave behind for a dataset, and reads it."""
    metrics, cache, models, timings = folders(root, dataset)
    for folder in (metrics, cache, timings["gan"].parent, *models.values()):
        folder.mkdir(parents=True)
    scores = scores_table(inception)
    scores.to_csv(metrics / "scores.csv", index=False)
    notes = {"inception": None if inception else REASON, "device": "cpu", "models": {"gan": "5" * 64}}
    (metrics / "notes.json").write_text(json.dumps(notes))
    _write_photos(metrics, scores)
    splits = ["train"] * 40 + ["test"] * 8
    pieces = 4 if source["source"] == "sample" else 1
    manifest = pd.DataFrame({"split": splits, "group": [f"photo-{number // pieces}" for number in range(48)]})
    manifest.to_csv(cache / "manifest.csv", index=False)
    rejected = pd.DataFrame({"path": ["a", "b", "c"], "reason": ["cut short", "grey: 1.2", "grey: 1.71"]})
    (rejected if inception else rejected[:0]).to_csv(cache / "rejected.csv", index=False)
    for name, folder in models.items():
        recipe = {"l1": {"epochs": 2, "start": "none"},
                  "gan": {"lr": 0.0002, "betas": [0.5, 0.999]},
                  "wgan": {"constraint": "clip", "clip": 0.01, "penalty_weight": 10.0, "n_critic": 5}}  # fmt: skip
        params = {
            "recipe": "paper",
            "augment": {"flip": True},
            "train": {"epochs": 2},
            "generator": {"filters": 16},
            "discriminator": {"filters": 16},
            "pretrain" if name == "l1" else name: recipe[name],
        }
        (folder / "model.json").write_text(json.dumps({"machine": "cpu, fp32", "params": params, "epochs": 2}))
        base = {"epoch": [1, 2], "critic_loss": [0.7, 0.6], "critic_estimate": [0.1, 0.2], "critic_penalty": [0.0, 0.0],
                "generator_adversarial": [0.8, 0.9], "generator_l1": [0.1, 0.08]}  # fmt: skip
        pd.DataFrame(base).to_csv(folder / "history.csv", index=False)
        times = {
            "epoch": [1, 2],
            "seconds": [10.0, 6.0 if name == "gan" else 8.0],
            "photos": [40, 40],
            "data_wait": 0.25,
            "checkpoints": [0.5, 0.25],
        }
        pd.DataFrame(times).to_csv(timings[name], index=False)
    settings = {
        "data": {"size": 256, dataset: source},
        "evaluate": {
            "batch_size": 64,
            "inception": "auto",
            "inception_weights": "/home/me/weights",
            "bootstrap": 1000,
        },
    }
    return read(dataset, settings, metrics, cache, models, timings)


def _write_photos(metrics: Path, scores: pd.DataFrame) -> None:
    """photos.csv, examples.csv and examples.npz with 16x16 pictures of one colour each."""
    rows = [
        {"split": row["split"], "row": number, "model": row["model"], "psnr": row["psnr"] + number}
        for _, row in scores.iterrows()
        for number in range(row["photos"])
    ]
    pd.DataFrame(rows).to_csv(metrics / "photos.csv", index=False)
    examples = [
        {"split": split, "model": model, "kind": kind, "row": number, "psnr": 20.0 + number}
        for split in ("train", "test")
        for model in dict.fromkeys(scores["model"])
        if model != "grey"
        for kind, count in EXAMPLES.items()
        for number in range(count)
    ]
    pd.DataFrame(examples).assign(index=range(len(examples))).to_csv(metrics / "examples.csv", index=False)
    flat = np.arange(len(examples), dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    np.savez(metrics / "examples.npz", input=flat, output=flat + 60, truth=flat + 120)
