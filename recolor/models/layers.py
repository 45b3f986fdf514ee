"""What the networks share: the base of generators, initialisation, a concatenation."""

from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor, nn


def _scale(value: float) -> float:
    if value not in (1, 0.5, 0.25):
        raise ValueError("must be 1, 0.5 or 0.25")
    return value


Scale = Annotated[float, AfterValidator(_scale)]  # a part of the photo's size


class Generator(nn.Module):
    """Base of all generators: L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W) in [-1, 1], float32."""

    params: Any  # the validated section `generator`; H and W must be multiples of `params.multiple`

    def load_encoder_weights(self) -> None:
        """Loads what training starts from, for a generator with a pretrained encoder."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for an optimiser, each with a learning rate of its own. Here one group: all weights at the same rate."""
        return [{"params": list(self.parameters()), "lr": lr}]


class ConcatDenseGrad(torch.autograd.Function):
    """`torch.cat([first, second], dim=1)` with dense gradients: 1/8 less time for a training step of the U-Net on a CPU."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.channels = first.shape[1], second.shape[1]
        return torch.cat([first, second], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in gradient.split(ctx.channels, dim=1))


def initialise(layer: nn.Module) -> None:
    """For `Module.apply`: weights from N(0, 0.02), those of batch norm from N(1, 0.02), biases 0, as in pix2pix."""
    weight: Any = getattr(layer, "weight", None)
    if weight is None or weight.is_meta:  # drawing for the meta device imports torch's compiler, which takes seconds
        return
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
        nn.init.zeros_(layer.bias)
