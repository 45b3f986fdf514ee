"""The modern recipe's generator: a U-Net (Ronneberger et al. 2015) on an encoder with ImageNet weights."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from recolor.core.errors import UserError
from recolor.core.params import Section, expandable
from recolor.models.encoders import imagenet_weights
from recolor.models.guided import guided_upsample
from recolor.models.layers import Generator, Scale

SKIPS = (16, 8, 4, 2)  # parts of the photo's size at which the decoder works, as divisors
Width = Annotated[int, Field(ge=1, le=4096)]  # channels


def _known(name: str) -> str:
    import timm  # seconds, which only a pretrained generator costs

    if not timm.is_model(name):
        raise ValueError("must be the name of a network of timm (timm.list_models())")
    return name


class PretrainedParams(Section, frozen=True):
    """Section `generator` with `kind: pretrained`. As in params.yaml it has 6.8 M parameters."""

    multiple: ClassVar[int] = 32  # of H and W
    kind: Literal["pretrained"]
    encoder: Annotated[str, AfterValidator(_known)]
    encoder_weights: Annotated[str, AfterValidator(expandable)]  # auto, none or a file
    # Of the decoder at 1/16, 1/8, 1/4 and 1/2 of the size, and of the head; a list in YAML.
    widths: tuple[Width, Width, Width, Width, Width] = Field(strict=False)
    ab_scale: Scale
    upsampling: Literal["guided", "bilinear"] = "bilinear"  # what models had before this setting
    freeze_encoder: bool
    encoder_lr: float = Field(gt=0, le=1)

    @property
    def weights_file(self) -> Path | None:
        """The file that `encoder_weights` names, if it names one."""
        return None if self.encoder_weights in ("auto", "none") else Path(self.encoder_weights).expanduser()

    @property
    def description(self) -> str:
        network = f"a U-Net on {self.encoder} ({self.encoder_weights} weights)"
        return f"{network}, which predicts at {self.ab_scale:g} of the size ({self.upsampling})"


class PretrainedUNet(Generator):
    """L (B, 1, H, W) in [-1, 1] to ab (B, 2, H, W) in [-1, 1], float32; H and W are multiples of 32.

    ab is predicted at `ab_scale` of the photo's size (Zhang et al. 2016 predict at 1/4 too) and upsampled by `upsampling`.
    The decoder upsamples bilinearly before its convolutions: transposed convolutions leave a checkerboard in flat areas
    (Odena et al. 2016). The last convolution starts near zero, so an untrained model predicts grey. The encoder is random until
    `load_encoder_weights`. A frozen encoder keeps its weights and the statistics of its batch norm.
    """

    def __init__(self, params: PretrainedParams) -> None:
        import timm

        super().__init__()
        self.params = params
        encoder: Any = timm.create_model(params.encoder, features_only=True)
        self.encoder = encoder
        self.reductions = encoder.feature_info.reduction()
        channels = dict(zip(self.reductions, encoder.feature_info.channels(), strict=True))
        smallest = max(channels)
        if smallest != 32:
            raise UserError(f"{params.encoder}: its features end at 1/{smallest} of the size; 1/32 is needed")
        self.skips = [divisor for divisor in SKIPS if divisor >= 1 / params.ab_scale]
        inputs = (channels[smallest], *params.widths)
        self.decoder = nn.ModuleList(
            UpBlock(below, channels.get(divisor, 0), width)
            for below, divisor, width in zip(inputs, self.skips, params.widths, strict=False)
        )
        self.head = nn.Sequential(
            nn.Conv2d(params.widths[len(self.skips) - 1] + 1, params.widths[-1], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(params.widths[-1], 2, 3, padding=1),
        )
        last: Any = self.head[-1]
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        config = timm.get_pretrained_cfg(params.encoder)
        half = (0.5, 0.5, 0.5)
        self.mean, self.std = (config.mean, config.std) if config else (half, half)  # of the encoder's own training
        if params.freeze_encoder:
            self.encoder.requires_grad_(False)
        self.train()

    def forward(self, lightness: Tensor) -> Tensor:
        ab = self.predict_small(lightness)
        if self.params.upsampling == "guided":
            return guided_upsample(ab, lightness)
        scale = self.params.ab_scale
        return ab if scale == 1 else F.interpolate(ab, scale_factor=1 / scale, mode="bilinear")

    def predict_small(self, lightness: Tensor) -> Tensor:
        """ab at `ab_scale` of the size: (B, 2, H * ab_scale, W * ab_scale)."""
        # L, in three equal channels, is within a few percent of the grey values that the encoder was trained on.
        mean, std = (lightness.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        grey = ((lightness + 1) / 2 - mean) / std
        features = dict(zip(self.reductions, self.encoder(grey), strict=True))
        x = features[32]
        for block, divisor in zip(self.decoder, self.skips, strict=True):
            x = block(x, features.get(divisor))
        if self.params.ab_scale == 1:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        small = F.avg_pool2d(lightness, round(1 / self.params.ab_scale))
        return torch.tanh(self.head(torch.cat([x, small], dim=1)).float())

    def load_encoder_weights(self) -> None:
        """Loads the weights that `encoder_weights` names. Raises EncoderWeightsError where they are not available."""
        if self.params.encoder_weights == "none":
            return
        ours = self.encoder.state_dict()
        self.encoder.load_state_dict({**ours, **imagenet_weights(self.params.encoder, ours, self.params.weights_file)})

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: the encoder, at `encoder_lr` times the rate, unless it is frozen; the rest."""
        rest = [weight for part in (self.decoder, self.head) for weight in part.parameters()]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
        if not self.params.freeze_encoder:
            groups.append({"params": list(self.encoder.parameters()), "lr": lr * self.params.encoder_lr})
        return groups

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.params.freeze_encoder:
            self.encoder.eval()
        return self


class UpBlock(nn.Module):
    """(B, C, h, w) and its skip connection (B, S, 2h, 2w), if there is one, to (B, width, 2h, 2w)."""

    def __init__(self, channels: int, skip_channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels + skip_channels, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return self.layers(x if skip is None else torch.cat([x, skip], dim=1))
