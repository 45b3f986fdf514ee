"""Scores of single pictures (PSNR, SSIM, colourfulness), and bootstrap intervals of their means.

Pictures are (B, 3, H, W) 8-bit RGB tensors on any device, up to 8,000 pixels wide. Every metric has the signature that
`metrics.ImageMetric` needs: (output, truth) to (B,) float64 values, none of which depends on the other photos of its batch.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

PEAK = 255
LEVEL = 0.95  # of the bootstrap's intervals

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5  # an 11x11 window
_SSIM_C1 = (0.01 * PEAK) ** 2
_SSIM_C2 = (0.03 * PEAK) ** 2


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB, over all pixels and channels of a photo.

    The squared errors are summed exactly, as integers. Identical pictures have an infinite PSNR.
    """
    difference = output.int() - truth.int()
    squared_error = _double(difference.square().sum(-1, dtype=torch.int32).sum((1, 2)))
    return 10 * torch.log10(PEAK**2 * difference[0].numel() / squared_error)


def pooled_psnr(psnr: ArrayLike) -> float:
    """PSNR of the mean squared error of all pictures of one size together, from each picture's PSNR. Lower than their mean."""
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(np.mean(10 ** (np.asarray(psnr, dtype=np.float64) / -10))))


def ssim(output: Tensor, truth: Tensor) -> Tensor:
    """(B,) structural similarity (Wang et al. 2004, eq. 13), the mean over RGB and over every 11x11 window inside the photo.

    Gaussian weights of sigma 1.5, population covariance, K1 0.01, K2 0.03: scikit-image's `gaussian_weights=True,
    use_sample_covariance=False`. torchmetrics' filter is 50 times slower on a CPU. This one is separable and works on sum and
    difference: with s = x + y and d = x - y, 4 mean(x) mean(y) = mean(s)^2 - mean(d)^2 and 4 cov(x, y) = var(s) - var(d).
    """
    x, y = output.float(), truth.float()
    s, d = x + y, x - y
    mean_s, mean_d = _blur(s).square(), _blur(d).square()
    var_s, var_d = _blur(s.square()) - mean_s, _blur(d.square()) - mean_d
    luminance = (mean_s - mean_d + 2 * _SSIM_C1) / (mean_s + mean_d + 2 * _SSIM_C1)
    structure = (var_s - var_d + 2 * _SSIM_C2) / (var_s + var_d + 2 * _SSIM_C2)
    return _double((luminance * structure).mean(-1)).mean((1, 2))


def _blur(channels: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 3, H - 10, W - 10): Gaussian means of the windows that lie inside."""
    offsets = np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    for axis in (2, 3):
        length = channels.shape[axis] - 2 * _SSIM_RADIUS
        mean = channels.narrow(axis, 0, length) * (weights[0] / weights.sum())
        for start, weight in enumerate(weights[1:] / weights.sum(), start=1):
            mean.add_(channels.narrow(axis, start, length), alpha=float(weight))
        channels = mean
    return channels


def colourfulness(output: Tensor, truth: Tensor | None = None) -> Tensor:
    """(B,) Hasler and Suesstrunk's metric M3 (2003): sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2).

    rg = R - G and yb = (R + G) / 2 - B, signed as in their paper. 0 is grey; viewers called 15 slightly, 45 averagely and 82
    highly colourful. `truth` is not used.
    """
    r, g, b = output.int().unbind(1)
    mean_rg, var_rg = _mean_and_variance(r - g)
    mean_yb, var_yb = _mean_and_variance(r + g - 2 * b)  # twice yb, to keep integers
    return (var_rg + var_yb / 4).sqrt() + 0.3 * (mean_rg**2 + mean_yb**2 / 4).sqrt()


def colourfulness_distance(output: Tensor, truth: Tensor) -> Tensor:
    """(B,) absolute differences from the true photos' colourfulness."""
    return (colourfulness(output) - colourfulness(truth)).abs()


def _mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of each photo's integers (B, H, W), from exact sums: the same for every batch and device."""
    total, squares = (_double(v.sum(-1, dtype=torch.int32).sum(-1)) for v in (values, values.square()))
    count = values[0].numel()
    return total / count, (squares * count - total**2) / count**2


def _double(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()


def bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.object_], resamplings: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high ends (K,) of the 95% percentile intervals of K means; `values` is (N, K) and `groups` (N,).

    Draws groups, not photos, because crops of one photo resemble each other (Efron and Tibshirani 1993, chapter 13; Davison and
    Hinkley 1997, section 3.8). NaN for fewer than two groups. An end is a drawn mean, so infinite ends stay infinite.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return (np.full(values.shape[1], np.nan),) * 2
    sums = np.stack([np.bincount(group, column, count) for column in values.T], axis=1)
    sizes = np.bincount(group, minlength=count)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(count, size=count) for _ in range(resamplings))
    means = np.stack([sums[draw].sum(axis=0) / sizes[draw].sum() for draw in drawn])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
