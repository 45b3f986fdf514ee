"""The weights that a training starts from, which `check` looks for too."""

from pathlib import Path
from typing import Any

from recolor.core.errors import UserError
from recolor.core.params import Params
from recolor.core.storage import is_file, is_folder
from recolor.models.folder import default_shipped_model
from recolor.models.generators import GeneratorParams
from recolor.training.methods import PretrainParams
from stages import paths


def generator_section(params: Params) -> tuple[Any, Path | None]:
    """Section `generator`, and the file of the encoder's weights where it names one. UserError where that is missing."""
    section: Any = params.section("generator", GeneratorParams)
    if (file := getattr(section, "weights_file", None)) is None:
        return section, None
    if not is_file(file := paths.HOME / file):
        raise UserError(f"generator.encoder_weights: {file} is no file; must be auto, none, or a file of weights")
    return section.model_copy(update={"encoder_weights": str(file)}), file


def start_folder(pretrain: PretrainParams) -> Path | None:
    """The model folder that pretraining starts from, if there is one. UserError where it is missing."""
    if pretrain.start == "none":
        return None
    if pretrain.start == "shipped":
        return default_shipped_model()
    if not is_folder(folder := paths.HOME / Path(pretrain.start).expanduser()):
        raise UserError(f"pretrain.start: {folder} is no folder; must be none, shipped, or the folder of a model")
    return folder
