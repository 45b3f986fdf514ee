"""The feature networks of set scores; Inception, whose weights are a download, is in `inception.py`."""

from typing import Any, ClassVar, Protocol

import timm
import torch
from torch import Tensor

from recolor.models.encoders import packaged_weights


class FeatureNetwork(Protocol):
    """Called with (B, 3, H, W) 8-bit RGB it returns features (B, D), float32, by name; `sizes` are the D."""

    sizes: ClassVar[dict[str, int]]

    def __call__(self, rgb: Tensor) -> dict[str, Tensor]: ...


class Lite0:
    """The 1280 pooled features of EfficientNet-Lite0 (Tan and Le 2019) of pictures resized to its 224x224 pixels, uncropped."""

    sizes: ClassVar[dict[str, int]] = {"lite0": 1280}

    def __init__(self, device: torch.device) -> None:
        network = timm.create_model("tf_efficientnet_lite0")
        # Not strict: batch norm's counters are not among the weights.
        network.load_state_dict(packaged_weights("tf_efficientnet_lite0"), strict=False)
        self.network: Any = network.to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, rgb: Tensor) -> dict[str, Tensor]:
        pictures = (resize(rgb, 224) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        features = self.network.forward_features(pictures)
        return {"lite0": self.network.forward_head(features, pre_logits=True)}


def resize(rgb: Tensor, size: int) -> Tensor:
    """clean-fid's resize (Parmar et al. 2022), within 0.01: (B, 3, H, W) 8-bit to (B, 3, size, size), 0 to 255, not rounded."""
    from torchvision.transforms.v2.functional import InterpolationMode, resize  # its import takes seconds

    return resize(rgb.float(), [size, size], InterpolationMode.BICUBIC, antialias=True).clamp(0, 255)
