"""All settings at once: what sections require of each other and of this machine, beyond the bounds of each."""

from pathlib import Path
from typing import Any

import torch

from recolor.core.devices import find_device
from recolor.core.errors import one_line
from recolor.core.params import RECIPES, Datasets, Params, ParamsError, Recipe
from recolor.dataset.augment import AugmentParams
from recolor.evaluation.evaluate import EvaluateParams
from recolor.evaluation.inception import find_weights
from recolor.models.folder import starting_generator
from recolor.models.generators import GeneratorParams, build_generator
from recolor.models.objectives import ADVERSARIAL
from recolor.models.patchgan import DiscriminatorParams
from recolor.preprocessing.build import CacheParams
from recolor.runtime.context import RuntimeParams, check_gpus
from recolor.sources.fetch import FolderParams, ImageNetParams, SourceParams, check_photos_exist
from recolor.training.loop import TrainParams
from recolor.training.methods import PretrainParams
from stages import paths
from stages.starting import generator_section, start_folder

SECTIONS: dict[str, Any] = {  # of a recipe
    "generator": GeneratorParams,
    "discriminator": DiscriminatorParams,
    "augment": AugmentParams,
    "pretrain": PretrainParams,
    "train": TrainParams,
    **ADVERSARIAL,
}


def check(path: Path) -> list[str]:
    """Reads all of `path` as each of its `datasets` sees it and returns their names. Raises ParamsError for a fault.

    Both recipes are checked, and the sources of datasets that are not in use: `data.mien.path` is a mistyped `data.mine.path`.
    """
    common = Params(path)
    common.check_names(SECTIONS)
    loss = common.section("loss", str)
    if loss not in ADVERSARIAL:
        raise ParamsError(f"{path}: loss: got {loss!r}; must be {' or '.join(ADVERSARIAL)}")
    runtime = common.section("runtime", RuntimeParams)
    datasets: list[str] = common.section("datasets", Datasets)
    if len(set(datasets)) < len(datasets):
        raise ParamsError(f"{path}: datasets: got {datasets}; must name each dataset once")
    for dataset in common.datasets:
        common.section(f"data.{dataset}", SourceParams)
    for recipe in RECIPES:  # also the values that a dataset's overrides replace
        plain = Params(path, recipe=recipe)
        for name, kind in SECTIONS.items():
            plain.section(name, kind)
    for dataset in datasets:
        Params(path, dataset).section("evaluate", EvaluateParams)
        for recipe in RECIPES:
            _check_recipe(path, dataset, recipe, runtime)
    return datasets


def check_machine(path: Path, dataset: str) -> None:
    """Raises UserError where this machine lacks devices, photos or weights that are not downloaded."""
    params = Params(path, dataset)
    runtime = params.section("runtime", RuntimeParams)
    evaluate = paths.at_home(params.section("evaluate", EvaluateParams), "inception_weights")
    find_device(runtime.device, "runtime.device")
    check_gpus(runtime.device, runtime.processes)
    source = paths.at_home(params.source(SourceParams))
    if isinstance(source, FolderParams | ImageNetParams):
        check_photos_exist(source, dataset)
    if evaluate.inception != "off" and evaluate.inception_weights is not None:
        find_weights(evaluate.inception_weights)
    generator, encoder_file = generator_section(params)
    start = start_folder(params.section("pretrain", PretrainParams))
    if start or encoder_file:
        starting_generator(generator, start, seed=0)


def _check_recipe(path: Path, dataset: str, recipe: Recipe, runtime: RuntimeParams) -> None:
    params = Params(path, dataset, recipe)
    sections = {name: params.section(name, kind) for name, kind in SECTIONS.items()}
    where = f"{path}: {recipe}"
    size, multiple = params.section("data", CacheParams).size, sections["generator"].multiple
    if size % multiple:
        raise ParamsError(f"{path}: data.size: got {size}; must be a multiple of {multiple}, for {recipe}.generator")
    try:
        with torch.device("meta"):  # no memory, no arithmetic
            build_generator(sections["generator"]).eval()(torch.empty(1, 1, size, size))
    except Exception as error:  # of timm, for an encoder that needs another size
        raise ParamsError(f"{where}.generator: does not work for {size} pixels: {one_line(error, 200)}") from None
    depth, seen = sections["discriminator"].downs, round(size * sections["discriminator"].scale)
    if seen < 2 ** (depth + 2):
        raise ParamsError(f"{where}.discriminator.downs: got {depth}; too many for {seen} pixels: no score is left")
    for name in ADVERSARIAL:
        if sections[name].l1_weight == sections[name].adversarial_weight == 0:
            raise ParamsError(f"{where}.{name}.l1_weight: got 0, as is {name}.adversarial_weight; one must be above 0")
        if sections[name].balance is not None and sections[name].l1_weight == 0:
            raise ParamsError(f"{where}.{name}.balance: is a multiple of L1's gradient, and {name}.l1_weight is 0")
    train = sections["train"]
    if train.decay_epochs > train.epochs:
        raise ParamsError(
            f"{where}.train.decay_epochs: got {train.decay_epochs}; must be at most {train.epochs}, the epochs"
        )
    if train.batch_size % runtime.processes:
        multiple = f"must be a multiple of runtime.processes, {runtime.processes}"
        raise ParamsError(f"{where}.train.batch_size: got {train.batch_size}; {multiple}")
