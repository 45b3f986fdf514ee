"""How close each photo's colours come to the true ones: PSNR, SSIM, colourfulness, and how sure their means are.

Pictures are (B, 3, H, W) 8-bit RGB tensors on any device, up to 8,000 pixels wide: what a user gets is what is measured.
Every metric gives one value a photo, float64 on the pictures' device (of MPS, which has none, on the CPU), and no value
depends on the other photos of its batch. FID, KID and IS, which are of whole sets, are in `inception`.
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


def squared_error(output: Tensor, truth: Tensor) -> Tensor:
    """(B,) sums of the squared differences over a photo's pixels and channels, in 8-bit levels: whole numbers, exact."""
    difference = output.int() - truth.int()
    return _double(difference.square().sum(-1, dtype=torch.int32).sum((1, 2)))


def psnr(squared_error: ArrayLike, count: int) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio, dB, from summed squared errors over `count` values each (for one photo 3 * H * W).

    Of a whole set pooled into one picture where both are its totals. Identical pictures have infinite PSNR and keep it: a
    cap would be an invented number, and the mean over a set with such a photo is infinite as well.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 * count / np.asarray(squared_error, dtype=np.float64))


def ssim(output: Tensor, truth: Tensor) -> Tensor:
    """(B,) structural similarity (Wang et al. 2004, eq. 13), the mean over RGB and over every 11x11 window inside the photo.

    Gaussian weights of sigma 1.5, population covariance, K1 0.01, K2 0.03: scikit-image's `gaussian_weights=True,
    use_sample_covariance=False`, whose borders of 5 pixels do not count either. torchmetrics averages over mirrored borders
    as well, and its two-dimensional filter takes 50 times as long on a CPU. This one is separable, and works on sum and
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


def colourfulness(rgb: Tensor) -> Tensor:
    """(B,) Hasler and Suesstrunk's M3 (2003, eq. 1): sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2).

    Signed, as in the paper: rg = R - G and yb = (R + G) / 2 - B, where some code takes absolute values. 0 is grey; the paper's
    viewers called 15 slightly, 45 averagely and 82 highly colourful.
    """
    r, g, b = rgb.int().unbind(1)
    mean_rg, var_rg = _mean_and_variance(r - g)
    mean_yb, var_yb = _mean_and_variance(r + g - 2 * b)  # twice yb, to stay with whole numbers
    return (var_rg + var_yb / 4).sqrt() + 0.3 * (mean_rg**2 + mean_yb**2 / 4).sqrt()


def _mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of each photo's whole numbers (B, H, W), from their exact sums: alike for every batch and device."""
    total, squares = (_double(v.sum(-1, dtype=torch.int32).sum(-1)) for v in (values, values.square()))
    count = values[0].numel()
    return total / count, (squares * count - total**2) / count**2


def _double(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()


def bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.object_], resamplings: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high ends (K,) of the 95% percentile intervals of K means, `values` being (N, K) and `groups` (N,).

    Groups are drawn, not photos (Efron and Tibshirani 1993, chapter 13; for clusters, Davison and Hinkley 1997, section
    3.8): the crops of one photo resemble each other, and drawn on their own would make the intervals far too narrow. Where
    every photo is a group of its own this is the ordinary bootstrap. NaN where there are fewer than two groups. The ends are
    means that were drawn, never something between two, so that infinite ones stay infinite.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    sums = np.stack([np.bincount(group, column, count) for column in values.T], axis=1)
    sizes = np.bincount(group, minlength=count)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(count, size=count) for _ in range(resamplings))
    means = np.stack([sums[draw].sum(axis=0) / sizes[draw].sum() for draw in drawn])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
