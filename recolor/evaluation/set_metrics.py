"""Scores of a set of pictures from the features of a network: Frechet distance, kernel distance and Inception score.

Features are (N, D) float32. Every function has the signature that `metrics.SetMetric` needs: (output, truth, seed) to the value
and its standard deviation, NaN where there is none. The same functions serve every network: FID and KID are those of
Inception's features, FD-Lite0 and KID-Lite0 those of EfficientNet-Lite0's.
"""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Score = tuple[float, float]

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
IS_SPLITS = 10
BLOCK = 4096  # pictures whose features are converted to float64 at once: 67 MB


def frechet_distance(output: Features, truth: Features, seed: int = 0) -> Score:
    """Frechet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D) (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^1/2. With C = R^T R, that last trace is the sum of the singular values of
    R1 R2^T: clean-fid's scipy.linalg.sqrtm is 3 to 50 times slower and loses digits where N < D makes the covariance singular.
    """
    root, other_root = _root(output), _root(truth)
    overlap = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    offset = output.mean(axis=0, dtype=np.float64) - truth.mean(axis=0, dtype=np.float64)
    return float((offset**2).sum() + (root**2).sum() + (other_root**2).sum() - 2 * overlap), np.nan


def _root(features: Features) -> NDArray[np.float64]:
    """R, of at most D rows, with R^T R the unbiased covariance of `features`. A root of the covariance has half its digits."""
    count, dimensions = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    root = np.empty((0, dimensions))
    for start in range(0, count, BLOCK):
        centred = (features[start : start + BLOCK] - mean) / np.sqrt(count - 1)
        root = np.concatenate([root, centred])
        if len(root) > dimensions:
            root = np.asarray(np.linalg.qr(root, mode="r"))
    return root


def kernel_distance(output: Features, truth: Features, seed: int) -> Score:
    """KID (Binkowski et al. 2018, eq. 4): unbiased squared MMD with the kernel (x.y / D + 1)^3.

    Mean and standard deviation over 100 subsets of at most 1000 pictures of each set. Sets of the same size of at most 1000
    have one subset, themselves, and no deviation.
    """
    size = min(len(output), len(truth), KID_SUBSET_SIZE)
    if size == len(output) == len(truth):
        return _squared_mmd(output, truth), np.nan
    rng = np.random.default_rng(seed)
    values = [
        _squared_mmd(*(features[rng.choice(len(features), size, replace=False)] for features in (output, truth)))
        for _ in range(KID_SUBSETS)
    ]
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(one: Features, other: Features) -> float:
    count, dimensions = one.shape

    def kernel(x: Features, y: Features) -> NDArray[np.float64]:
        values = (x @ y.T / dimensions + 1).astype(np.float64)
        return values * values * values  # `** 3` is 10 times slower

    within = sum(matrix.sum() - np.trace(matrix) for matrix in (kernel(one, one), kernel(other, other)))
    return float(within / (count * (count - 1)) - 2 * kernel(one, other).mean())


def inception_score(output: Features, truth: Features, seed: int) -> Score:
    """Inception score (Salimans et al. 2016, section 4): exp of the mean KL divergence of a picture's classes from its split's.

    `output` are logits; `truth` is not used. Mean and standard deviation over 10 random splits, as in torchmetrics.
    """
    logits = np.random.default_rng(seed).permutation(output).astype(np.float64)
    scores = []
    for split in np.array_split(logits, IS_SPLITS):
        log_p = split - split.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        scores.append(np.exp((p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))
