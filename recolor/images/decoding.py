"""One photo: its file, opened without a trap, and its pixels, decoded to 8-bit sRGB.

Files come from anywhere: a camera, a crawl, somebody who wishes harm. Whatever a file holds, `decode` gives an RGB image or
raises PhotoError with a reason short enough for a column of a table; it does not crash, hang, or take memory without bound.
"""

import contextlib
import errno
import io
import os
import stat
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.Image import Transpose

from recolor.core.errors import UserError

_MORE_FORMATS = []
with contextlib.suppress(ImportError):  # no dependency: whoever has it installed reads iPhone photos too
    import pillow_heif  # type: ignore[import-not-found, import-untyped, unused-ignore]

    pillow_heif.register_heif_opener()
    _MORE_FORMATS = ["HEIF"]

MAX_PIXELS = 100_000_000  # 300 MB as 8-bit RGB
MAX_BYTES = 2**30
STRIP = 2**20  # pixels scaled to 8 bits at a time
SUFFIXES = {  # of a photo's name, in lower case; the content decides what it is
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif"),
    *(".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pnm", ".avif", ".heic", ".heif"),
}

# Only these are tried, whatever the file is called. Pillow would hand an EPS file to Ghostscript, a program of its own.
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", *_MORE_FORMATS]
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # not on Windows, which has no fifos either
_UPRIGHT = {  # what undoes each EXIF orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


class PhotoError(UserError):
    """Why a file cannot be used as a photo, in a few words that are the same on every run."""


def decode(file: Path | bytes, crop: tuple[int, int, int, int] | None = None) -> Image.Image:
    """The photo in `file` (a path, or a file's bytes) as an 8-bit RGB image in sRGB, the right way up.

    Of an animation it is the first frame. Transparency is laid over white, an embedded colour profile is converted to
    sRGB (a broken one is ignored, as viewers do), 16-bit and float values are scaled to 8 bits. `crop` is (left, top,
    right, bottom) in pixels of the upright photo.

    Raises PhotoError: not a readable regular file, no photo in a known format, cut short or damaged, more than MAX_PIXELS
    declared (found before they are decoded) or MAX_BYTES, or a crop that leaves the photo.
    """
    with opened(file) as image:
        return to_srgb(image, crop)


@contextlib.contextmanager
def opened(file: Path | bytes) -> Iterator[Image.Image]:
    """The photo in `file` as Pillow opens it, recognised and not yet decoded. What goes wrong in the block is a PhotoError."""
    with translate_errors(), io.BytesIO(file) if isinstance(file, bytes) else open_file(file) as stream:
        yield _recognise(stream)


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Around the decoding of a photo: what goes wrong is a PhotoError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's doubts about metadata; what matters is raised
        try:
            yield
        except PhotoError:
            raise
        except Exception as error:  # on hostile bytes decoders raise anything: struct.error, KeyError, ...
            raise PhotoError(_reason(error)) from error


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[io.BufferedReader]:
    """`path`, open for reading. PhotoError unless it is a regular file, itself or by links, of 1 to MAX_BYTES bytes.

    Anything else is refused before it is opened: to open a fifo or a device can wait for ever, or do something.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()  # where permission is missing, that is the reason to give
        _check_regular(status)
        # Should a fifo have taken the file's place since, this returns at once, and the second look finds it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)) as stream:
            _check_regular(os.fstat(stream.fileno()))
            yield stream
    except OSError as error:
        raise PhotoError(_reason(error)) from error


def listed_name(path: str) -> str:
    """The relative path `path` as tables hold it: one line of printable Unicode, whatever the file system allows.

    Every byte of a character that is not printable (newlines, control and invisible characters), every byte that is not
    UTF-8, and the per cent sign itself become %XX. Ordinary names stay as they are. `locate` is the inverse.
    """
    text = os.fsencode(path.replace(os.sep, "/")).decode("utf-8", "surrogateescape")
    return "".join(
        c if c.isprintable() and c != "%" else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in text
    )


def is_photo(name: str) -> bool:
    """By its name alone: the content is looked at when it is decoded."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def locate(root: Path, name: str) -> Path:
    """The file under `root` that a table calls `name`."""
    return root / os.fsdecode(urllib.parse.unquote_to_bytes(name))


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise PhotoError("a folder, not a photo")
    if not stat.S_ISREG(status.st_mode):
        raise PhotoError("a fifo, socket or device, not a photo")
    if status.st_size == 0:
        raise PhotoError("an empty file")
    if status.st_size > MAX_BYTES:
        raise PhotoError(f"larger than {MAX_BYTES // 2**20} MiB")


def _recognise(stream: BinaryIO) -> Image.Image:
    try:
        image: Image.Image = Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise PhotoError(_unknown(stream)) from error
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return image


def to_srgb(image: Image.Image, crop: tuple[int, int, int, int] | None = None, keep_alpha: bool = False) -> Image.Image:
    """A new image with `image`'s pixels as `decode` gives them; with `keep_alpha`, RGBA where there is transparency."""
    image.load()
    turn, profile = _UPRIGHT.get(_orientation(image)), image.info.get("icc_profile")
    upright = _eight_bit(image)
    if turn is not None:
        upright = upright.transpose(turn)
    if crop is not None:
        left, top, right, bottom = crop
        if not (0 <= left < right <= upright.width and 0 <= top < bottom <= upright.height):
            raise PhotoError(f"no crop {left},{top},{right},{bottom} in {upright.width}x{upright.height} pixels")
        upright = upright.crop(crop)
    flat = _flatten(upright, keep_alpha)
    result = _convert(flat, profile, in_place=flat is not image)
    if result is image:  # 100 megapixels are 400 MB: copied only here, where they are the caller's
        result = image.copy()
    result.info.clear()  # it described the file: another orientation, another colour space
    return result


def _unknown(stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        known = "HEIF" in _FORMATS
        return (
            "a damaged HEIC photo" if known else "HEIC is not supported: convert it to JPEG, or pip install pillow-heif"
        )
    if head[4:8] == b"ftyp" and head[8:12] in {b"avif", b"avis"}:
        return "a damaged AVIF photo, or AVIF is not supported by this Pillow"
    return "not a photo, or in a format that is not supported"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels: viewers show such photos as they are stored
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey takes its high byte, as Pillow does with 16-bit RGB. 32-bit grey states no range: the smallest usual one."""
    if image.mode.startswith("I;16"):
        grey, clear = _each_strip(image, lambda values: values >> 8), image.info.get("transparency")
        if isinstance(clear, int):  # the one value that is not to be seen
            grey.putalpha(_each_strip(image, lambda values: np.where(values == clear, 0, 255)))
        return grey
    if image.mode not in ("I", "F"):
        return image
    highest = 0.0
    for _, values in _strips(image):
        if not np.isfinite(values).all() or values.min() < 0:
            raise PhotoError("brightness values that are negative or not numbers")
        highest = max(highest, float(values.max()))
    ranges = (1.0, 255.0, 65535.0, 2.0**32) if image.mode == "F" else (255.0, 65535.0, 2.0**32)
    white = next((top for top in ranges if highest <= top), highest)
    return _each_strip(image, lambda values: np.rint(values.astype(np.float32) * (255 / white)))


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """Each strip's first row and pixels. In one piece, 100 megapixels of float take 400 MB at every step of a calculation."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _each_strip(image: Image.Image, make: Callable[[NDArray[Any]], NDArray[Any]]) -> Image.Image:
    """Grey, from what `make` makes of each strip's pixels: 0 to 255."""
    result = Image.new("L", image.size)
    for top, values in _strips(image):
        result.paste(Image.fromarray(make(values).astype(np.uint8)), (0, top))
    return result


def _flatten(image: Image.Image, keep_alpha: bool) -> Image.Image:
    """To a mode that a colour profile can speak of: L, RGB, CMYK, LAB, and RGBA where transparency is to stay."""
    if image.mode == "La":  # premultiplied, which Pillow converts to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        if keep_alpha:
            return image
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _convert(image: Image.Image, profile: bytes | None, in_place: bool) -> Image.Image:
    """To sRGB, in mode RGB, or RGBA if `image` is; `in_place` if that may be, which saves a copy."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    source = _profile(image.mode, profile)
    if source is not None:
        in_place = in_place and image.mode == mode
        with contextlib.suppress(ImageCms.PyCMSError):
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, srgb, outputMode=mode, inPlace=in_place) or image
    return image if image.mode == mode else image.convert(mode)


def _profile(mode: str, profile: bytes | None) -> ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile | None:
    """The profile to convert from. None: the pixels are sRGB, say so, or carry a profile that is not theirs."""
    if mode == "LAB":
        return ImageCms.createProfile("LAB")
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = source.profile.profile_description or ""
    except (OSError, ImageCms.PyCMSError):
        return None
    space = {"L": "GRAY", "RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK"}[mode]
    # From sRGB to sRGB lcms moves values by one level here and there: such photos are left as they are.
    return source if source.profile.xcolor_space == space and "sRGB" not in described else None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels: the limit is {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.errno:
        known = {
            errno.ENOENT: "no such file (any more)",
            errno.ELOOP: "a link that leads in a circle",
            errno.EACCES: "no permission to read it",
            errno.ENAMETOOLONG: "its name is too long",
        }
        return known.get(error.errno, os.strerror(error.errno))
    message = " ".join(str(error).split())[:80]
    if "truncated" in message.lower() or "unexpected end" in message.lower():
        return "cut short: the end of the file is missing"
    return f"damaged: {message or type(error).__name__}"
