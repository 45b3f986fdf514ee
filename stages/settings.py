"""Every setting at once: what sections ask of each other and of this machine, beyond the bounds that each states for itself."""

from pathlib import Path

from recolor.core.params import Datasets, Loss, Params, ParamsError, Seed
from recolor.evaluation.evaluate import EvaluateParams
from recolor.evaluation.inception import find_weights
from recolor.models.networks import DiscriminatorParams, GeneratorParams
from recolor.preprocessing.build import CacheParams
from recolor.runtime.devices import check_device, check_gpus
from recolor.sources.fetch import FolderParams, ImageNetParams, SourceParams, check_at_hand
from recolor.training.loop import TrainParams
from recolor.training.objectives import GANParams, WGANParams

NAMES = ["datasets", "loss", "seed", "data", "generator", "discriminator", "train", "gan", "wgan", "evaluate"]


def check(path: Path) -> list[str]:
    """Reads all of `path` as each of its `datasets` sees it, and returns their names. Raises ParamsError for a fault."""
    common = Params(path)
    common.check_names(NAMES)
    common.value("loss", Loss)
    common.value("seed", Seed)
    datasets = common.value("datasets", Datasets)
    if len(set(datasets)) < len(datasets):
        raise ParamsError(f"{path}: datasets: got {datasets}; takes each dataset once")
    for dataset in common.datasets:  # also those that nobody asks for: data.mien.path is a mistyped data.mine.path
        Params(path, dataset).source(SourceParams)
    for dataset in datasets:
        params = Params(path, dataset)
        if "overrides" not in params.source(SourceParams).model_fields_set:
            raise ParamsError(f"{path}: data.{dataset}.overrides is missing: DVC tracks it; {{}} will do")
        params.section("evaluate", EvaluateParams)
        _check_sizes(params)
        _check_training(params)
    return datasets


def check_machine(path: Path, dataset: str, home: Path) -> None:
    """Raises UserError where this machine lacks what `path` asks for `dataset`: devices, photos, Inception's weights.

    Relative paths start from `home`. Photos and weights that are a download are not looked for.
    """
    params = Params(path, dataset)
    train, evaluate = params.section("train", TrainParams), params.section("evaluate", EvaluateParams)
    check_device(train.device, "train.device")
    check_gpus(train.device, train.processes, "train.processes")
    check_device(evaluate.device, "evaluate.device")
    check_gpus(evaluate.device, evaluate.processes, "evaluate.processes")
    source = params.source(SourceParams)
    if isinstance(source, FolderParams | ImageNetParams):
        check_at_hand(source.model_copy(update={"path": str(home / Path(source.path).expanduser())}), dataset)
    if evaluate.inception != "off" and evaluate.inception_weights is not None:
        find_weights(home / evaluate.inception_weights.expanduser())


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


def _check_training(params: Params) -> None:
    for name, recipe in (("gan", params.section("gan", GANParams)), ("wgan", params.section("wgan", WGANParams))):
        if recipe.l1_weight == recipe.adversarial_weight == 0:
            raise ParamsError(
                f"{params.path}: {name}.l1_weight: got 0, and {name}.adversarial_weight is 0 too; takes one of them above 0"
            )
    train = params.section("train", TrainParams)
    if train.decay_epochs > train.epochs:
        raise ParamsError(
            f"{params.path}: train.decay_epochs: got {train.decay_epochs}; takes at most the {train.epochs} epochs"
        )
    if train.batch_size % train.processes:
        raise ParamsError(
            f"{params.path}: train.batch_size: got {train.batch_size}; takes a multiple of the {train.processes} processes"
        )
