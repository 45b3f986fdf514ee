"""The pixels of a photo: 8-bit sRGB, the right way up."""

import contextlib
import io
import re
from pathlib import Path

from PIL import ExifTags, Image, ImageChops, ImageCms
from PIL.Image import Transpose

from recolor.images.depth import decode_ppm_as_raw, load_eight_bit
from recolor.images.opening import CUT_SHORT, CutShortError, PhotoError, opened
from recolor.images.tiff import decode_ycbcr_by_libtiff, is_deep_tiff, load_tiff

Crop = tuple[int, int, int, int]
_UPRIGHT = {  # the operation that reverses each EXIF orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_JPEG_END = b"\xff\xd9"
_SCAN_HEADERS = (b"\xff\xc4", b"\xff\xda")  # Huffman tables, start of a scan
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd9\xff]")  # of a segment with a length; within a scan 0, D0 to D7 follow FF
_PROGRESSIVE, _SCAN = 0xC2, 0xDA
_TAIL = 2**16  # bytes in which it is looked for: some programs append data
_NO_END = "its end marker is missing, otherwise complete"
_NOISE = 2000 * b"\x5a\xa5"
_FILLER = _NOISE + b"".join(bytes((0xFF, 0xD0 + number)) + _NOISE for number in range(8))  # with restart markers


def decode(file: Path | bytes, crop: Crop | None = None) -> Image.Image:
    """The photo in `file` (a path, or a file's bytes) as an 8-bit RGB image in sRGB, the right way up.

    Of an animation it is the first frame, of a TIFF with a thumbnail in front the largest page. Transparency is laid over
    white, an embedded colour profile is converted to sRGB (a broken one is ignored, as viewers do), deeper values are scaled
    to 8 bits (see `depth`). `crop` is (left, top, right, bottom) in pixels of the upright photo. `info["notes"]` has notes for
    the user, if any. Raises PhotoError: not a readable regular file, no photo in a known format, cut short or damaged, a crop
    outside the photo, more than MAX_PIXELS declared (found before they are decoded) or MAX_BYTES.
    """
    with opened(file) as image:
        return to_srgb(image, crop)


def to_srgb(
    image: Image.Image, crop: Crop | None = None, keep_alpha: bool = False, damaged: bool = False
) -> Image.Image:
    """A new image as `decode` gives it. `keep_alpha`: RGBA if it has transparency; `damaged`: what there is of a cut JPEG."""
    upright, notes = _load(image, damaged)
    turn, profile = None, image.info.get("icc_profile")
    with contextlib.suppress(Exception):  # with a broken EXIF block it is shown as stored, as viewers do
        turn = _UPRIGHT.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
    if turn is not None:
        upright = upright.transpose(turn)
    if crop is not None:
        left, top, right, bottom = crop
        if not (0 <= left < right <= upright.width and 0 <= top < bottom <= upright.height):
            raise PhotoError(f"no crop {left},{top},{right},{bottom} in {upright.width}x{upright.height} pixels")
        upright = upright.crop(crop)
    flat = _flatten(upright, keep_alpha)
    result = _convert(flat, profile, in_place=flat is not image)
    if result is image:  # copied only here: 100 megapixels need 400 MB
        result = image.copy()
    result.info.clear()  # it described the file: another orientation, another colour space
    if notes:
        result.info["notes"] = notes
    return result


def _load(image: Image.Image, damaged: bool) -> tuple[Image.Image, list[str]]:
    """The pixels of `image`, 8 bits per channel, with notes. A JPEG without its end marker is complete."""
    stream = getattr(image, "fp", None) if image.format in ("JPEG", "MPO") else None  # Pillow drops it
    decode_ycbcr_by_libtiff(image)
    decode_ppm_as_raw(image)
    try:
        loaded, notes = load_tiff(image) if is_deep_tiff(image) else load_eight_bit(image)
    except OSError as error:
        if stream is None or "truncated" not in str(error):
            raise
        stream.seek(0)
        completed, whole = _completed(stream.read().rstrip(b"\xff"))
        if completed is None:
            raise
        if whole:
            return completed, [_NO_END]
        if damaged:
            return completed, ["truncated: only the part that is there is used"]
        raise CutShortError(CUT_SHORT) from error
    if stream is not None and not stream.closed:
        stream.seek(max(0, stream.seek(0, io.SEEK_END) - _TAIL))
        if _JPEG_END not in stream.read():
            notes.append(_NO_END)
    return loaded, notes


def _completed(content: bytes) -> tuple[Image.Image | None, bool]:
    """The picture in a JPEG that is cut short, None without one, and whether it lacks nothing but its end marker."""
    with contextlib.suppress(OSError):
        completed, compared = (_load_jpeg(content + filler + _JPEG_END) for filler in (b"", _FILLER))
        whole = ImageChops.difference(completed, compared).getbbox() is None  # no pixel depends on what follows
        return completed, whole and not _lacks_scans(content)
    last = max(content.rfind(marker) for marker in _SCAN_HEADERS)  # it is cut within a progressive scan's header
    with contextlib.suppress(OSError):
        return _load_jpeg(content[:last] + _JPEG_END), False
    return None, False


def _lacks_scans(content: bytes) -> bool:
    """Whether it is a progressive JPEG in whose scans bits of coefficients are missing."""
    missing: dict[int, list[int]] = {}  # low bits of each coefficient, by component
    place = 2
    while found := _MARKER.search(content, place):
        start, kind = found.end(), content[found.end() - 1]
        place = start + int.from_bytes(content[start : start + 2])
        segment = content[start + 2 : place]
        if kind == _PROGRESSIVE:
            missing = {segment[6 + 3 * number]: [1] * 64 for number in range(segment[5])}
        elif kind == _SCAN and missing:
            count = segment[0]
            first, last, precision = segment[1 + 2 * count : 4 + 2 * count]
            for number in range(count):
                missing[segment[1 + 2 * number]][first : last + 1] = [precision & 15] * (last + 1 - first)
    return any(any(bits) for bits in missing.values())


def _load_jpeg(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=["JPEG"]).copy()


def _flatten(image: Image.Image, keep_alpha: bool) -> Image.Image:
    """`image` in a mode that a colour profile can describe: L, RGB, CMYK, LAB, or RGBA to keep transparency."""
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
    """`image` in sRGB, mode RGB, or RGBA if it is RGBA. `in_place`: it may be changed, which saves a copy."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    source = _profile(image.mode, profile)
    if source is not None:
        in_place = in_place and image.mode == mode
        with contextlib.suppress(ImageCms.PyCMSError):
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, srgb, outputMode=mode, inPlace=in_place) or image
    return image if image.mode == mode else image.convert(mode)


def _profile(mode: str, profile: bytes | None) -> ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile | None:
    """The profile to convert from. None: the pixels are sRGB, or their profile is sRGB or of another mode."""
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
