"""What stage `train` does for each model: settings in, model folder out."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from accelerate import PartialState

from recolor.core.errors import UserError
from recolor.core.params import Params, Seed
from recolor.core.storage import atomic_folder, file_sha256
from recolor.dataset.augment import AugmentParams
from recolor.dataset.shards import CachedPhotos
from recolor.models.folder import read_card, save_generator, starting_generator, trained_on, weights_sha256
from recolor.models.objectives import ADVERSARIAL, PRETRAINED, TRAINED
from recolor.models.patchgan import DiscriminatorParams
from recolor.runtime.context import RuntimeContext, RuntimeParams
from recolor.training.checkpoints import Checkpoints, code, run_key
from recolor.training.loop import Count, Decay, Trained, TrainParams, derived_seed, train
from recolor.training.methods import Adversarial, Method, Pretraining, PretrainParams
from recolor.training.progress import HISTORY, TIMINGS, epoch_writer, write_rows
from stages import at_end, paths
from stages.launching import launch
from stages.starting import generator_section, start_folder


def train_model(model: str, dataset: str, params: Params) -> None:
    """Trains a model of the dataset. Several processes run this; the main one writes folder, history and timings."""
    runtime = params.section("runtime", RuntimeParams)
    launch(runtime, "train", dataset, model)
    generator_params, encoder_file = generator_section(params)
    augment = params.section("augment", AugmentParams)
    method, train_params, start = _pretraining(params) if model == PRETRAINED else _adversarial(model, dataset, params)
    context = RuntimeContext.find(runtime.device, runtime.precision)
    cache, distributed = paths.cache(dataset), context.distributed
    photos, manifest = CachedPhotos(cache, "train"), file_sha256(cache / "manifest.csv")
    inputs = {
        "params.yaml": params.read,
        str(cache): manifest,
        "the weights to start from": [start and weights_sha256(start), encoder_file and file_sha256(encoder_file)],
        "the code or its packages": code(),
    }
    distributed.check_same(inputs | {"device and precision": str(context)})
    checkpoints = Checkpoints(paths.CHECKPOINTS / f"{dataset}-{model}-{run_key(inputs)}")
    checkpoints.lock(distributed, typer.echo, wait=paths.QUEUED)
    if start and distributed.is_main and not trained_on(start, manifest):
        typer.echo(f"{start}: was trained on other photos; if test photos are among them, the scores are too good")
    generator = starting_generator(generator_params, start, derived_seed(train_params.seed))
    trained = Trained(generator.eval(), [], [], f"{context}, {distributed}")
    if train_params.epochs:
        photos.verify(distributed.rank, distributed.world_size)
        written = paths.live(dataset, model), paths.samples(dataset, model)
        watch = epoch_writer(*written, cache, train_params.sample_epochs, train_params.epochs)
        trained = train(
            method, generator, photos, train_params, augment, runtime, context, checkpoints, typer.echo, watch
        )
    if distributed.is_main:
        card = _card(dataset, model, method, start, photos, manifest, params, trained)
        with atomic_folder(paths.model(dataset, model), "the model") as folder:
            save_generator(folder, trained.generator, card)
            write_rows(folder / "history.csv", HISTORY, trained.history, "the history")
        write_rows(paths.timings(dataset, model), TIMINGS, trained.timings, "the timings")
        at_end(lambda: checkpoints.finish(paths.checkpoints(dataset, model)))
    PartialState().destroy_process_group()


def _card(
    dataset: str,
    model: str,
    method: Method,
    start: Path | None,
    photos: CachedPhotos,
    manifest: str,
    params: Params,
    trained: Trained,
) -> dict[str, Any]:
    """What the model's card states of its training."""
    pretrained = read_card(start).get("params", {}).get("pretrain") if start and model in ADVERSARIAL else None
    return {
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


def _pretraining(params: Params) -> tuple[Method, TrainParams, Path | None]:
    """The method, its section `train`, and the model folder that it starts from."""
    pretrain = params.section("pretrain", PretrainParams)
    # The values one by one, as dvc.yaml lists them: another train.epochs runs no pretraining again. Unchecked, because
    # pretrain.epochs may be 0.
    train_params = TrainParams.model_construct(
        seed=params.section("train.seed", Seed),
        epochs=pretrain.epochs,
        batch_size=params.section("train.batch_size", Count),
        decay_epochs=0,
        ema=params.section("train.ema", Decay),
        sample_epochs=params.section("train.sample_epochs", Count),
    )
    return Pretraining(pretrain), train_params, start_folder(pretrain)


def _adversarial(model: str, dataset: str, params: Params) -> tuple[Method, TrainParams, Path | None]:
    if model not in ADVERSARIAL:
        raise UserError(f"{model}: no such model; choose one of {', '.join(TRAINED)}")
    train_params = params.section("train", TrainParams)
    discriminator = params.section("discriminator", DiscriminatorParams)
    method = Adversarial(params.section(model, ADVERSARIAL[model]), discriminator, train_params.decay_epochs)
    return method, train_params, paths.model(dataset, PRETRAINED)
