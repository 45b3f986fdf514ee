"""Augmentation on the device: crops, and the tones of old photos. The mirror is drawn where the batches are (batches.py)."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recolor.core.params import Section
from recolor.images.color import L_CENTRE, film_lightness

GAMMA = 0.5  # of L in [0, 1]: the exponent lies between exp(-GAMMA) and exp(GAMMA)
CONTRAST = 0.3  # around middle grey: a factor between 1 - CONTRAST and 1 + CONTRAST
GRAIN = 0.06  # largest standard deviation of the noise, in L from 0 to 1
BLUE = (0.3, 0.8)  # of film's sensitivity to green and blue, the part to blue
BORDER = 0.06  # widest border, as a share of the side; every fourth toned photo has one


class AugmentParams(Section, frozen=True):
    """Section `augment`."""

    flip: bool  # mirrors half of the photos
    crop: float = Field(gt=0, le=1)  # the smallest share of the sides that a random crop keeps
    tone: float = Field(ge=0, le=1)  # the share of the photos with another lightness
    film: float = Field(ge=0, le=1)  # the share with the lightness that old film would record


def augment(lab: Tensor, params: AugmentParams, key: tuple[int, ...]) -> Tensor:
    """Normalised Lab (B, 3, H, W), float32, cropped, on film and toned, if `params` asks for it. `key` decides every draw."""
    if params.crop == 1 and params.tone == 0 and params.film == 0:
        return lab
    rng = np.random.default_rng(key)
    if params.crop < 1:
        lab = _cropped(lab, params.crop, rng)
    if params.film > 0:
        lab = _on_film(lab, params.film, rng)
    if params.tone > 0:
        lab = _toned(lab, params.tone, rng)
    return lab.contiguous(memory_format=torch.channels_last)


def _cropped(lab: Tensor, smallest: float, rng: np.random.Generator) -> Tensor:
    """A box of each photo, with its aspect, brought back to the size of the photo bilinearly."""
    side = rng.uniform(smallest, 1, len(lab))
    boxes = np.zeros((len(lab), 2, 3), np.float32)  # from the result's coordinates to the photo's, both from -1 to 1
    boxes[:, 0, 0] = boxes[:, 1, 1] = side
    boxes[:, :, 2] = rng.uniform(-1, 1, (len(lab), 2)) * (1 - side)[:, None]
    grid = F.affine_grid(torch.from_numpy(boxes).to(lab.device), list(lab.shape), align_corners=False)
    return F.grid_sample(lab, grid, padding_mode="border", align_corners=False)


def _on_film(lab: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """The lightness of a share of the photos as film before panchromatic film recorded it: red darker, blue lighter."""
    count = len(lab)
    chosen = _column(rng.random(count) < share, lab)
    red = rng.uniform(0, 1 / 3, count)
    blue = (1 - red) * rng.uniform(*BLUE, count)
    sensitivity = torch.from_numpy(np.stack([red, 1 - red - blue, blue], axis=1)).to(lab)
    return torch.where(chosen, _relit(lab, film_lightness(lab, sensitivity)), lab)


def _toned(lab: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Another gamma, contrast, sharpness, grain and perhaps a border for a share of the photos. Under a border ab are 0."""
    count = len(lab)
    chosen = _column(rng.random(count) < share, lab)
    gamma = _column(np.exp(rng.uniform(-GAMMA, GAMMA, count)), lab)
    contrast = _column(rng.uniform(1 - CONTRAST, 1 + CONTRAST, count), lab)
    softness = _column(rng.random(count), lab)
    strength = _column(rng.uniform(0, GRAIN, count), lab)
    noise = torch.Generator(lab.device).manual_seed(int(rng.integers(2**63)))

    lightness = ((lab[:, :1] + 1) / 2).clamp(0, 1) ** gamma
    lightness = (lightness - 0.5) * contrast + 0.5
    ab = _relit(lab, lightness.clamp(0, 1) * 2 - 1)[:, 1:]
    blurred = F.avg_pool2d(lightness, 3, stride=1, padding=1, count_include_pad=False)
    lightness = lightness + softness * (blurred - lightness)
    grain = torch.randn(lightness.shape, generator=noise, device=lab.device, dtype=lab.dtype)
    lightness = (lightness + strength * grain).clamp(0, 1)

    border = torch.from_numpy(_borders(rng, count, lab.shape[-2:])).to(lab.device)
    paper = _column(np.where(rng.random(count) < 0.7, rng.uniform(0.8, 1, count), rng.uniform(0, 0.15, count)), lab)
    toned = torch.cat([torch.where(border, paper, lightness) * 2 - 1, ab * ~border], dim=1)
    return torch.where(chosen, toned, lab)


def _relit(lab: Tensor, lightness: Tensor) -> Tensor:
    """`lab` at another normalised lightness (B, 1, H, W). Where that is lower, the chromaticity stays.

    XYZ times k multiplies L + 16, a and b by the cube root of k (CIELAB above L = 8). A dark face with a bright face's ab
    would be red, and a model would learn to paint it so. Lighter pixels keep ab: more would often leave sRGB.
    """
    black = -1 - 16 / L_CENTRE  # L = -16
    ratio = (lightness - black) / (lab[:, :1] - black)
    return torch.cat([lightness, lab[:, 1:] * ratio.clamp(max=1)], dim=1)


def _borders(rng: np.random.Generator, count: int, shape: torch.Size) -> NDArray[np.bool_]:
    """(B, 1, H, W): true on the border of every fourth photo, about."""
    height, width = shape
    masks = np.ones((count, 1, height, width), bool)
    for mask in masks:
        left, right, top, bottom = rng.uniform(0, BORDER, 4) * (rng.random() < 0.25)
        rows = slice(round(top * height), height - round(bottom * height))
        columns = slice(round(left * width), width - round(right * width))
        mask[0, rows, columns] = False
    return masks


def _column(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1) on the device of `like`."""
    tensor = torch.from_numpy(values).view(-1, 1, 1, 1).to(like.device)
    return tensor if tensor.dtype == torch.bool else tensor.to(like.dtype)
