"""Photos to colour, and what tests measure in results."""

import os
from pathlib import Path

import battery
import numpy as np
from PIL import Image

from recolor.images.color import rgb_to_lab

YEAR_2001 = 1_000_000_000


def lightness(image: Image.Image) -> np.ndarray:
    """L, 0 to 100."""
    return rgb_to_lab(np.asarray(image.convert("RGB")))[0] * 50 + 50


def save(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    battery.picture(seed).save(path, **options)
    os.utime(path, (YEAR_2001, YEAR_2001))
    return path
