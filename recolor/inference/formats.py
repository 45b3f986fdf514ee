"""The formats of results, and how a photo is saved in each."""

import struct
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from recolor.images.opening import SUFFIXES

# 4:4:4 is colour at full resolution. Lossy WebP has it at half only, and lightness then moves too, by several units where
# colours are strong: WebP is lossless here unless a quality is asked for.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True, "quality": 20, "method": 1},  # a fourth of the default's time, and as small
    "TIFF": {},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "BMP": {},
    "PPM": {},
}
FILM = "film"  # instead of Pillow's name of a format
OPAQUE = {"JPEG", "BMP", "PPM"}
MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # pixels
_SUFFIX = {"JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif", "BMP": ".bmp", "PPM": ".ppm"}
FILM_SUFFIXES = {  # lower-case; what is no photo by its content and has one of these is a film
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v"),
    *(".mts", ".m2ts", ".vob", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".dv"),
}
FILM_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # FFmpeg's names


def writable_suffixes() -> dict[str, str]:
    """The format of each suffix that can be written."""
    return {
        suffix: kind
        for suffix, kind in Image.registered_extensions().items()
        if kind in _OPTIONS and kind in Image.SAVE and suffix in SUFFIXES - {".pgm"}  # which is grey
    }


def result_suffix(photo: Path, kind: str | None) -> str:
    """The suffix of the result for `photo`, whose content is in format `kind`, None where that is not known.

    It is the photo's own where that fits the content and can be written, else the format's; .png for formats that are not
    written, such as GIF and HEIC. A film has .mkv instead of a suffix that is not written, and of .webm, which cannot hold
    H.264.
    """
    if kind == FILM:
        return photo.suffix if photo.suffix.lower() in FILM_FORMATS.keys() - {".webm"} else ".mkv"
    named = writable_suffixes().get(photo.suffix.lower())
    if named and kind in (named, None):
        return photo.suffix
    return _SUFFIX.get(str(kind), ".png")


def save(image: Image.Image, path: Path, kind: str, metadata: dict[str, Any], quality: int | None = None) -> None:
    """Writes `image` with what `save_options` gave, and for a TIFF a "compression" of Pillow's. `quality`: 1 to 100."""
    options = dict(_OPTIONS[kind])
    if quality is not None and "quality" in options:  # of a lossy format
        options |= {"quality": quality}
        if kind == "WEBP":
            options |= {"lossless": False, "method": 4}
    if kind == "TIFF" and "compression" in metadata:
        _save_compressed_tiff(image, path, metadata)
    else:
        image.save(path, kind, **options, **metadata)


def _save_compressed_tiff(image: Image.Image, path: Path, metadata: dict[str, Any]) -> None:
    """Pillow cannot write EXIF's and GPS's directories into a compressed TIFF: they are added to the file afterwards."""
    exif = Image.Exif()
    exif.load(metadata["exif"])
    directories = {tag: exif.get_ifd(tag) for tag in (IFD.Exif, IFD.GPSInfo) if tag in exif}
    image.save(
        path, "TIFF", **metadata | {"exif": {tag: value for tag, value in exif.items() if tag not in directories}}
    )
    with path.open("r+b") as file:
        order, _, start = struct.unpack("<2sHL", file.read(8))  # Pillow writes little-endian on every machine
        assert order == b"II"
        file.seek(start)
        (count,) = struct.unpack("<H", file.read(2))
        entries = [file.read(12) for _ in range(count)]
        for tag, content in directories.items():
            directory = ImageFileDirectory_v2(group=tag)
            for key, value in content.items():
                directory[key] = value
            offset = _even_end(file)
            file.write(directory.tobytes(offset))
            entries.append(struct.pack("<HHLL", tag, 4, 1, offset))
        offset = _even_end(file)
        entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
        file.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
        file.seek(4)
        file.write(struct.pack("<L", offset))


def _even_end(file: Any) -> int:
    """Goes to the file's end, made an even offset as TIFF asks for."""
    end = file.seek(0, 2)
    return file.write(bytes(end % 2)) + end
