"""FID, KID and the Inception score of sets of pictures, from features that each picture is run for once.

Two networks, both Inception v3 with the weights of 2015-12-05, which differ in how they bring a picture to 299x299: clean-fid's
(bicubic; FID and KID on 2048 features) and torchmetrics' (bilinear; FID on the 64 features of an early layer, the scale of the
paper's FID, and the logits of the Inception score). A number under one of these names comes from the published weights or is
not given: both files are held to their checksums, those that a user brings as well.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recolor.core.downloads import DownloadError, Patience, RemoteFile, download
from recolor.core.errors import UserError
from recolor.core.progress import progress

CLEAN_FID = "inception-2015-12-05.pt"
TORCH_FIDELITY = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = {  # the first as k-diffusion checks it, the second as its name begins
    CLEAN_FID: "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    TORCH_FIDELITY: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
# A machine without a network is to notice within seconds: evaluation can go on without the weights.
PATIENCE = Patience(timeout=5, offline=1)
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
IS_SPLITS = 10
BLOCK = 4096  # pictures whose features are taken as float64 at once: 67 MB
SET_SCORES = ("fid", "fid64", "kid", "kid_std", "is", "is_std")

Features = NDArray[np.float32]


class WeightsError(UserError):
    """A weight file that a user named and that is missing, or is not the published one."""


class WeightsUnavailableError(UserError):
    """The weights are not on this machine and could not be downloaded."""


def find_weights(folder: Path | None, patience: Patience = PATIENCE) -> dict[str, Path]:
    """The two weight files: those in `folder`, or else torch hub's cached ones, downloaded where they are missing.

    Raises WeightsError for a file of `folder` that is missing or has another checksum, WeightsUnavailableError where a
    download fails, DiskFull where there is no room for one.
    """
    if folder is None:
        return {name: _download(name, patience) for name in SHA256}
    paths = {name: folder / name for name in SHA256}
    for name, path in paths.items():
        if not path.is_file():
            raise WeightsError(
                f"{path} is missing: evaluate.inception_weights takes a folder with {' and '.join(SHA256)}"
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256[name]:
            raise WeightsError(f"{path} is damaged or another file: its SHA-256 is {digest}, not {SHA256[name]}")
    return paths


def _download(name: str, patience: Patience) -> Path:
    """The libraries' own URLs, but verified, whole or not at all, and with an end to the waiting."""
    from cleanfid.downloads_helper import inception_url
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    url = {CLEAN_FID: inception_url, TORCH_FIDELITY: URL_INCEPTION_V3}[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    by_hand = f"put {' and '.join(SHA256)} into a folder and name it in evaluate.inception_weights"
    try:
        return download(RemoteFile(url, None, f"sha256:{SHA256[name]}"), folder, patience)
    except DownloadError as error:
        # Without its words, which tell of this folder and of that moment: this line ends in a file that has to stay the same.
        raise WeightsUnavailableError(
            f"the Inception weights could not be downloaded from {url}: with a network, `dvc repro -f -s evaluate@DATASET && "
            f"dvc repro` fetches them; or {by_hand}"
        ) from error
    except OSError as error:
        raise WeightsUnavailableError(
            f"the Inception weights cannot be written into torch hub's folder, {folder} ({error.strerror or error}): "
            f"set TORCH_HOME to one of your own, or {by_hand}"
        ) from error


@dataclass(frozen=True)
class FeatureSet:
    """What the networks say of a set of N pictures."""

    clean: Features  # (N, 2048), clean-fid's
    early: Features  # (N, 64), torchmetrics'
    logits: Features  # (N, 1008), torchmetrics', without the bias

    @classmethod
    def zeros(cls, pictures: int) -> Self:
        return cls(*(np.zeros((pictures, size), np.float32) for size in (2048, 64, 1008)))

    def put(self, start: int, batch: tuple[Tensor, ...]) -> None:
        """Writes a batch's features, as `Inception` gives them, from picture `start` on."""
        for features, part in zip(vars(self).values(), batch, strict=True):
            features[start : start + len(part)] = part.cpu().numpy()


class Inception:
    """Both networks on one device. Called with (B, 3, H, W) 8-bit RGB it gives the batch's part of a FeatureSet."""

    def __init__(self, weights: dict[str, Path], device: torch.device) -> None:
        from cleanfid.inception_torchscript import InceptionV3W
        from torchmetrics.image.fid import NoTrainInceptionV3

        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*torch.jit", category=FutureWarning
            )  # clean-fid's file is TorchScript
            self.clean = InceptionV3W(str(weights[CLEAN_FID].parent), download=False).to(device).eval()
        self.plain = NoTrainInceptionV3(
            "inception-v3-compat",
            ["64", "logits_unbiased"],
            feature_extractor_weights_path=str(weights[TORCH_FIDELITY]),
        ).to(device)

    @torch.inference_mode()
    def __call__(self, rgb: Tensor) -> tuple[Tensor, ...]:
        early, logits = self.plain._torch_fidelity_forward(rgb)  # forward() itself returns the first of them only
        return self.clean(clean_resize(rgb)), early, logits


def clean_resize(rgb: Tensor) -> Tensor:
    """clean-fid's resize (Parmar et al. 2022): (B, 3, H, W) 8-bit to (B, 3, 299, 299), 0 to 255 and not rounded.

    PIL's bicubic filter, as torchvision does it: the same within a hundredth of a level, for the whole batch and on its device.
    """
    from torchvision.transforms.v2.functional import (
        InterpolationMode,
        resize,
    )  # seconds, which only who needs it waits for

    return resize(rgb.float(), [299, 299], InterpolationMode.BICUBIC, antialias=True).clamp(0, 255)


def set_scores(output: FeatureSet, truth: FeatureSet, seed: int) -> dict[str, float | None]:
    """FID, FID on 64 features and KID of `output` against `truth`, and its IS; None where too few pictures say nothing.

    Of N pictures FID is biased upwards, the more the fewer they are, and below 2048 the covariance is singular: compare it at
    the same N only. KID is unbiased. KID's subsets and the splits of the IS are drawn from the seed.
    """
    enough = min(len(output.clean), len(truth.clean)) >= 2  # for a covariance
    kid, kid_std = kernel_distance(output.clean, truth.clean, seed) if enough else (None, None)
    score, score_std = inception_score(output.logits, seed)
    return {
        "fid": frechet_distance(output.clean, truth.clean) if enough else None,
        "fid64": frechet_distance(output.early, truth.early) if enough else None,
        "kid": kid,
        "kid_std": kid_std,
        "is": score,
        "is_std": score_std,
    }


def frechet_distance(one: Features, other: Features) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D) (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^1/2. With C = R^T R, that last trace is the sum of the singular values of
    R1 R2^T, which needs no root of a matrix: for 2048 features clean-fid's scipy.linalg.sqrtm takes 3 to 50 times as long,
    loses digits where N < D leaves the covariance singular, and is called with an argument that scipy 1.18 no longer has.
    """
    root, other_root = _root(one), _root(other)
    overlap = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    offset = one.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64)
    return float((offset**2).sum() + (root**2).sum() + (other_root**2).sum() - 2 * overlap)


def _root(features: Features) -> NDArray[np.float64]:
    """R, of at most D rows, with R^T R the unbiased covariance of `features`.

    Of many pictures it grows block by block, so that no float64 copy of all features is made. A covariance summed up first
    would lose half of the digits in its root.
    """
    count, dimensions = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    root = np.empty((0, dimensions))
    for start in range(0, count, BLOCK):
        centred = (features[start : start + BLOCK] - mean) / np.sqrt(count - 1)
        root = np.concatenate([root, centred])
        if len(root) > dimensions:
            root = np.asarray(np.linalg.qr(root, mode="r"))
    return root


def kernel_distance(one: Features, other: Features, seed: int) -> tuple[float, float | None]:
    """KID (Binkowski et al. 2018, eq. 4, by clean-fid): mean and standard deviation over 100 subsets of 1000, or of all.

    Where a set has no more than 1000 pictures all of its subsets are the set itself and have no spread to measure.
    """
    from cleanfid.fid import kernel_distance as of_subsets

    drawn = max(len(one), len(other)) > KID_SUBSET_SIZE or len(one) != len(other)
    with _numpy_seed(seed):
        values = [
            of_subsets(other, one, num_subsets=1, max_subset_size=KID_SUBSET_SIZE)
            for _ in progress(range(KID_SUBSETS if drawn else 1), desc="KID")
        ]
    return float(np.mean(values)), float(np.std(values)) if drawn else None


def inception_score(logits: Features, seed: int) -> tuple[float | None, float | None]:
    """Inception score (Salimans et al. 2016, section 4, by torchmetrics): mean and standard deviation over 10 splits.

    Of a single picture it is 1 whatever the picture, so with fewer than two for each split it is not given.
    """
    from torchmetrics.image.inception import InceptionScore

    if len(logits) < 2 * IS_SPLITS:
        return None, None
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save all extracted features")
        torch.manual_seed(seed)
        metric = InceptionScore(nn.Identity(), splits=IS_SPLITS)
        metric.update(torch.from_numpy(logits))
        mean, std = metric.compute()
    return mean.item(), std.item()


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seeds the generator that numpy keeps for everybody, which clean-fid draws from, and puts it back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
