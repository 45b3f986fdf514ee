"""Every setting at once: what the sections ask of each other, beyond the bounds that each states for itself."""

from pathlib import Path

from recolor.cache import CacheParams
from recolor.evaluation import EvaluateParams
from recolor.networks import DiscriminatorParams, GeneratorParams
from recolor.objectives import GANParams, WGANParams
from recolor.params import Datasets, Loss, Params, ParamsError, Seed
from recolor.sources import SourceParams
from recolor.training import TrainParams


def check(path: Path) -> list[str]:
    """Reads all of `path` as each of its `datasets` sees it, and returns their names. Raises ParamsError for a fault."""
    common = Params(path)
    common.value("loss", Loss)
    common.value("seed", Seed)
    datasets = common.value("datasets", Datasets)
    if len(set(datasets)) < len(datasets):
        raise ParamsError(f"{path}: datasets: got {datasets}; takes each dataset once")
    for dataset in datasets:
        params = Params(path, dataset)
        params.source(SourceParams)
        if "overrides" not in params.read[f"data.{dataset}"]:
            raise ParamsError(f"{path}: data.{dataset}.overrides is missing: DVC tracks it; {{}} will do")
        params.section("gan", GANParams)
        params.section("wgan", WGANParams)
        params.section("evaluate", EvaluateParams)
        _check_sizes(params)
        train = params.section("train", TrainParams)
        if train.decay_epochs > train.epochs:
            raise ParamsError(
                f"{path}: train.decay_epochs: got {train.decay_epochs}; takes at most the {train.epochs} epochs"
            )
        if train.batch_size % train.processes:
            raise ParamsError(
                f"{path}: train.batch_size: got {train.batch_size}; takes a multiple of the {train.processes} processes"
            )
    return datasets


def _check_sizes(params: Params) -> None:
    size = params.section("data", CacheParams).size
    downs = params.section("generator", GeneratorParams).downs
    if size % 2**downs:
        raise ParamsError(
            f"{params.path}: data.size: got {size}; takes a multiple of {2**downs}, because generator.downs is {downs}"
        )
    depth = params.section("discriminator", DiscriminatorParams).downs
    if size < 2 ** (depth + 2):
        raise ParamsError(
            f"{params.path}: discriminator.downs: got {depth}; at data.size {size} nothing is left to score after so many"
        )
