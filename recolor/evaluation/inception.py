"""Inception v3, the network of FID, KID and the Inception score: its weights and its features.

Two networks with the weights of 2015-12-05, checked by their SHA-256, which differ in how they resize a picture to 299x299:
clean-fid's (bicubic; 2048 features for FID and KID) and torchmetrics' (bilinear; the 64 features of an early layer, the scale
of the paper's FID, and the logits of the Inception score).
"""

import warnings
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from recolor.core.downloads import DownloadError, Patience, RemoteFile, download
from recolor.core.errors import UserError
from recolor.core.storage import file_sha256, is_file
from recolor.evaluation.features import resize

CLEAN_FID = "inception-2015-12-05.pt"
TORCH_FIDELITY = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = {  # the first from k-diffusion, the second begins as the file's name ends
    CLEAN_FID: "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    TORCH_FIDELITY: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
# Without a network the failure comes within seconds: evaluation goes on without the weights.
PATIENCE = Patience(timeout=5, offline=1)


class WeightsError(UserError):
    """A weight file in a folder that the user named is missing, or is not the published one."""


class WeightsUnavailableError(UserError):
    """The weights are not on this machine and could not be downloaded."""


def find_weights(folder: Path | None, patience: Patience = PATIENCE) -> dict[str, Path]:
    """The two weight files: those in `folder`, or those in torch hub's cache, downloaded where they are missing.

    Raises WeightsError for an unfit file of `folder`, WeightsUnavailableError where a download fails, and DiskFull.
    """
    if folder is None:
        return {name: _download(name, patience) for name in SHA256}
    paths = {name: folder / name for name in SHA256}
    for name, path in paths.items():
        if not is_file(path):
            raise WeightsError(
                f"{path} is missing: evaluate.inception_weights must be a folder with {' and '.join(SHA256)}"
            )
        if (digest := file_sha256(path)) != SHA256[name]:
            raise WeightsError(f"{path} is damaged or another file: its SHA-256 is {digest}, not {SHA256[name]}")
    return paths


def _download(name: str, patience: Patience) -> Path:
    """Downloads from the library's own URL into torch hub's cache; checked, complete or absent, with a timeout."""
    from cleanfid.downloads_helper import inception_url
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    url = {CLEAN_FID: inception_url, TORCH_FIDELITY: URL_INCEPTION_V3}[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    by_hand = f"put {' and '.join(SHA256)} into a folder and name it in evaluate.inception_weights"
    try:
        return download(RemoteFile(url, None, f"sha256:{SHA256[name]}"), folder, patience)
    except DownloadError as error:
        # Without the error's text, which differs from run to run: this line is written into notes.json.
        raise WeightsUnavailableError(
            f"the Inception weights could not be downloaded from {url}: with a network, `dvc repro -f -s evaluate@DATASET && "
            f"dvc repro` fetches them; or {by_hand}"
        ) from error
    except OSError as error:
        raise WeightsUnavailableError(
            f"the Inception weights cannot be written into torch hub's folder, {folder} ({error.strerror or error}): "
            f"set TORCH_HOME to one of your own, or {by_hand}"
        ) from error


class Inception:
    """Both networks on one device; a `features.FeatureNetwork`."""

    sizes: ClassVar[dict[str, int]] = {"inception": 2048, "inception_early": 64, "inception_logits": 1008}

    def __init__(self, weights: dict[str, Path], device: torch.device) -> None:
        from cleanfid.inception_torchscript import InceptionV3W
        from torchmetrics.image.fid import NoTrainInceptionV3

        with warnings.catch_warnings():  # clean-fid's file is TorchScript
            warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
            self.clean = InceptionV3W(str(weights[CLEAN_FID].parent), download=False).to(device).eval()
        self.plain = NoTrainInceptionV3(
            "inception-v3-compat",
            ["64", "logits_unbiased"],
            feature_extractor_weights_path=str(weights[TORCH_FIDELITY]),
        ).to(device)

    @torch.inference_mode()
    def __call__(self, rgb: Tensor) -> dict[str, Tensor]:
        early, logits = self.plain._torch_fidelity_forward(rgb)  # forward() itself returns the first of them only
        return {"inception": self.clean(resize(rgb, 299)), "inception_early": early, "inception_logits": logits}
