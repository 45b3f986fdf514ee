"""A small pretrained U-Net, and facts about networks."""

from collections.abc import Iterable

from torch import nn

from recolor.models.pretrained import PretrainedParams

SMALL_PRETRAINED = PretrainedParams(
    kind="pretrained",
    encoder="tf_efficientnet_lite0",
    encoder_weights="none",
    widths=(8, 8, 8, 8, 8),
    ab_scale=1,
    freeze_encoder=False,
    encoder_lr=0.33,
)


def receptive_field(layers: Iterable[nn.Module]) -> int:
    """Side, in input pixels, of what one output of a chain of layers sees. Layers other than convolutions see one pixel."""
    side, step = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            side += (layer.kernel_size[0] - 1) * step
            step *= layer.stride[0]
    return side


def parameter_count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
