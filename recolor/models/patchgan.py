"""The critic of every objective: pix2pix's PatchGAN (Isola et al. 2017, section 6.1.2)."""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recolor.core.params import Section
from recolor.models.layers import Scale, initialise


class DiscriminatorParams(Section, frozen=True):
    """Section `discriminator`. 64 filters and 3 down-samplings make 2.8 M parameters and a receptive field of 70.

    `scale` is the part of the photo's size at which the critic looks: at 1/2 its receptive field is twice as wide on the photo.
    """

    filters: int = Field(ge=1, le=1024)
    downs: int = Field(ge=1, le=6)
    scale: Scale


class PatchDiscriminator(nn.Module):
    """L||ab (B, 3, H, W) in [-1, 1] to one score a patch (B, 1, h, w), a logit: 30x30 for 256x256 at 3 down-samplings.

    `norm=False` leaves batch norm out, which would mix photos (Gulrajani et al. 2017, section 4).
    """

    def __init__(self, params: DiscriminatorParams, norm: bool = True) -> None:
        super().__init__()
        self.stride = round(1 / params.scale)
        widths = [params.filters * min(2**level, 8) for level in range(params.downs + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, len(widths)):
            stride = 2 if level < params.downs else 1
            layers.append(nn.Conv2d(widths[level - 1], widths[level], 4, stride, padding=1, bias=not norm))
            if norm:
                layers.append(nn.BatchNorm2d(widths[level]))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, lab: Tensor) -> Tensor:
        return self.layers(F.avg_pool2d(lab, self.stride) if self.stride > 1 else lab).float()
