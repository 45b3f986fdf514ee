"""RGB and normalised CIELAB, for training and inference alike.

Normalised means L / 50 - 1 and ab / 110: the three channels then lie in [-1, 1] (sRGB's a and b span -86 to 98 and -108 to
94). The cache is made with scikit-image's conversion; all else works on torch tensors of any device, and is tested against it.
Conversions are split at a threshold by `clamp(min=t)` through the curve plus `clamp(max=t) - t` through the line below it:
`torch.where` takes many times as long.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

L_CENTRE = 50.0
AB_SCALE = 110.0
LIGHTNESS_SLACK = 0.2  # units of L that `into_gamut` may change
STRIP = 2**14  # pixels converted at once: what fits the processor's cache takes half the time

# sRGB's primaries and white (D65, 2 degree observer): IEC 61966-2-1, with the digits that scikit-image inverts.
_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_LUMINANCE = _XYZ_FROM_RGB[1].tolist()
_X_WHITE, _Z_WHITE = 0.95047, 1.08883
_RGB_FROM_XYZ = (np.linalg.inv(_XYZ_FROM_RGB) * (_X_WHITE, 1.0, _Z_WHITE)).tolist()  # XYZ relative to white
_T = 0.008856  # of XYZ: CIELAB's curve is a line below it
_CUBE_ROOT_T = _T ** (1 / 3)
_SLOPE = 7.787

# Grid of the table behind `into_gamut`: L, and steps of hue in each quadrant of a and b.
_LEVELS = 257
_HUES = 128


def rgb_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) 8-bit RGB to (3, H, W) normalised Lab in [-1, 1]."""
    from skimage.color import rgb2lab  # not at the top: it imports SciPy, which colouring a photo does not need

    height, width, _ = rgb.shape
    lab = np.empty((3, height, width), np.float32)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = rgb2lab(rgb[top : top + rows].astype(np.float32) / 255).transpose(2, 0, 1)
        lab[:1, top : top + rows] = strip[:1] / L_CENTRE - 1
        lab[1:, top : top + rows] = strip[1:] / AB_SCALE
    return lab


def rgb_to_lightness(rgb: "Tensor") -> "Tensor":
    """(H, W, 3) or (H, W, 4) 8-bit RGB or RGBA to (1, H, W) normalised L, equal to the first channel of `rgb_to_lab`."""
    height, width, _ = rgb.shape
    tables = _linear_levels(rgb.device)
    channels = (tables[i].index_select(0, rgb[..., i].flatten().int()) for i in range(3))
    return _lightness(sum(channels, start=tables.new_zeros(height * width))).view(1, height, width)


def film_lightness(lab: "Tensor", sensitivity: "Tensor") -> "Tensor":
    """(B, 1, H, W) normalised L of (B, 3, H, W) normalised Lab as black-and-white film would record it.

    `sensitivity` (B, 3) of the film is the weight of linear red, green and blue; rows sum to 1, so greys keep their L. The
    eye's is (0.21, 0.72, 0.07). Colours outside sRGB are clipped.
    """
    import torch

    linear = torch.stack(_linear_rgb(*lab.unbind(1)), dim=1).clamp_(0, 1)
    return _lightness((sensitivity[:, :, None, None] * linear).sum(dim=1, keepdim=True))


def lab_to_rgb(lab: "Tensor") -> "Tensor":
    """(B, 3, H, W) normalised Lab, any float type, to (B, 3, H, W) 8-bit RGB. Outside sRGB, each channel is clipped."""
    import torch  # not at the top: the processes of preprocess need `rgb_to_lab` only, and torch costs each of them seconds

    channels = []
    for linear in _linear_rgb(*lab.float().unbind(1)):
        linear = linear.clamp_(0, 1)
        srgb = linear.clamp(min=0.0031308).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
        srgb += linear.clamp_(max=0.0031308).sub_(0.0031308).mul_(12.92)
        channels.append(srgb.mul_(255).round_().to(torch.uint8))
    return torch.stack(channels, dim=1)


def into_gamut(lab: "Tensor") -> "Tensor":
    """(B, 3, H, W) normalised Lab with the chroma of pixels outside sRGB reduced until `lab_to_rgb`'s clipping keeps their L.

    Clipping then moves L by about LIGHTNESS_SLACK at most, and rounding to 8 bits by 0.25; alone it moves L by up to tens of
    units. Without slack saturated yellows and blues, on the edge of sRGB, would lose most of their chroma.
    """
    import torch

    lab = lab.float()
    red, green, blue = _linear_rgb(*lab.unbind(1))
    outside = torch.maximum(torch.maximum(red, green), blue) > 1
    outside |= torch.minimum(torch.minimum(red, green), blue) < 0
    indices = outside.flatten().nonzero()[:, 0]
    planes = [plane.flatten() for plane in lab.unbind(1)]
    lightness, a, b = (plane.index_select(0, indices) for plane in planes)
    share = _share(lightness, a, b)
    reduced = [plane.index_copy(0, indices, ab * share) for plane, ab in zip(planes[1:], (a, b), strict=True)]
    return torch.stack([planes[0], *reduced]).view(3, len(lab), *lab.shape[2:]).transpose(0, 1)


def _share(lightness: "Tensor", a: "Tensor", b: "Tensor") -> "Tensor":
    """(n,) share of a and b, 0 to 1, that n colours may keep, by bilinear interpolation in `_gamut_table`."""
    table = _gamut_table(lightness.device)
    levels, hues = table.shape
    flat = table.flatten()
    size = (a.abs() + b.abs()).clamp_(min=1e-6)
    level = (lightness + 1) * ((levels - 1) / 2)
    hue = (_hue(a, b / size) + 2) * _HUES
    row, column = level.int().clamp_(0, levels - 2), hue.int().clamp_(0, hues - 2)
    level, hue = level - row, hue - column
    corner = row * hues + column
    starts = corner, corner + hues
    above, below = (flat.index_select(0, start).lerp(flat.index_select(0, start + 1), hue) for start in starts)
    return above.lerp_(below, level).mul_(size).reciprocal_().clamp_(max=1)


def _hue(a: "Tensor", side: "Tensor") -> "Tensor":
    """-2 to 2, linear along each side of the diamond |a| + |b| = 1; `side` is b there."""
    return a.ge(0) * side + a.lt(0) * (2 * side.ge(0).float() - 1).mul_(2).sub_(side)


@functools.lru_cache(maxsize=4)
def _gamut_table(device: "torch.device") -> "Tensor":
    """(_LEVELS, 4 * _HUES + 1): for each L and hue, 1 / (|a| + |b|) of the largest chroma that `into_gamut` keeps.

    A straight edge of the gamut is a straight line in the reciprocal. Interpolation adds up to a tenth of the slack.
    """
    import torch

    lightness = torch.linspace(-1, 1, _LEVELS)[:, None].expand(-1, 4 * _HUES + 1)
    hue = torch.linspace(-2, 2, 4 * _HUES + 1).expand_as(lightness)
    b = torch.where(hue.abs() > 1, 2 * hue.sign() - hue, hue)
    a = torch.where(hue.abs() > 1, b.abs() - 1, 1 - b.abs())
    largest, step = torch.zeros_like(lightness), 2.0
    for _ in range(20):
        more = largest + step
        largest = torch.where(_lightness_change(lightness, a * more, b * more) < 0.9 * LIGHTNESS_SLACK, more, largest)
        step /= 2
    return largest.clamp(min=1e-4).reciprocal().to(device)


def _lightness_change(lightness: "Tensor", a: "Tensor", b: "Tensor") -> "Tensor":
    """Units of L by which clipping changes normalised Lab colours, to first order."""
    luminance = changed = 0.0 * lightness
    for weight, linear in zip(_LUMINANCE, _linear_rgb(lightness, a, b), strict=True):
        luminance = luminance + weight * linear
        changed = changed + weight * (linear - linear.clamp(0, 1)).abs()
    return changed * 116 / 3 * luminance.clamp(min=_T) ** (-2 / 3)  # dL/dY


def _lightness(y: "Tensor") -> "Tensor":
    """Normalised L of the luminance Y from 0 to 1."""
    f = y.clamp(min=_T) ** (1 / 3) + (y.clamp(max=_T) - _T) * _SLOPE
    return (116 * f - 16) / L_CENTRE - 1


def _linear_rgb(lightness: "Tensor", a: "Tensor", b: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Linear red, green and blue of normalised Lab; outside [0, 1] for colours outside sRGB."""
    f = (lightness * L_CENTRE + (L_CENTRE + 16)) / 116
    x = _cubed(a * (AB_SCALE / 500) + f)
    z = _cubed((f - b * (AB_SCALE / 200)).clamp_(min=0))
    y = _cubed(f)
    red, green, blue = ((x * of_x).add_(y, alpha=of_y).add_(z, alpha=of_z) for of_x, of_y, of_z in _RGB_FROM_XYZ)
    return red, green, blue


def _cubed(f: "Tensor") -> "Tensor":
    """CIELAB's curve, backwards."""
    return f.clamp(min=_CUBE_ROOT_T).pow_(3).add_((f.clamp(max=_CUBE_ROOT_T) - _CUBE_ROOT_T) / _SLOPE)


@functools.lru_cache(maxsize=4)
def _linear_levels(device: "torch.device") -> "Tensor":
    """(3, 256): what each 8-bit level of red, green and blue adds to the luminance Y."""
    import torch

    levels = np.arange(256) / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    return torch.from_numpy(np.outer(_LUMINANCE, linear).astype(np.float32)).to(device)
