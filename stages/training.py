"""What stage `train` does for each model: settings in, model folder out."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer
from accelerate import PartialState
from PIL import Image

from recolor.core.errors import UserError
from recolor.core.params import Params, Seed
from recolor.core.storage import atomic_file, atomic_folder, file_sha256, is_file
from recolor.dataset.augment import AugmentParams
from recolor.dataset.shards import CachedPhotos, write_table
from recolor.models.folder import (
    default_shipped_model,
    load_generator,
    read_card,
    save_generator,
    trained_on,
    weights_sha256,
)
from recolor.models.generators import GeneratorParams, build_generator
from recolor.models.layers import Generator
from recolor.models.objectives import ADVERSARIAL
from recolor.models.patchgan import DiscriminatorParams
from recolor.models.pictures import GREY, TRUTH, coloured_arrays
from recolor.runtime.context import RuntimeContext, RuntimeParams
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.history import HISTORY, TIMINGS
from recolor.training.loop import Trained, TrainParams, derived_seed, train
from recolor.training.methods import Adversarial, Method, Pretraining, PretrainParams
from stages import at_end, paths
from stages.launching import launch

SAMPLES = 8  # photos in a grid


def train_model(model: str, params: Params) -> None:
    """Trains `params.dataset`'s model. Several processes run this; the main one writes folder, history and timings."""
    dataset = params.dataset or ""
    runtime = params.section("runtime", RuntimeParams)
    launch(runtime, "train", dataset, model)
    generator_params, encoder_sha256 = _generator(params)
    augment = params.section("augment", AugmentParams)
    method, train_params, start = _method(model, params)
    context = RuntimeContext.find(runtime.device, runtime.precision)
    photos = CachedPhotos(paths.cache(dataset), "train")
    manifest = file_sha256(paths.cache(dataset) / "manifest.csv")
    made_of = [_key(params.read), manifest, start and weights_sha256(start), encoder_sha256]
    checkpoints = Checkpoints(_checkpoint_folder(f"{dataset}-{model}", made_of))
    parts = {"params.yaml": params.read, str(paths.cache(dataset)): manifest, "the weights to start from": made_of[2:]}
    parts |= {"device and precision": str(context), "the code or its packages": checkpoints.folder.name}
    _check_same_everywhere(parts, context.distributed)
    _lock(checkpoints, context.distributed)
    if start and context.distributed.is_main and not trained_on(start, manifest):
        typer.echo(f"{start}: was trained on other photos; if test photos are among them, the scores are too good")
    generator = _starting_generator(generator_params, start, train_params.seed)
    trained = Trained(generator.eval(), [], [], f"{context}, {context.distributed}")
    if train_params.epochs:
        photos.verify(context.distributed.rank, context.distributed.world_size)
        watch = _watch(dataset, model, train_params)
        trained = train(
            method, generator, photos, train_params, augment, runtime, context, checkpoints, typer.echo, watch
        )
    if context.distributed.is_main:
        pretrained = read_card(start).get("params", {}).get("pretrain") if start and model in ADVERSARIAL else None
        card = {
            "dataset": dataset,
            "model": model,
            "objective": method.name,
            "epochs": len(trained.history),
            "pretrained": pretrained,
            "photos": len(photos),
            "size": photos.shape[-1],
            "data": {"manifest_sha256": manifest},
            "params": params.read,
            "versions": {name: version(name) for name in ("recolor", "torch", "timm")},
            "machine": trained.machine,
        }
        with atomic_folder(paths.model(dataset, model), "the model") as folder:
            save_generator(folder, trained.generator, card)
            _write_rows(folder / "history.csv", HISTORY, trained.history, "the history")
        _write_rows(paths.timings(dataset, model), TIMINGS, trained.timings, "the timings")
        at_end(lambda: _finish(checkpoints, dataset, model))
    PartialState().destroy_process_group()


def _generator(params: Params) -> tuple[Any, str | None]:
    """Section `generator`, and the SHA-256 of the encoder's weights where it names a file of them."""
    found: Any = params.section("generator", GeneratorParams)
    if (file := getattr(found, "weights_file", None)) is None:
        return found, None
    if not is_file(file := paths.HOME / file):
        raise UserError(f"generator.encoder_weights: {file} is no file; must be auto, none, or a file of weights")
    return found.model_copy(update={"encoder_weights": str(file)}), file_sha256(file)


def _method(model: str, params: Params) -> tuple[Method, TrainParams, Path | None]:
    """The method, its section `train`, and the model folder that it starts from."""
    if model == "l1":
        pretrain = params.section("pretrain", PretrainParams)
        train_params = TrainParams.model_construct(
            seed=params.section("train.seed", Seed),
            epochs=pretrain.epochs,
            batch_size=params.section("train.batch_size", int),
            decay_epochs=0,
            ema=params.section("train.ema", float),
            sample_epochs=params.section("train.sample_epochs", int),
        )
        if pretrain.start == "none":
            return Pretraining(pretrain), train_params, None
        start = paths.HOME / Path(pretrain.start).expanduser()
        return Pretraining(pretrain), train_params, default_shipped_model() if pretrain.start == "shipped" else start
    if model not in ADVERSARIAL:
        raise UserError(f"{model}: no such model; choose one of l1, {', '.join(ADVERSARIAL)}")
    train_params = params.section("train", TrainParams)
    discriminator = params.section("discriminator", DiscriminatorParams)
    method = Adversarial(params.section(model, ADVERSARIAL[model]), discriminator, train_params.decay_epochs)
    return method, train_params, paths.model(params.dataset or "", "l1")


def _starting_generator(params: Any, start: Path | None, seed: int) -> Generator:
    """A new generator, with the weights of the folder `start` if there is one. Raises UserError if its network is another."""
    torch.manual_seed(derived_seed(seed))
    generator = build_generator(params)
    if start is None:
        generator.load_encoder_weights()
        return generator
    trained = load_generator(start)
    try:
        generator.load_state_dict(trained.state_dict())
    except RuntimeError:
        asked, found = params.description, trained.params.description
        raise UserError(f"{start}: its generator is {found}; the section generator asks for {asked}") from None
    return generator


def _key(read: dict[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint depends on: all but sample_epochs, and epochs where no schedule depends on it."""
    settings = {name: value for name, value in read.items() if name != "train.sample_epochs"}
    if "train" in settings:
        ignored = {"sample_epochs"} | (set() if settings["train"]["decay_epochs"] else {"epochs"})
        settings["train"] = {key: value for key, value in settings["train"].items() if key not in ignored}
    return settings


def _checkpoint_folder(run: str, made_of: list[Any]) -> Path:
    """A folder for this run alone: its name is a hash of all that the result depends on."""
    # Of the modules those that training has imported: an edit of the report loses no checkpoint.
    modules = sorted(name for name in sys.modules if name.startswith("recolor."))
    sources = [file_sha256(Path(sys.modules[name].__file__ or "")) for name in modules]
    key = hashlib.sha256(json.dumps([made_of, torch.__version__, version("timm"), sources]).encode()).hexdigest()[:16]
    return paths.CHECKPOINTS / f"{run}-{key}"


def _check_same_everywhere(parts: dict[str, Any], distributed: DistributedContext) -> None:
    """Raises UserError where the machines have copies of their own that differ: each would train another model."""
    for name, values in zip(parts, zip(*distributed.all_gather(list(parts.values())), strict=True), strict=True):
        if different := [rank for rank, value in enumerate(values) if value != values[0]]:
            where = f"process {different[0]} differs from process 0"
            raise UserError(f"{name}: not the same on all machines ({where}); copy what process 0 has to the others")


def _lock(checkpoints: Checkpoints, distributed: DistributedContext) -> None:
    """Locks the checkpoints until the process ends. While another has locked them, queued experiments wait; else UserError."""
    logged = False
    while holder := distributed.broadcast(checkpoints.take() if distributed.is_main else None):
        line = f"process {holder} is training this very model already"
        if not paths.QUEUED:
            raise UserError(f"{line}; wait for it, or stop it")
        if distributed.is_main and not logged:
            typer.echo(f"{line}: waiting for it to end")
        logged = True
        time.sleep(1)


def _watch(dataset: str, model: str, params: TrainParams) -> Callable[[list[dict[str, Any]], Generator], None]:
    """For each epoch: writes the history; every `sample_epochs` a picture of test photos in grey, coloured and as they are."""
    cached = CachedPhotos(paths.cache(dataset), "test")
    photos = cached[range(min(SAMPLES, len(cached)))]

    def watch(history: list[dict[str, Any]], generator: Generator) -> None:
        _write_rows(paths.live(dataset, model), HISTORY, history, "the history")
        epoch = len(history)
        if epoch % params.sample_epochs == 0 or epoch == params.epochs:
            training, device = generator.training, next(generator.parameters()).device
            versions = coloured_arrays(photos.to(device), {"coloured": generator.eval()})
            generator.train(training)
            grid = np.vstack([np.hstack(list(versions[name])) for name in (GREY, "coloured", TRUTH)])
            with atomic_file(paths.samples(dataset, model) / f"epoch-{epoch:03d}.png", "a picture") as path:
                Image.fromarray(grid).save(path, "PNG")

    return watch


def _write_rows(file: Path, columns: Sequence[str], rows: list[dict[str, Any]], what: str) -> None:
    with atomic_file(file, what) as path:
        write_table(pd.DataFrame(rows, columns=list(columns)), path)


def _finish(checkpoints: Checkpoints, dataset: str, model: str) -> None:
    """Keeps the last checkpoint, from which more epochs continue, and removes those of finished runs with other settings."""
    checkpoints.finish()
    for folder in paths.checkpoints(dataset, model):
        if folder != checkpoints.folder:
            Checkpoints(folder).remove_finished()
