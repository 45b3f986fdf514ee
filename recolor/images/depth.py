"""Photos with more than 8 bits per channel, scaled to 8 bits; for most TIFFs see `tiff`.

The brightest possible value, here "white", is what the file states: TIFF's MaxSampleValue or BitsPerSample, OME's
SignificantBits, PNG's sBIT. If it states nothing, and the upper bits of all values are zero, white is the largest value of the
10, 12 or 14 bits that are in use, and a note states it: scanners and cameras often store these in 16 bits.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE

from recolor.images.opening import PhotoError

STRIP = 2**20  # pixels scaled at a time: in one piece, 100 megapixels of float need 400 MB for each step
WIDTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras use

Part = tuple[int, int, int, NDArray[Any]]  # of a photo: first row, column and channel, and the values (h, w, c)


def is_deep(image: Image.Image) -> bool:
    """Whether `image`, opened and not loaded, has more than 8 bits per channel."""
    bits = getattr(image, "tag_v2", {}).get(BITSPERSAMPLE, (8,))
    return image.mode.startswith(("I", "F")) or ";16" in _rawmode(image) or max(bits) > 8 or _is_deep_ppm(image)


def load_eight_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Loads `image` and returns it with 8 bits per channel, itself if it has no more, and notes about guesses.

    Raises PhotoError.
    """
    tiles: Any = getattr(image, "tile", [])
    content = b""
    if image.format in ("PNG", "PPM") and _rawmode(image).endswith(";16B"):
        content = _content(image)  # now: Pillow may close the file when it loads the pixels
    stated = _significant_bits(content) if image.format == "PNG" else None
    if image.format == "PPM" and tiles and tiles[0].codec_name != "raw":
        stated = 2**16 - 1  # Pillow scales it as its header says
    image.load()
    if image.mode.startswith(("I", "F")):
        return _scaled_grey(image, stated)
    if not content or image.tell():  # of an animation, `content` is the first frame
        return image, []
    colours = image if image.mode == "RGB" else image.convert("RGB")  # without alpha
    if max(top for _, top in colours.getextrema()) >= 2**6 and stated in (None, 2**16 - 1):  # type: ignore[misc]
        return image, []  # more than 14 bits are in use: the upper byte, which Pillow gives
    if image.format == "PNG":
        import imagecodecs  # not at the top: few photos need it

        logging.getLogger("imagecodecs").setLevel(logging.ERROR)  # libpng warns of metadata
        values = imagecodecs.png_decode(content)
    else:
        values = np.frombuffer(content, ">u2", 3 * image.width * image.height, tiles[0].offset)
        values = values.reshape(image.height, image.width, 3)
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}[values.shape[2]]
    result, notes = scale(lambda: [(0, 0, 0, values)], values.shape, 1 if mode == "LA" else 3, 16, stated)
    return Image.frombytes(mode, image.size, result.data), notes


def _content(image: Any) -> bytes:
    """The bytes of the file of `image`, whose position is kept."""
    position = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(position)
    return cast(bytes, content)


def _significant_bits(png: bytes) -> int | None:
    """White by a PNG's sBIT chunk, which stands before the pixels."""
    place = 8
    while (name := png[place + 4 : place + 8]) not in (b"", b"IDAT"):
        end = place + 8 + int.from_bytes(png[place : place + 4])
        if name == b"sBIT" and place + 8 < end <= place + 12:
            return 2 ** max(png[place + 8 : end]) - 1
        place = end + 4
    return None


def _rawmode(image: Image.Image) -> str:
    """How the decoder of `image` packs pixels; "" for an image that is not from a file."""
    arguments = tiles[0][3] if (tiles := getattr(image, "tile", [])) else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _is_deep_ppm(image: Any) -> bool:
    """Whether it has 16-bit colours, and Pillow's decoder for values of any range."""
    return bool(image.format == "PPM" and image.tile and tuple(image.tile[0])[::3] == ("ppm", ("RGB", 2**16 - 1)))


def decode_ppm_as_raw(image: Any) -> None:
    """Has a PPM of 16-bit colours, opened and not loaded, decoded by the decoder that gives the upper byte."""
    if _is_deep_ppm(image):
        image.tile = [image.tile[0]._replace(codec_name="raw", args="RGB;16B")]


def highest_value(values: NDArray[Any]) -> float:
    """The largest of `values`. Raises PhotoError for values that are negative or not finite."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise PhotoError("brightness values that are negative or not numbers")
    return float(values.max())


def white_level(highest: float, bits: int, stated: int | None, is_float: bool = False) -> tuple[float, list[str]]:
    """The value that is white, and a note if it is guessed from the bits in use."""
    if is_float:
        return next((top for top in (1.0, 255.0, 65535.0, 2.0**32) if highest <= top), highest), []
    if stated is not None and 0 < highest <= stated < 2**32:
        return stated, []
    width = next((width for width in WIDTHS if width < bits and highest < 2**width), bits)
    note = f"its values fill {width} of {bits} bits: scaled up as {width}-bit values"
    return 2**width - 1, [note] if width < bits and highest > 0 else []


def to_bytes(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """`values` from 0 to `white` in 8 bits."""
    if white == 2**16 - 1 and values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)  # as Pillow does with 16-bit RGB
    return np.rint(np.minimum(values.astype(np.float32) * (255 / white), 255)).astype(np.uint8)


def scale(
    parts: Callable[[], Iterable[Part]], shape: tuple[int, ...], colours: int, bits: int, stated: int | None
) -> tuple[NDArray[np.uint8], list[str]]:
    """The values of a photo in 8 bits, (H, W, C), and notes about guesses. Raises PhotoError.

    `parts` is called twice: for the largest values, and to scale. The first `colours` channels have one white; that of alpha,
    which may follow them, is as bright or brighter.
    """

    def strips() -> Iterator[tuple[tuple[Any, ...], NDArray[Any]]]:
        for top, left, first, part in parts():
            height, width, channels = part.shape
            for start in range(0, height, rows := max(1, STRIP // width)):
                strip = part[start : start + rows]
                place = slice(top + start, top + start + len(strip)), slice(left, left + width)
                for channel in range(first, min(first + channels, shape[2])):
                    yield (*place, channel), strip[..., channel - first]

    highest = [0.0] * shape[2]
    for place, values in strips():
        highest[place[2]] = max(highest[place[2]], highest_value(values))
    white, notes = white_level(max(highest[:colours]), bits, stated, values.dtype.kind == "f")
    opaque, _ = white_level(max(highest), bits, stated, values.dtype.kind == "f")
    result = np.empty(shape, np.uint8)
    for place, values in strips():
        result[place] = to_bytes(values, white if place[2] < colours else opaque)
    return result, notes


def _scaled_grey(image: Image.Image, stated: int | None) -> tuple[Image.Image, list[str]]:
    """`image` of mode I, I;16 or F; L, or LA where one value is transparent."""

    def parts() -> Iterator[Part]:
        for top in range(0, image.height, rows := max(1, STRIP // image.width)):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            yield top, 0, 0, np.asarray(strip)[..., None]

    bits = 32 if image.mode == "I" and image.format != "PPM" else 16
    result, notes = scale(parts, (image.height, image.width, 1), 1, bits, stated)
    grey = Image.frombytes("L", image.size, result.data)
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray((np.asarray(image) != clear).astype(np.uint8) * 255))
    return grey, notes
