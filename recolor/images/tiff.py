"""TIFFs that Pillow does not decode as they are meant: with more than 8 bits, signed, of floats, or with unknown channels.

Pillow reads their metadata, tifffile and imagecodecs their values.
"""

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from PIL import Image

from recolor.images.depth import Part, scale
from recolor.images.opening import DEEP_TIFFS, MAX_PIXELS, PACKED, PHOTOMETRICS, PhotoError

WHITE_IS_ZERO, YCBCR = 0, 6
PREMULTIPLIED = 1
# None, LZW, deflate, PackBits, deflate again, Zstandard. Their decoders stop at the stated size.
COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)
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
    try:
        return _load(_page(image), image)
    except RuntimeError:  # imagecodecs', also for a last strip with more rows than the page, which libtiff ignores
        page = _page(image)
        rows = page.rowsperstrip or 1  # 0: it has tiles
        page.shaped = (*page.shaped[:2], -(-page.imagelength // rows) * rows, *page.shaped[3:])
        return _load(page, image)


def _page(image: Any) -> Any:
    import tifffile  # not at the top: few photos need it

    image.fp.seek(0)
    page: Any = tifffile.TiffFile(image.fp).pages[image.tell()]
    page.predictor = page.predictor if page.predictor in (2, 3) else 1  # 0 in some files, which tifffile refuses
    return page


def _load(page: Any, image: Any) -> tuple[Image.Image, list[str]]:
    if page.compression not in COMPRESSIONS:
        name = page.compression.name
        raise PhotoError(f"a TIFF of {page.dtype} values with {name} compression: save it with LZW or none")
    if math.prod(page.chunks) > MAX_PIXELS * page.samplesperpixel:  # a tile may be larger than the picture
        raise Image.DecompressionBombError
    size = page.parent.filehandle.size
    if any(offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise EOFError("unexpected end of the file")
    mode, extra = PHOTOMETRICS[page.photometric], page.extrasamples
    extra = extra or (2,) * (page.samplesperpixel == 4 and mode == "RGB")
    alpha = bool(extra and extra[0]) and mode != "CMYK"
    shape = page.imagelength, page.imagewidth, len(mode) + alpha
    bits, stated = page.bitspersample - (page.dtype.kind == "i"), _stated_white(image.tag_v2)
    if page.bitspersample in PACKED:
        stated = stated or 2**bits - 1
    result, notes = scale(partial(_parts, page), shape, len(mode), bits, stated)
    if page.photometric == WHITE_IS_ZERO:
        result[..., 0] = 255 - result[..., 0]
    stored = mode
    if alpha:
        mode, stored = f"{mode}A", f"{mode}{'a' if extra[0] == PREMULTIPLIED else 'A'}"
    loaded = Image.frombytes(stored, shape[1::-1], result.data)
    return loaded if mode == stored else loaded.convert(mode), notes


def _parts(page: Any) -> Iterator[Part]:
    """Each strip or tile, as `scale` reads it."""
    for part, (channel, _, top, left, _), _ in page.segments(maxworkers=1, buffersize=1):
        if part is None:
            raise EOFError("unexpected end of the file")
        yield top, left, channel, part[0, : page.imagelength - top, : page.imagewidth - left]


def _numbers(tag: Any) -> list[int]:
    values = tag if isinstance(tag, tuple) else (tag,)
    return [value for value in values if isinstance(value, int)]


def _stated_white(tags: Any) -> int | None:
    if found := re.search(r'SignificantBits="(\d{1,2})"', str(tags.get(DESCRIPTION, ""))):
        return 2 ** int(found[1]) - 1
    return max(_numbers(tags.get(MAX_SAMPLE)) or _numbers(tags.get(MAX_TYPED_SAMPLE)), default=None)
