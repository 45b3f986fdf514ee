"""Shows trained models on scikit-image's photos: python docs/runs/show.py OUT.png NAME=FOLDER...

The photos of a run may not be published; these may, and no model here was trained on them. Their middle squares are resized to
256x256, as in training.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from recolor.images.color import rgb_to_lab
from recolor.models.folder import load_generator
from recolor.models.pictures import GREY, TRUTH, colourings, to_rgb
from recolor.reporting.figures import image_grid

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")
SHOWN = 176  # pixels


def photo(name: str) -> Image.Image:
    found = getattr(data, name)()
    image = Image.fromarray(found[0] if isinstance(found, tuple) else found)
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.resize((256, 256), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def shown(lab: torch.Tensor) -> np.ndarray:
    pictures = to_rgb(lab).permute(0, 2, 3, 1).numpy()
    return np.stack([np.asarray(Image.fromarray(picture).resize((SHOWN, SHOWN))) for picture in pictures])


def main(out: Path, models: dict[str, Path]) -> None:
    lab = torch.from_numpy(np.stack([rgb_to_lab(np.asarray(photo(name))) for name in PHOTOS]))
    rows = colourings(lab, {name: load_generator(folder) for name, folder in models.items()})
    labels = {GREY: "input L", **{name: name for name in models}, TRUTH: "truth"}
    image_grid({label: shown(rows[name]) for name, label in labels.items()}).save(out, quality=90)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        {name: Path(folder) for name, _, folder in (word.partition("=") for word in sys.argv[2:])},
    )
