"""What the two training stages share: everything but the section of `params.yaml` that makes a GAN or a WGAN."""

import csv
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import typer

import recolor
from recolor.checkpoint import Checkpoints, save_generator
from recolor.networks import DiscriminatorParams, GeneratorParams
from recolor.objectives import Recipe
from recolor.params import Params
from recolor.shards import CachedPhotos
from recolor.training import TrainParams, train
from stages import paths


def train_model(name: str, params: Params, recipe: Recipe) -> None:
    """Trains `params.dataset`'s model `name` and writes its folder, its history and its timings."""
    dataset = params.dataset or ""
    seed = params.value("seed", int)
    train_params = params.section("train", TrainParams)
    generator = params.section("generator", GeneratorParams)
    discriminator = params.section("discriminator", DiscriminatorParams)
    manifest = hashlib.sha256((paths.cache(dataset) / "manifest.csv").read_bytes()).hexdigest()
    checkpoints = Checkpoints(_checkpoint_folder(f"{dataset}-{name}", params.read, manifest))
    photos = CachedPhotos(paths.cache(dataset), "train")

    trained = train(photos, train_params, generator, discriminator, recipe, seed, checkpoints, say=typer.echo)

    folder = paths.model(dataset, name)
    card = {
        "dataset": dataset,
        "model": name,
        "objective": type(recipe.objective()).__name__,
        "epochs": train_params.epochs,
        "photos": len(photos),
        "size": photos.shape[-1],
        "data": {"manifest_sha256": manifest},
        "params": params.read,
        "machine": trained.machine,
    }
    save_generator(folder, trained.generator, card)
    _write_rows(folder / "history.csv", trained.history)
    _write_rows(paths.timings(dataset, name), trained.timings)
    checkpoints.clear()


def _checkpoint_folder(run: str, settings: dict[str, Any], manifest: str) -> Path:
    """A folder of the run's own: its key is made of all that decides the result, so that two runs never mix.

    It lies under the root that DVC runs from, which is not the current folder when an experiment runs in a temporary one.
    """
    sources = sorted(Path(recolor.__file__).parent.glob("*.py"))
    made_of = json.dumps([settings, manifest, [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return Path(os.environ.get("DVC_ROOT", ".")) / paths.CHECKPOINTS / f"{run}-{key}"


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
