"""The metadata of a photo's file that its coloured result keeps, where the result's format can hold it."""

import contextlib
import re
from collections.abc import Collection
from typing import Any

from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

# Tags of EXIF's first directory that describe the photo and not its file; the camera's and GPS's directories are kept too.
_KEPT = (
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer),
    *(Base.Copyright, Base.Rating, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
    *(Base.DocumentName, Base.PageName),
)
# Offsets, and sizes that rotation swaps.
_DROPPED = (Base.ExifInteroperabilityOffset, Base.ExifImageWidth, Base.ExifImageHeight)
_XMP_TAG = 700  # in a TIFF
_XMP_KEY = "XML:com.adobe.xmp"  # in a PNG
_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>))[0-9]""")
_JPEG_BLOCK = 65_000  # bytes: a JPEG holds EXIF, XMP and comment in blocks of 65,533, their headers included


def save_options(file: Image.Image, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Arguments of Pillow's `save` for the metadata of the loaded `file` that `kind` can hold; a note on what it cannot."""
    room = _JPEG_BLOCK if kind == "JPEG" else None
    exif, notes = _exif(file, room)
    options: dict[str, Any] = {"exif": exif}
    xmp, comment = file.info.get("xmp"), file.info.get("comment")
    if isinstance(xmp, str | bytes):
        xmp = _ORIENTATION.sub(rb"\g<1>1", xmp.encode() if isinstance(xmp, str) else xmp)
    for key, value, name in (("xmp", xmp, "XMP data"), ("comment", comment, "comment")):
        if room and isinstance(value, bytes) and len(value) > room:
            notes.append(f"its {name} is too long for a JPEG and left out")
        elif isinstance(value, bytes) and value:
            options[key] = value
    dpi = file.info.get("dpi")
    if isinstance(dpi, tuple) and all(0 < value < 2**16 for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if file.info.get("icc_profile"):
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "PNG":
        options["pnginfo"] = _png_text(file, options)
    if kind == "TIFF" and "xmp" in options:
        tags = Image.Exif()
        tags.load(exif)
        tags[_XMP_TAG] = options["xmp"]
        options["exif"] = tags.tobytes()
    return options, notes


def _png_text(file: Image.Image, options: dict[str, Any]) -> PngInfo:
    """The texts of a PNG, and what other formats have as XMP and comment."""
    chunks = PngInfo()
    texts = getattr(file, "text", {})
    for key, value in texts.items():
        if key != _XMP_KEY and not key.startswith("Raw profile type"):  # ImageMagick's EXIF, which `_exif` has read
            chunks.add_text(key, value)
    if "xmp" in options:
        chunks.add_itxt(_XMP_KEY, options["xmp"])
    if "comment" in options and "Comment" not in texts:
        chunks.add_text("Comment", options["comment"].decode("utf-8", "replace"))
    return chunks


def _exif(file: Image.Image, room: int | None) -> tuple[bytes, list[str]]:
    """The EXIF block that the result carries, and a note of what is left out where it has more than `room` bytes."""
    with contextlib.suppress(Exception):  # a broken block, on which Pillow raises any exception, is left out
        shorter = ["its EXIF data is too long for a JPEG: the MakerNote is left out"]
        for dropped, notes in ((_DROPPED, []), ((*_DROPPED, Base.MakerNote), shorter)):
            block = _upright(file.getexif(), dropped)
            if not room or len(block) <= room:
                return block, notes
        return b"", ["its EXIF data is too long for a JPEG and left out"]
    return b"", []


def _upright(old: Image.Exif, dropped: Collection[int]) -> bytes:
    new = Image.Exif()
    for tag in _KEPT:
        if tag in old:
            new[tag] = old[tag]
    for directory in (IFD.Exif, IFD.GPSInfo):
        content = {tag: value for tag, value in old.get_ifd(directory).items() if tag not in dropped}
        if directory == IFD.Exif and Base.ColorSpace in content:
            content[Base.ColorSpace] = 1  # sRGB
        if content:
            new[directory] = content
    if not len(new):
        return b""
    new[Base.Orientation] = 1
    return new.tobytes()
