"""Files that may be photos: names, safe opening, recognition by content, and one kind of error.

Files come from cameras, crawls and attackers. Nothing here crashes, hangs or uses unbounded memory: a file that cannot be used
is a PhotoError whose reason is short enough for a column of a table.
"""

import contextlib
import errno
import io
import os
import stat
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from recolor.core.errors import UserError, one_line, printable

MAX_PIXELS = 100_000_000  # 300 MB as 8-bit RGB
MAX_BYTES = 2**30
CUT_SHORT = "cut short: the end of the file is missing"
SUFFIXES = {  # lower-case suffixes of photos; the content decides the format
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".ppm", ".pgm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".tga", ".ico"),
}

# Only these are tried, whatever the suffix. For EPS, Pillow would start Ghostscript, another program.
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "ICO"]
with contextlib.suppress(ImportError):  # optional: with it, iPhone photos can be read
    import pillow_heif  # type: ignore[import-not-found, import-untyped, unused-ignore]

    pillow_heif.register_heif_opener()
    _FORMATS.append("HEIF")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
# Pillow opens TIFFs of these kinds, decodable or not, for `tiff.load_tiff`. Bits and SampleFormat: unsigned, signed, float.
PACKED = (10, 12, 14)  # bits of values that follow each other without a gap
DEEP_TIFFS = [
    (8, 2),
    *((bits, 1) for bits in PACKED),
    *((bits, sample) for bits in (16, 32, 64) for sample in (1, 2, 3)),
]
PHOTOMETRICS = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}
for _bits, _sample in [*DEEP_TIFFS, (8, 1)]:
    for _photometric, _mode in PHOTOMETRICS.items():
        for _extra in ((), (0,), (1,), (2,), (0, 0), (1, 0), (2, 0)):
            _key = _photometric, (_sample,), 1, (_bits,) * (len(_mode) + len(_extra)), _extra
            for _order in (b"II", b"MM"):
                TiffImagePlugin.OPEN_INFO.setdefault((_order, *_key), (_mode, _mode))
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # absent on Windows, which has no fifos


class PhotoError(UserError):
    """Why a file cannot be used as a photo: a few words, the same on every run."""


class CutShortError(PhotoError):
    """A JPEG that is cut short, of which `to_srgb` with `damaged` gives what there is."""


@contextlib.contextmanager
def opened(file: Path | bytes) -> Iterator[Image.Image]:
    """The photo in `file`, not yet decoded; a TIFF at its `_photo_page`. Errors in the block become PhotoErrors."""
    with translate_errors(), io.BytesIO(file) if isinstance(file, bytes) else open_file(file) as stream:
        image = _recognise(stream)
        if image.format == "TIFF" and page_count(image) > 1:
            page = _photo_page(image)
            image = _recognise(stream)  # `info` would keep what the other pages have added
            seek_page(image, page)
        yield image


def seek_page(image: Image.Image, page: int) -> None:
    """Goes to a page or frame of `image`. Raises DecompressionBombError if it has more than MAX_PIXELS."""
    image.seek(page)
    _check_pixels(image)


def page_count(image: Image.Image) -> int:
    """How many pages or frames `image` has. The other pictures in an MPO are a camera's previews and do not count."""
    try:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # whatever is wrong with a later page, the first one can be decoded
        return 1


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turns every exception of the block, which decodes a photo, into a PhotoError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; what matters is raised
        try:
            yield
        except PhotoError:
            raise
        except Exception as error:  # on malicious bytes decoders raise any exception: struct.error, KeyError, ...
            raise PhotoError(_reason(error)) from error


@contextlib.contextmanager
def open_file(path: Path, most: int = MAX_BYTES) -> Iterator[io.BufferedReader]:
    """`path`, open for reading. Raises PhotoError unless it is (a link to) a regular file of 1 to `most` bytes.

    Anything else is refused before it is opened: opening a fifo or a device can block, or have side effects.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()  # missing permission is the better reason
        _check_regular(status, most)
        # If a fifo has replaced the file meanwhile, opening does not block, and the second check refuses it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)) as stream:
            _check_regular(os.fstat(stream.fileno()), most)
            yield stream
    except OSError as error:
        raise PhotoError(_reason(error)) from error


def listed_name(path: str) -> str:
    """The relative path `path` as it is written in tables: `printable`, and % becomes %25. `locate` is the inverse."""
    return printable(os.fsencode(path.replace(os.sep, "/")).decode("utf-8", "surrogateescape").replace("%", "%25"))


def is_photo(name: str) -> bool:
    """Whether `name` has a photo's suffix and is not hidden. The content is checked when it is decoded."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def is_photo_file(root: Path, name: str) -> bool:
    """Whether the file under `root` with the listed name `name` is a photo by its suffix or by its content."""
    if is_photo(name):
        return True
    with contextlib.suppress(PhotoError), opened(locate(root, name)):
        return True
    return False


def locate(root: Path, name: str) -> Path:
    """The file under `root` whose listed name is `name`."""
    return root / os.fsdecode(urllib.parse.unquote_to_bytes(name))


def _check_regular(status: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise PhotoError("a folder, not a photo")
    if not stat.S_ISREG(status.st_mode):
        raise PhotoError("a fifo, socket or device, not a photo")
    if status.st_size == 0:
        raise PhotoError("an empty file")
    if status.st_size > most:
        raise PhotoError(f"larger than {most // 2**20} MiB")


def _recognise(stream: BinaryIO) -> Image.Image:
    stream.seek(0)
    head = stream.read(18)
    stream.seek(0)
    try:
        image: Image.Image = Image.open(stream, formats=[*_FORMATS, "TGA"] if _is_tga(head) else _FORMATS)
    except UnidentifiedImageError as error:
        raise PhotoError(_unknown(stream)) from error
    _check_pixels(image)
    return image


def _is_tga(head: bytes) -> bool:
    """By 18 bytes, since there is no magic number: a palette or none, kind of pixels, their bits, order of rows."""
    kinds = {(0, 2), (0, 3), (0, 10), (0, 11), (1, 1), (1, 9)}
    return len(head) == 18 and (head[1], head[2]) in kinds and head[16] in (8, 16, 24, 32) and head[17] < 64


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _photo_page(image: Image.Image) -> int:
    """The page that is the photo: 0, or the largest one of a TIFF whose first page is a thumbnail of it, of the same shape."""
    sizes = [image.size]
    with contextlib.suppress(Exception):  # a damaged page is not the photo
        for page in range(1, page_count(image)):
            image.seek(page)
            sizes.append(image.size)
    largest = max(range(len(sizes)), key=lambda page: sizes[page][0] * sizes[page][1])
    (width, height), (wide, high) = sizes[0], sizes[largest]
    is_thumbnail = wide >= 2 * width and abs(wide * height - high * width) <= max(wide, high)
    return largest if is_thumbnail else 0


def _unknown(stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        if "HEIF" in _FORMATS:
            return "a damaged HEIC photo"
        return "HEIC is not supported: convert it to JPEG, or pip install pillow-heif"
    if head[4:8] == b"ftyp" and head[8:12] in {b"avif", b"avis"}:
        return "a damaged AVIF photo, or AVIF is not supported by this Pillow"
    return "not a photo, or in a format that is not supported"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels: the limit is {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    if isinstance(error, OSError) and error.errno:
        known = {
            errno.ENOENT: "no such file",
            errno.ELOOP: "a link in a loop",
            errno.EACCES: "no permission to read it",
            errno.ENAMETOOLONG: "its name is too long",
        }
        return known.get(error.errno, os.strerror(error.errno))
    message = one_line(error, 80)
    if any(words in message.lower() for words in ("truncated", "unexpected end", "failed to read")):
        return CUT_SHORT
    return f"damaged: {message or type(error).__name__}"
