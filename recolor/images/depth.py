"""Photos with more than 8 bits per channel, scaled to 8 bits; for most TIFFs see `tiff`.

The brightest possible value, here "white", is what the file states: TIFF's MaxSampleValue or BitsPerSample, OME's
SignificantBits, PNG's sBIT. If it states nothing, and the upper bits of all values are zero, white is the largest value of the
10, 12 or 14 bits that are in use, and a note states it: scanners and cameras often store these in 16 bits.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE

from recolor.images.opening import PhotoError

STRIP = 2**20  # pixels scaled at a time: in one piece, 100 megapixels of float need 400 MB for each step
WIDTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras use


def is_deep(image: Image.Image) -> bool:
    """Whether `image`, opened and not loaded, has more than 8 bits per channel."""
    _correct_ppm(image)
    bits = getattr(image, "tag_v2", {}).get(BITSPERSAMPLE, (8,))
    return image.mode.startswith(("I", "F")) or ";16" in _rawmode(image) or max(bits) > 8


def load_eight_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Loads `image`; it in 8 bits per channel, itself if it has no more, and notes about guesses. Raises PhotoError."""
    _correct_ppm(image)
    rawmode, stated, stream = _rawmode(image), _stated_white(image), getattr(image, "fp", None)
    if getattr(image, "_exclusive_fp", False):  # Pillow closes it when the pixels are loaded
        stream = cast(Any, image).filename
    image.load()
    if image.mode.startswith(("I", "F")):
        return _scaled_grey(image, stated)
    if image.format not in ("PNG", "PPM") or not rawmode.endswith(";16B") or stream is None:
        return image, []
    colours = image if image.mode == "RGB" else image.convert("RGB")  # without alpha
    if max(top for _, top in colours.getextrema()) >= 2**6 and stated in (None, 2**16 - 1):  # type: ignore[misc]
        return image, []  # more than 14 bits are in use: the upper byte, which Pillow gives
    if rawmode == "LA;16B":
        bands = _loaded_as(stream, "RGBA").split()
        high, low = (Image.merge("LA", bands[first::2]) for first in (0, 1))
    else:
        high, low = image, _loaded_as(stream, f"{rawmode[:-1]}L")
    return _scaled_channels(high, low, stated)


def _stated_white(image: Image.Image) -> int | None:
    stream = getattr(image, "fp", None)
    if image.format == "PPM" and image.tile[0][0] != "raw":  # type: ignore[attr-defined]
        return 2**16 - 1  # Pillow scales it as its header says
    if image.format == "PNG" and stream is not None:
        return _significant_bits(stream)
    return None


def _significant_bits(stream: BinaryIO) -> int | None:
    """White by a PNG's sBIT chunk, which stands before the pixels. The stream's position is kept."""
    position = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4])
            if head[4:] == b"sBIT" and 1 <= length <= 4:
                return 2 ** max(stream.read(length)) - 1
            stream.seek(length + 4, 1)
        return None
    finally:
        stream.seek(position)


def _rawmode(image: Image.Image) -> str:
    """How the decoder of `image` packs pixels; "" for an image that is not from a file."""
    arguments = tiles[0][3] if (tiles := getattr(image, "tile", [])) else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _correct_ppm(image: Any) -> None:
    """Gives 16-bit colours the decoder whose byte `_loaded_as` can choose."""
    if image.format == "PPM" and image.tile and tuple(image.tile[0])[::3] == ("ppm", ("RGB", 2**16 - 1)):
        image.tile = [image.tile[0]._replace(codec_name="raw", args="RGB;16B")]


def _loaded_as(stream: Any, rawmode: str) -> Image.Image:
    """The picture in `stream`, decoded with another raw mode."""
    if not isinstance(stream, str):
        stream.seek(0)
    again: Any = Image.open(stream, formats=["PNG", "PPM"])
    _correct_ppm(again)
    again.tile = [tile._replace(args=rawmode) for tile in again.tile]
    again.load()
    return again


def strips(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first row and the pixels of each strip."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


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


def _scaled_channels(high: Image.Image, low: Image.Image, stated: int | None) -> tuple[Image.Image, list[str]]:
    """The upper and the lower bytes of 16-bit channels, scaled to 8 bits together."""
    colours = slice(-1) if high.mode.endswith("A") else slice(None)

    def parts() -> Iterator[tuple[int, NDArray[Any]]]:
        for (top, upper), (_, lower) in zip(strips(high), strips(low), strict=True):
            yield top, upper.astype(np.uint16) << 8 | lower

    white, notes = white_level(max(float(values[..., colours].max()) for _, values in parts()), 16, stated)
    opaque, _ = white_level(max(float(values.max()) for _, values in parts()), 16, stated)
    result = high.copy()
    for top, values in parts():
        scaled = to_bytes(values, opaque)
        scaled[..., colours] = to_bytes(values[..., colours], white)
        result.paste(Image.fromarray(scaled, high.mode), (0, top))
    return result, notes


def _scaled_grey(image: Image.Image, stated: int | None) -> tuple[Image.Image, list[str]]:
    highest = max(highest_value(values) for _, values in strips(image))
    bits = 32 if image.mode == "I" and image.format != "PPM" else 16
    white, notes = white_level(highest, bits, stated, image.mode == "F")
    clear = image.info.get("transparency")  # the one value that is transparent
    grey, mask = Image.new("L", image.size), Image.new("L", image.size) if isinstance(clear, int) else None
    for top, values in strips(image):
        grey.paste(Image.fromarray(to_bytes(values, white)), (0, top))
        if mask is not None:
            mask.paste(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)), (0, top))
    if mask is not None:
        grey.putalpha(mask)
    return grey, notes
