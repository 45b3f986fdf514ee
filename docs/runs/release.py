"""Puts a trained model into the package: python docs/runs/release.py MODEL METRICS CACHE RUN NAME KEY=VALUE...

MODEL is the model's folder, METRICS that of its scores, CACHE that of its photos' tensors. `recolor/weights/NAME` gets the
weights in float16 and a card with the scores and each KEY=VALUE (commit, machine, hours); docs/runs/RUN/photos.csv gets the
split, path and SHA-256 of every photo. The photos themselves may not be passed on.
"""

import sys
from pathlib import Path

import pandas as pd

from recolor.models.folder import SHIPPED
from recolor.reporting.bundle import export, read_scores

ROOT = Path(__file__).parents[2]


def main(model: Path, metrics: Path, cache: Path, run: str, name: str, made: dict[str, str]) -> None:
    photos = pd.read_csv(cache / "manifest.csv", usecols=["split", "path", "sha256"])
    photos.to_csv(ROOT / "docs/runs" / run / "photos.csv", index=False, lineterminator="\n")
    made |= {"photos": f"docs/runs/{run}/photos.csv"}
    export(model, SHIPPED / name, read_scores(metrics, model), force=True, float16=True, made=made)


if __name__ == "__main__":
    model, metrics, cache, run, name, *pairs = sys.argv[1:]
    main(Path(model), Path(metrics), Path(cache), run, name, dict(pair.split("=", 1) for pair in pairs))
