"""The generators that there are. A new one is a params class, a module and two lines here."""

from typing import Annotated, Any

from pydantic import Field

from recolor.models.layers import Generator
from recolor.models.pretrained import PretrainedParams, PretrainedUNet
from recolor.models.unet import UNetGenerator, UNetParams

GENERATORS: dict[str, type[Any]] = {"unet": UNetGenerator, "pretrained": PretrainedUNet}
GeneratorParams = Annotated[UNetParams | PretrainedParams, Field(discriminator="kind")]


def build_generator(params: Any, pretrained: bool = False) -> Generator:
    """A generator of the kind that `params` (section `generator`) names.

    `pretrained` loads an encoder's ImageNet weights, which training starts from; a trained model needs none. Raises
    EncoderWeightsError where they are not available.
    """
    generator: Generator = GENERATORS[params.kind](params)
    if pretrained and isinstance(generator, PretrainedUNet):
        generator.load_encoder_weights()
    return generator
