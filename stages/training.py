"""What the two training stages share: everything but the section of `params.yaml` that makes a GAN or a WGAN."""

import csv
import hashlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import typer
from accelerate import PartialState

from recolor.core.errors import UserError
from recolor.core.params import Params
from recolor.core.storage import atomic_file, atomic_folder, check_disk_space
from recolor.dataset.augment import AugmentParams
from recolor.dataset.shards import CachedPhotos
from recolor.models.folder import save_generator, weights_sha256
from recolor.models.generators import GeneratorParams
from recolor.models.objectives import ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams
from recolor.runtime.devices import RuntimeContext, RuntimeParams
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Trained, TrainParams, train
from stages import at_end, paths
from stages.launching import launch


def train_model(name: str, params: Params, recipe: ObjectiveParams) -> None:
    """Trains `params.dataset`'s model `name` and writes its folder, its history and its timings.

    Where several processes train together, each of them runs this; the main one writes.
    """
    dataset = params.dataset or ""
    train_params = params.section("train", TrainParams)
    runtime = params.section("runtime", RuntimeParams)
    launch(runtime, f"train_{name}", dataset)
    augment = params.section("augment", AugmentParams)
    generator = params.section("generator", GeneratorParams)
    discriminator = params.section("discriminator", DiscriminatorParams)
    manifest = hashlib.sha256((paths.cache(dataset) / "manifest.csv").read_bytes()).hexdigest()
    RuntimeContext.find(runtime.device)  # sets up the processes of a launcher
    distributed = DistributedContext.find()
    checkpoints = Checkpoints(_checkpoint_folder(f"{dataset}-{name}", params.read, manifest))
    _take(checkpoints, distributed)
    photos = CachedPhotos(paths.cache(dataset), "train")
    photos.verify(distributed.rank, distributed.world_size)

    card = {
        "dataset": dataset,
        "model": name,
        "objective": type(recipe.objective()).__name__,
        "epochs": train_params.epochs,
        "photos": len(photos),
        "size": photos.shape[-1],
        "data": {"manifest_sha256": manifest},
        "params": params.read,
        "versions": {name: version(name) for name in ("recolor", "torch")},
    }
    trained = train(
        photos, train_params, runtime, augment, generator, discriminator, recipe, checkpoints, say=typer.echo
    )

    if distributed.is_main:
        _write(name, dataset, card, trained)
        at_end(lambda: _finish(checkpoints, dataset, name))
    PartialState().destroy_process_group()


def _take(checkpoints: Checkpoints, distributed: DistributedContext) -> None:
    """Makes the checkpoints this run's own until the process ends; all processes wait together.

    Queued experiments meet here often: a sweep of `wgan` trains one GAN in all of them. DVC takes one that gives up for failed,
    so they wait, and go on from the last checkpoint of the one before. Elsewhere raises UserError: two by hand are a mistake.
    """
    told = False
    while holder := distributed.broadcast(checkpoints.take() if distributed.is_main else None):
        line = f"process {holder} is training this very model already"
        if not paths.QUEUED:
            raise UserError(f"{line}; wait for it, or stop it")
        if distributed.is_main and not told:
            typer.echo(f"{line}: waiting for it to end")
        told = True
        time.sleep(1)


def _finish(checkpoints: Checkpoints, dataset: str, name: str) -> None:
    """Keeps the last checkpoint until the model is recorded (evaluate removes it then): DVC may yet fail, its disk being full.
    What trainings of other settings have left so goes now."""
    checkpoints.finish(weights_sha256(paths.model(dataset, name)))
    for folder in paths.checkpoints(dataset, name):
        if folder != checkpoints.folder:
            Checkpoints(folder).remove_finished()


def _write(name: str, dataset: str, card: dict[str, Any], trained: Trained) -> None:
    with atomic_folder(paths.model(dataset, name), "the model") as folder:
        save_generator(folder, trained.generator, {**card, "machine": trained.machine})
        _write_rows(folder / "history.csv", trained.history)
    timings = paths.timings(dataset, name)
    with check_disk_space("the timings", timings.parent), atomic_file(timings) as path:
        _write_rows(path, trained.timings)


def _checkpoint_folder(run: str, settings: dict[str, Any], manifest: str) -> Path:
    """A folder of the run's own: its key is made of all that decides the result, so that two runs never mix."""
    # Of the modules those that training has imported: an edit of the report loses nobody a night's work.
    modules = sorted(name for name in sys.modules if name.startswith("recolor."))
    sources = [Path(sys.modules[name].__file__ or "") for name in modules]
    made_of = json.dumps(
        [settings, manifest, torch.__version__, [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]]
    )
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return paths.CHECKPOINTS / f"{run}-{key}"


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
