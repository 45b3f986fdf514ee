"""RGB and normalised CIELAB, for training and inference alike.

Normalised means L / 50 - 1 and ab / 110, so that the three channels lie in [-1, 1] (sRGB's a and b span -86 to 98 and -108 to
94). The way in is scikit-image's, once a photo; the way out runs on the device where the generator runs, and a test holds it to
scikit-image's within one 8-bit level on every colour.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

if TYPE_CHECKING:
    from torch import Tensor

L_CENTRE = 50.0
AB_SCALE = 110.0
LIGHTNESS_SLACK = 0.2  # units of L that `into_gamut` gives away
STRIP = 2**14  # pixels converted at once: what stays in the processor's cache takes half the time

# sRGB's primaries and white (D65, 2 degree observer): IEC 61966-2-1, with the digits that scikit-image inverts.
_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) 8-bit RGB to (3, H, W) normalised Lab in [-1, 1]."""
    height, width, _ = rgb.shape
    lab = np.empty((3, height, width), np.float32)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = rgb2lab(rgb[top : top + rows].astype(np.float32) / 255).transpose(2, 0, 1)
        lab[:1, top : top + rows] = strip[:1] / L_CENTRE - 1
        lab[1:, top : top + rows] = strip[1:] / AB_SCALE
    return lab


def lab_to_rgb(lab: "Tensor") -> "Tensor":
    """(B, 3, H, W) normalised Lab, any float type, to (B, 3, H, W) 8-bit RGB. Outside sRGB, each channel is clipped."""
    import torch  # not at the top: the processes of preprocess need the way in only, and torch costs each of them seconds

    linear = _linear_rgb(lab)
    srgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (srgb.clamp(0, 1) * 255).round().to(torch.uint8)


def into_gamut(lab: "Tensor") -> "Tensor":
    """(B, 3, H, W) normalised Lab, pixels outside sRGB made as much greyer as `lab_to_rgb`'s clipping needs to keep their L.

    Clipping alone moves L by up to tens of units; after this by LIGHTNESS_SLACK at most, to which the rounding to 8 bits adds
    0.25. No slack at all would cost saturated yellows and blues, on the edge of sRGB, most of their chroma. The share of the
    chroma that stays is found by bisection, to 1/1024.
    """
    import torch

    def kept(colours: "Tensor") -> "Tensor":
        linear = _linear_rgb(colours)
        luminance = linear.new_tensor(_XYZ_FROM_RGB[1])
        y = torch.einsum("i,bihw->bhw", luminance, linear)
        moved = torch.einsum("i,bihw->bhw", luminance, (linear - linear.clamp(0, 1)).abs())
        return moved * (116 / 3 * y.clamp(min=0.008856) ** (-2 / 3)) < LIGHTNESS_SLACK  # dL/dY

    outside = ~kept(lab)
    colours = lab.movedim(1, 0)[None, :, outside, None]  # (1, 3, pixels, 1)
    share = torch.zeros_like(colours[:, :1])
    for step in range(1, 11):
        more = share + 0.5**step
        inside = kept(torch.cat([colours[:, :1], colours[:, 1:] * more], dim=1))[:, None]
        share = torch.where(inside, more, share)
    result = lab.clone()
    result.movedim(1, 0)[1:, outside] = (colours[:, 1:] * share)[0, :, :, 0]
    return result


def _linear_rgb(lab: "Tensor") -> "Tensor":
    """Without the transfer curve; outside [0, 1] for colours outside sRGB."""
    import torch

    lab = lab.float()
    y = (lab[:, 0] * L_CENTRE + L_CENTRE + 16) / 116
    x = lab[:, 1] * AB_SCALE / 500 + y
    z = (y - lab[:, 2] * AB_SCALE / 200).clamp(min=0)
    f = torch.stack([x, y, z], dim=1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * f.new_tensor(_WHITE).view(3, 1, 1)
    return torch.einsum("ij,bjhw->bihw", f.new_tensor(_RGB_FROM_XYZ), xyz)
