"""The generators that there are. A new one is a params class, a module and two lines here."""

from typing import Annotated, Any

from pydantic import Field

from recolor.models.layers import Generator
from recolor.models.pretrained import PretrainedParams, PretrainedUNet
from recolor.models.unet import UNetGenerator, UNetParams

GENERATORS: dict[str, type[Any]] = {"unet": UNetGenerator, "pretrained": PretrainedUNet}
GeneratorParams = Annotated[UNetParams | PretrainedParams, Field(discriminator="kind")]


def build_generator(params: Any) -> Generator:
    """A generator of the kind that `params` (section `generator`) names, with random weights.

    Raises UserError for a network that cannot be built, such as an encoder without features at 1/32 of the size.
    """
    return GENERATORS[params.kind](params)
