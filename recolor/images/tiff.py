"""TIFFs that Pillow does not decode as they are meant: with more than 8 bits, signed, of floats, or with unknown channels.

Pillow reads their metadata and tifffile lays out their parts. Pillow's libtiff decompresses these: it stops at the stated size.
"""

import io
import math
import re
from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from recolor.images.depth import STRIP, highest_value, to_bytes, white_level
from recolor.images.opening import DEEP_TIFFS, PACKED, PHOTOMETRICS, PhotoError

WHITE_IS_ZERO, YCBCR = 0, 6
PREMULTIPLIED = 1
COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, deflate, PackBits, deflate again, Zstandard
BITS_PER_SAMPLE, PHOTOMETRIC, DESCRIPTION, SAMPLES, MAX_SAMPLE = 258, 262, 270, 277, 281  # tags
SAMPLE_FORMAT, MAX_TYPED_SAMPLE = 339, 341


def decode_ycbcr_by_libtiff(image: Any) -> None:
    """Has an uncompressed YCbCr TIFF, opened and not loaded, decoded by Pillow's libtiff: Pillow itself reads it as RGBX."""
    if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == YCBCR and image.tile and image.tile[0][0] == "raw":
        image.use_load_libtiff = True
        arguments = "RGBX", "raw", False, image.tag_v2.offset
        image.tile = [
            image.tile[0]._replace(codec_name="libtiff", extents=(0, 0, *image.size), offset=0, args=arguments)
        ]


def is_deep_tiff(image: Image.Image) -> bool:
    """Whether `image`, opened and not loaded, is for `load_tiff`."""
    tags = getattr(image, "tag_v2", None)
    if not tags or not getattr(image, "tile", []):
        return False
    kind = tuple(max(_numbers(tags.get(tag)), default=1) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))
    # Pillow's own raw modes name the channels beyond those of the mode.
    unknown = tags.get(SAMPLES, 1) > len(image.getbands()) and image.tile[0].args[:1] == (image.mode,)  # type: ignore[attr-defined]
    return (kind in DEEP_TIFFS or (kind == (8, 1) and unknown)) and tags.get(PHOTOMETRIC, 0) in PHOTOMETRICS


def load_tiff(image: Any) -> tuple[Image.Image, list[str]]:
    """The page at which `image` is, in 8 bits and as it is stored, and notes about guesses. Raises PhotoError."""
    import tifffile  # not at the top: few photos need it

    image.fp.seek(0)
    page: Any = tifffile.TiffFile(image.fp).pages[image.tell()]
    mode, is_float = PHOTOMETRICS[page.photometric], page.dtype.kind == "f"
    colours, extra = len(mode), page.extrasamples or (2,) * (page.samplesperpixel == 4 and mode == "RGB")
    alpha = bool(extra and extra[0]) and mode != "CMYK"
    result: Any = np.empty((page.imagelength, page.imagewidth, colours + alpha), np.uint8)
    highest = [0.0] * result.shape[2]
    for _, channel, values in _channels(page, result.shape[2]):
        highest[channel] = max(highest[channel], highest_value(values))
    bits, stated = page.bitspersample - (page.dtype.kind == "i"), _stated_white(image.tag_v2)
    if page.bitspersample in PACKED:
        stated = stated or 2**bits - 1
    white, notes = white_level(max(highest[:colours]), bits, stated, is_float)
    opaque, _ = white_level(max(highest), bits, stated, is_float)
    for place, channel, values in _channels(page, result.shape[2]):
        result[(*place, channel)] = to_bytes(values, white if channel < colours else opaque)
    if page.photometric == WHITE_IS_ZERO:
        result[..., 0] = 255 - result[..., 0]
    if alpha:
        mode, stored = f"{mode}A", f"{mode}{'a' if extra[0] == PREMULTIPLIED else 'A'}"
        return Image.frombytes(stored, result.shape[1::-1], result.data).convert(mode), notes
    return Image.frombytes(mode, result.shape[1::-1], result.data), notes


def _channels(page: Any, count: int) -> Iterator[tuple[tuple[slice, slice], int, NDArray[Any]]]:
    """The first `count` channels, at most STRIP pixels at a time: rows and columns of the page, number, values (H, W)."""
    for (first, _, top, left, _), part in _parts(page):
        height, width, channels = part.shape
        for start in range(0, height, rows := max(1, STRIP // width)):
            values = part[start : start + rows]
            place = slice(top + start, top + start + len(values)), slice(left, left + width)
            for channel in range(first, min(first + channels, count)):
                yield place, channel, values[..., channel - first]


def _parts(page: Any) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Each strip or tile: its place by planes, depth, rows, columns and channels, and its values (H, W, C) on the page."""
    compression, file = page.compression, page.parent.filehandle
    if compression not in COMPRESSIONS:
        raise PhotoError(f"a TIFF of {page.dtype} values with {compression.name} compression: save it with LZW or none")
    layout = copy(page)
    layout.compression, layout.predictor = 1, page.predictor if page.predictor == 2 else 1
    packed = page.bitspersample in PACKED
    layout.bitspersample = 16 if packed else page.bitspersample
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        _, place, shape = layout.decode(None, index)
        file.seek(offset)
        data = file.read(count)
        if len(data) < count:
            raise EOFError("unexpected end of the file")
        size = math.prod(shape[:2]) * -(-math.prod(shape[2:]) * page.bitspersample // 8)  # a row begins with a byte
        if compression != 1:
            data = _decompressed(data, compression, size)
        if page.predictor == 3:
            data = _unpredicted(data, shape, page)
        if packed:
            data = _unpacked(data[:size], shape, page)
        values = layout.decode(data, index)[0][0]
        yield place, values[: page.imagelength - place[2], : page.imagewidth - place[3]]


def _decompressed(data: bytes, compression: int, size: int) -> bytes:
    """`data`, decompressed by Pillow's libtiff as the only row of an 8-bit image."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 273: 0, 278: 1, 279: len(data)}.items():
        tags[tag] = value  # Pillow adds to 273, the place of the data, where the tags end
    file = b"II*\0\x08\0\0\0" + tags.tobytes(8) + data
    return TiffImagePlugin.TiffImageFile(io.BytesIO(file)).tobytes()


def _unpredicted(data: bytes, shape: tuple[int, ...], page: Any) -> bytes:
    """Undoes TIFF's floating-point predictor: the bytes of a row are sorted by significance; each is a difference."""
    rows, width, channels = shape[1:]
    size = page.dtype.itemsize
    sums = np.frombuffer(data, np.uint8).reshape(rows, width * size, channels).cumsum(axis=1, dtype=np.uint8)
    floats = np.moveaxis(sums.reshape(rows, size, width * channels), 1, 2).tobytes()
    return np.frombuffer(floats, f">f{size}").astype(f"{page.parent.byteorder}f{size}").tobytes()


def _unpacked(data: bytes, shape: tuple[int, ...], page: Any) -> bytes:
    """Values of 10, 12 or 14 bits in 16, the highest bit of each first, in the file's order of bytes."""
    rows, count, bits = shape[1], math.prod(shape[2:]), page.bitspersample
    packed = np.frombuffer(data, np.uint8).reshape(rows, -1)
    values = np.zeros((rows, count), f"{page.parent.byteorder}u2")
    for top in range(0, rows, step := max(1, STRIP // (bits * count))):
        single = np.unpackbits(packed[top : top + step], axis=1, count=bits * count).reshape(-1, count, bits)
        for place in range(bits):
            values[top : top + step] |= single[..., place].astype(np.uint16) << (bits - 1 - place)
    return values.tobytes()


def _numbers(tag: Any) -> list[int]:
    values = tag if isinstance(tag, tuple) else (tag,)
    return [value for value in values if isinstance(value, int)]


def _stated_white(tags: Any) -> int | None:
    if found := re.search(r'SignificantBits="(\d{1,2})"', str(tags.get(DESCRIPTION, ""))):
        return 2 ** int(found[1]) - 1
    return max(_numbers(tags.get(MAX_SAMPLE)) or _numbers(tags.get(MAX_TYPED_SAMPLE)), default=None)
