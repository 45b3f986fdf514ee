"""Photos with more than 8 bits per channel, scaled to 8 bits.

The brightest possible value, here "white", is what the file states: TIFF's MaxSampleValue or BitsPerSample, OME's
SignificantBits, PNG's sBIT. If it states nothing, and the upper bits of all values are zero, white is the largest value of the
10, 12 or 14 bits that are in use, and a note says so: scanners and cameras often store these in 16 bits.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from recolor.images.opening import PhotoError

STRIP = 2**20  # pixels scaled at a time: in one piece, 100 megapixels of float need 400 MB for each step
WIDTHS = (8, 10, 12, 14, 16)  # bits that scanners and cameras use
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # TIFF's SampleFormat
BITS_PER_SAMPLE, PHOTOMETRIC, DESCRIPTION, MAX_SAMPLE = 258, 262, 270, 281  # tags
PLANES, EXTRA_SAMPLES, SAMPLE_FORMAT, MAX_TYPED_SAMPLE = 284, 338, 339, 341
_NATIVE = "L" if sys.byteorder == "little" else "B"
_DTYPES = {
    (8, SIGNED): "i1",
    (16, FLOAT): "f2",
    (16, UNSIGNED): "u2",
    (32, UNSIGNED): "u4",
}  # where Pillow's own type is another


def _register_tiffs() -> None:
    """Adds the TIFFs that Pillow does not know but can decode: their bytes are reinterpreted in `_values` and `_channels`."""
    known = TiffImagePlugin.OPEN_INFO
    for order, grey, wide in ((b"II", "I;16", "I;32N"), (b"MM", "I;16B", "I;32BS")):
        for white_is_zero in (0, 1):
            known.setdefault((order, white_is_zero, (UNSIGNED,), 1, (16,), ()), (grey, grey))
            known.setdefault((order, white_is_zero, (FLOAT,), 1, (16,), ()), (grey, grey))
            known.setdefault((order, white_is_zero, (UNSIGNED,), 1, (32,), ()), ("I", wide))
        signed = known[order, 1, (SIGNED,), 1, (16,), ()]
        known.setdefault((order, 0, (SIGNED,), 1, (16,), ()), signed)
        for extra in (0, 1, 2):
            known.setdefault((order, 1, (UNSIGNED,), 1, (16, 16), (extra,)), ("RGBA", "RGBA"))


_register_tiffs()


class _File(NamedTuple):
    """What is needed of an image's file after its pixels have been loaded."""

    stream: BinaryIO | str | None
    page: int
    rawmode: str  # how its decoder packs pixels
    stated: int | None  # white
    bits: int
    sample: int  # SampleFormat
    inverted: bool  # WhiteIsZero, where Pillow does not apply it


def is_deep(image: Image.Image) -> bool:
    """Whether `image`, opened and not loaded, has more than 8 bits per channel."""
    return (
        image.mode.startswith(("I", "F"))
        or ";16" in _rawmode(image)
        or max(_numbers(_tags(image).get(BITS_PER_SAMPLE)), default=8) > 8
    )


def load_eight_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Loads `image`; an image with 8 bits per channel (itself if it has no more), and notes about guesses.

    Raises PhotoError for values that are negative or not finite.
    """
    _correct_tiles(image)
    file = _describe(image)
    image.load()
    if image.mode.startswith("I;16") or image.mode in ("I", "F") or (image.mode, file.sample) == ("L", SIGNED):
        return _scaled_grey(image, file)
    if _is_grey_alpha(image) or file.rawmode.startswith("LA;16"):
        return _scaled_channels(*_grey_alpha(image, file), file)
    as_stored = file.rawmode.replace("RGBa", "RGBA")
    swapped = _other_byte(as_stored)
    if swapped is None or file.stream is None:
        return image, []
    high = image if as_stored == file.rawmode else _loaded_as(image, file, as_stored)
    highest = max(top for _, top in _colours(high).getextrema())  # type: ignore[misc, union-attr, unused-ignore]
    if highest >= 2**6 and (file.stated is None or file.stated == 2**16 - 1):
        return image, []  # more than 14 bits are in use: the upper byte, which Pillow gives
    if (
        _tags(image).get(PLANES) == 2 and image.info.get("compression", "raw") != "raw"
    ):  # libtiff gives only upper bytes
        raise PhotoError("compressed planes with fewer bits than their file: save it with interleaved channels")
    scaled, notes = _scaled_channels(high, _loaded_as(image, file, swapped), file)
    if high is not image:  # colours are multiplied by alpha
        scaled = Image.frombytes("RGBa", scaled.size, scaled.tobytes()).convert("RGBA")
    return scaled, notes


def _describe(image: Image.Image) -> _File:
    stream = getattr(image, "fp", None)
    name = getattr(image, "filename", "")
    exclusive = getattr(image, "_exclusive_fp", False)  # Pillow closes it when the pixels are loaded
    tags = _tags(image)
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=32 if image.mode == "I" else 16)
    sample = max(_numbers(tags.get(SAMPLE_FORMAT)), default=UNSIGNED)
    inverted = bits > 8 and tags.get(PHOTOMETRIC) == 0
    if image.format == "PPM":  # Pillow has scaled it by its header
        stated: int | None = 2**16 - 1
    elif image.format == "PNG" and stream is not None:
        stated = _significant_bits(stream)
    else:
        stated = _stated_by_tags(tags, bits)
    return _File(name if exclusive else stream, image.tell(), _rawmode(image), stated, bits, sample, inverted)


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def _numbers(tag: Any) -> list[int]:
    values = tag if isinstance(tag, tuple) else (tag,)
    return [value for value in values if isinstance(value, int)]


def _stated_by_tags(tags: Any, bits: int) -> int | None:
    values = _numbers(tags.get(MAX_SAMPLE)) or _numbers(tags.get(MAX_TYPED_SAMPLE))
    if found := re.search(r'SignificantBits="(\d{1,2})"', str(tags.get(DESCRIPTION, ""))):
        return 2 ** int(found[1]) - 1
    if values:
        return max(values)
    return 2**bits - 1 if 8 < bits < 16 else None


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
    tiles = getattr(image, "tile", [])
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _is_grey_alpha(image: Image.Image) -> bool:
    """A TIFF of 16-bit grey and alpha, whose four bytes Pillow takes for RGBA."""
    return image.mode == "RGBA" and _tags(image).get(BITS_PER_SAMPLE) == (16, 16)


def _correct_tiles(image: Image.Image) -> None:
    """Pillow reads separate planes of 16 bits as 8 bits, and swaps bytes that libtiff has swapped already."""
    if image.format != "TIFF":
        return
    tags, tiles = _tags(image), getattr(image, "tile", [])
    for place, tile in enumerate(tiles):
        if not isinstance(tile[3], tuple):
            continue
        mode = tile[3][0]
        if tile[0] == "libtiff":
            mode = {"I;32BS": "I;32N", "F;32BF": "F;32NF", "I;16BS": "I;16NS", "I;16B": "I;16N"}.get(mode, mode)
        elif mode in ("R", "G", "B", "A") and set(_numbers(tags.get(BITS_PER_SAMPLE))) == {16}:
            mode = f"{mode};16" + ("L" if tags.prefix == b"II" else "B")
        tiles[place] = tile._replace(args=(mode, *tile[3][1:]))


def _other_byte(rawmode: str) -> str | None:
    """The raw mode whose upper byte is the lower byte of `rawmode`. None: `rawmode` has no 16 bits, or premultiplied ones."""
    name, _, order = rawmode.partition(";16")
    if order not in ("L", "B", "N") or name not in ("RGB", "RGBA", "RGBX", "CMYK", "R"):
        return None
    return f"{name};16" + ("B" if (_NATIVE if order == "N" else order) == "L" else "L")


def _loaded_as(image: Image.Image, file: _File, rawmode: str) -> Image.Image:
    """The same picture, decoded with another raw mode."""
    assert file.stream is not None
    if not isinstance(file.stream, str):
        file.stream.seek(0)
    again: Any = Image.open(file.stream, formats=[str(image.format)])
    again.seek(file.page)
    _correct_tiles(again)
    for place, tile in enumerate(again.tile):
        old = tile[3][0] if isinstance(tile[3], tuple) else tile[3]
        new = rawmode if len(old.partition(";")[0]) > 1 else f"{old[0]};16{rawmode[-1]}"
        again.tile[place] = tile._replace(args=(new, *tile[3][1:]) if isinstance(tile[3], tuple) else new)
    again.load()
    return again


def _grey_alpha(image: Image.Image, file: _File) -> tuple[Image.Image, Image.Image]:
    """Upper and lower bytes, in mode LA, of 16-bit grey and alpha."""
    tags = _tags(image)
    if image.format == "PNG":
        bands, little = _loaded_as(image, file, "RGBA").split(), False
    else:
        compressed = image.info.get("compression", "raw") != "raw"  # libtiff gives native order
        bands, little = image.split(), _NATIVE == "L" if compressed else tags.prefix == b"II"
    high, low = (Image.merge("LA", (bands[first], bands[first + 2])) for first in (little, not little))
    if tags.get(EXTRA_SAMPLES) in (0, (0,)):  # not stated to be alpha
        high.putalpha(255)
        low.putalpha(255)
    return high, low


def _colours(image: Image.Image) -> Image.Image:
    """Without alpha; with at least two bands, so that `getextrema` gives pairs."""
    bands = [band for name, band in zip(image.getbands(), image.split(), strict=True) if name not in "AX"]
    return Image.merge("RGB", (bands * 3)[:3]) if len(bands) < 4 else image


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first row and the pixels of each strip."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _white(highest: float, bits: int, stated: int | None) -> tuple[int, list[str]]:
    if stated is not None and 0 < highest <= stated < 2**32:
        return stated, []
    width = next((width for width in WIDTHS if width < bits and highest < 2**width), bits)
    note = f"its values fill {width} of {bits} bits: scaled up as {width}-bit values"
    return 2**width - 1, [note] if width < bits and highest > 0 else []


def _scaled_channels(high: Image.Image, low: Image.Image, file: _File) -> tuple[Image.Image, list[str]]:
    """The upper and the lower bytes of 16-bit channels, scaled to 8 bits together."""
    alpha = high.getbands()[-1] in ("A", "X")
    colours = slice(0, -1) if alpha else slice(None)

    def strips() -> Iterator[tuple[int, NDArray[Any]]]:
        for (top, upper), (_, lower) in zip(_strips(high), _strips(low), strict=True):
            yield top, upper.astype(np.uint16) << 8 | lower

    highest = max(int(values[..., colours].max()) for _, values in strips())
    white, notes = _white(highest, 16, file.stated)
    result = high.copy()
    opaque = white if alpha and high.getextrema()[-1][1] <= white >> 8 else 2**16 - 1  # type: ignore[index]
    for top, values in strips():
        scaled = _to_bytes(values, white)
        if alpha:
            scaled[..., -1] = _to_bytes(values[..., -1], opaque)
        result.paste(Image.fromarray(scaled, high.mode), (0, top))
    return result, notes


def _to_bytes(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    if white == 2**16 - 1 and values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)  # as Pillow does with 16-bit RGB
    return np.rint(np.minimum(values.astype(np.float32) * (255 / white), 255)).astype(np.uint8)


def _scaled_grey(image: Image.Image, file: _File) -> tuple[Image.Image, list[str]]:
    is_float = image.mode == "F" or file.sample == FLOAT

    def strips() -> Iterator[tuple[int, NDArray[Any]]]:
        for top, values in _strips(image):
            name = _DTYPES.get((file.bits, file.sample), values.dtype.str[1:])
            same_size = np.dtype(name).itemsize == values.dtype.itemsize
            yield top, np.ascontiguousarray(values).view(values.dtype.str[0] + name) if same_size else values

    highest = 0.0
    for _, values in strips():
        if not np.isfinite(values).all() or values.min() < 0:
            raise PhotoError("brightness values that are negative or not numbers")
        highest = max(highest, float(values.max()))
    if is_float:
        white: float = next((top for top in (1.0, 255.0, 65535.0, 2.0**32) if highest <= top), highest)
        notes: list[str] = []
    else:
        white, notes = _white(highest, file.bits - (file.sample == SIGNED), file.stated)
    grey, mask = Image.new("L", image.size), None
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # the one value that is transparent
        mask = Image.new("L", image.size)
    for top, values in strips():
        scaled = _to_bytes(values, white)
        grey.paste(Image.fromarray(255 - scaled if file.inverted else scaled), (0, top))
        if mask is not None:
            mask.paste(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)), (0, top))
    if mask is not None:
        grey.putalpha(mask)
    return grey, notes
