"""The types of a call of `Colorizer`: mypy checks this file with the package, and an ignored error that is none is an error."""

from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recolor.inference import Colorizer


def use(
    c: Colorizer, image: Image.Image, array: NDArray[np.uint8], mixed: list[Image.Image | NDArray[np.uint8]]
) -> None:
    assert_type(c(image), Image.Image)
    assert_type(c(array), NDArray[np.uint8])
    assert_type(c((array, array)), list[NDArray[np.uint8]])
    assert_type(c([image, image]), list[Image.Image])
    assert_type(c(mixed), list[Image.Image | NDArray[np.uint8]])
    assert_type(c(Image.open("a")), Image.Image)
    files = [Image.open("a")]
    assert_type(c(files), list[Image.Image])
    c("photo.jpg")  # type: ignore[type-var]
    c(3)  # type: ignore[call-overload]
    c(["photo.jpg"])  # type: ignore[type-var]
    c(image, size="32")  # type: ignore[call-overload]
