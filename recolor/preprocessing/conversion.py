"""From one row of a listing to one tensor. Without torch and pandas, which take each worker process seconds to load."""

import hashlib
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from PIL import Image

from recolor.images.color import AB_SCALE, rgb_to_lab
from recolor.images.decoding import decode
from recolor.images.opening import PhotoError, is_photo, locate, open_file


class ListedPhoto(NamedTuple):
    """A row of a listing; see `sources.listing`."""

    path: str
    size: int
    sha256: str
    crop: str


class Converted(NamedTuple):
    """A photo as the cache stores it."""

    width: int  # of the upright, cropped photo before resizing
    height: int
    chroma: float  # its mean, in CIELAB units
    tensor_sha256: str
    tensor: bytes  # float16, little-endian, (3, size, size)


def convert(photo: ListedPhoto, root: Path, size: int, min_chroma: float) -> Converted | str:
    """Reads and decodes a photo, resizes it to size x size as pix2pix does (bicubic), and converts it to normalised Lab.

    The result is a reason where the photo is rejected.
    """
    try:
        with open_file(locate(root, photo.path)) as file:
            if not photo.sha256 and not is_photo(photo.path):
                return "not a photo by its name or content"
            content = file.read(photo.size + 1)
        if len(content) != photo.size or hashlib.sha256(content).hexdigest() != photo.sha256:
            return "changed since it was listed"
        crop = tuple(int(edge) for edge in photo.crop.split(",")) if photo.crop else None
        image = decode(content, cast("tuple[int, int, int, int] | None", crop))
    except PhotoError as error:
        return str(error)
    lab = rgb_to_lab(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
    chroma = round(AB_SCALE * float(np.sqrt(lab[1] ** 2 + lab[2] ** 2).mean(dtype=np.float64)), 2)
    if chroma < min_chroma:
        return f"grey: its mean chroma is {chroma:.2f}"
    tensor = lab.astype("<f2").tobytes()
    return Converted(image.width, image.height, chroma, hashlib.sha256(tensor).hexdigest(), tensor)


def lost(photo: ListedPhoto, limit: float | None) -> str:
    """The reason for a photo that crashed its process, or needed more than `limit` seconds."""
    return "crashed the process that decoded it" if limit is None else f"took more than {limit:g} s to decode"
