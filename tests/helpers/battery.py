"""Unusual and bad photos, generated: one file for each way in which a photo can differ.

`write(folder)` fills a folder and returns the expected outcome of each file. Decoding, listing and preprocessing are tested
with the same files.
"""

import io
import os
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageCms, features
from profiles import ADOBE_RGB, DISPLAY_P3, icc

from recolor.images.opening import listed_name

SIZE = (48, 32)


def _permissions_keep_nobody_out() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "forbidden").touch(mode=0)
        return os.access(Path(folder) / "forbidden", os.R_OK)


ROOT = _permissions_keep_nobody_out()


@dataclass(frozen=True)
class Case:
    """The expected outcome of a file."""

    reason: str = ""  # a part of the reason for rejection; empty: usable
    grey: bool = False  # can be decoded, but has no colours
    copy_of: str = ""  # the same bytes as this other file
    vanishes: bool = False  # removed by `vanish` between listing and decoding


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A colourful picture with four different corners, smooth so that JPEG changes it little."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / max(width - 1, 1), y / max(height - 1, 1)
    waves = [np.sin(3 * across + seed), np.cos(2 * down + 2 * seed), np.sin(2 * across - 3 * down + 3 * seed)]
    return Image.fromarray(np.stack([127.5 + 110 * wave for wave in waves], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(length: int) -> bytes:
    return np.random.default_rng(length).bytes(length)


def oriented(orientation: int, seed: int = 50) -> bytes:
    """`picture(seed)` stored turned, with the EXIF orientation that turns it back."""
    store = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation: the Transpose that it undoes
    image = picture(seed)
    if orientation in store:
        image = image.transpose(Image.Transpose(store[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif, quality=95, subsampling=0)


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG with this header, whatever `rows` contains."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    data = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + data


def _rgb16(seed: int = 20) -> np.ndarray:
    return np.asarray(picture(seed)).astype(np.uint16) * 257


def _png16() -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in _rgb16())
    return png(*SIZE, 16, 2, rows)


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def ycck(seed: int) -> bytes:
    """A JPEG as Photoshop writes it: luminance and chroma of inverted inks, and Adobe's marker.

    Pillow cannot write one, but it can write the same four channels as CMYK (which it inverts), with a marker to correct:
    its last byte is the transform, 2 for YCCK.
    """
    negative = Image.eval(picture(seed), lambda value: 255 - value).convert("YCbCr")
    channels = [Image.eval(channel, lambda value: 255 - value) for channel in negative.split()]
    data = encoded(Image.merge("CMYK", [*channels, Image.new("L", SIZE, 0)]), quality=95)
    place = data.index(b"Adobe") + 11
    return data[:place] + b"\2" + data[place + 1 :]


def _lab(seed: int) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    made = ImageCms.profileToProfile(picture(seed), *profiles, outputMode="LAB")
    made.info.clear()
    return made


def _see_through(mode: str, seed: int) -> Image.Image:
    image = picture(seed).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def _resized_header(data: bytes) -> bytes:
    """A JPEG whose header states 65,000 x 65,000 pixels."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", 65000, 65000) + data[place + 4 :]


def _usable() -> dict[str, bytes]:
    frames = [picture(seed) for seed in (16, 17, 18)]
    animated = {"save_all": True, "append_images": frames[1:], "duration": 100}
    return {
        "good.jpg": encoded(picture(1)),
        "progressive.jpg": encoded(picture(2), progressive=True),
        "UPPERCASE.JPG": encoded(picture(3)),
        "jpeg-called.png": encoded(picture(4)),
        "png-called.jpg": encoded(picture(5), "PNG"),
        "trailing-garbage.jpg": encoded(picture(6)) + _noise(999),
        "several-in-one.jpg": encoded(picture(7), "MPO", save_all=True, append_images=[picture(8)]),
        "cmyk.jpg": encoded(picture(9).convert("CMYK"), quality=95),
        "ycck.jpg": ycck(10),
        "ycbcr.tif": encoded(picture(11).convert("YCbCr"), "TIFF", compression="jpeg"),
        "lab.tif": encoded(_lab(12), "TIFF"),
        "palette.png": encoded(picture(13).quantize(64), "PNG"),
        "palette-see-through.png": encoded(picture(14).quantize(64), "PNG", transparency=bytes(range(0, 256, 4))),
        "palette.bmp": encoded(picture(15).quantize(64), "BMP"),
        "animated.gif": encoded(frames[0], "GIF", **animated),
        "animated.webp": encoded(frames[1], "WEBP", **animated),
        "animated.apng": encoded(frames[2], "PNG", **animated),
        "rgb16.png": _png16(),
        "rgb16.tif": tiff(_rgb16() // 2, photometric="rgb"),
        "rgba.png": encoded(_see_through("RGB", 21), "PNG"),
        "rgba.webp": encoded(_see_through("RGB", 22), "WEBP", lossless=True),
        "rgba.tif": encoded(_see_through("RGB", 23), "TIFF"),
        "plain.ppm": encoded(picture(24), "PPM"),
        "adobe-rgb.jpg": encoded(picture(25), icc_profile=icc("Adobe RGB (1998)", ADOBE_RGB)),
        "display-p3.png": encoded(picture(26), "PNG", icc_profile=icc("Display P3", DISPLAY_P3)),
        "broken-profile.jpg": encoded(picture(27), icc_profile=b"not a profile"),
        "grey-profile-on-colour.jpg": encoded(picture(28), icc_profile=icc("sly", ADOBE_RGB).replace(b"RGB ", b"GRAY")),
        "broken-exif.jpg": encoded(picture(29), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + _noise(50)),
        "one-pixel.png": encoded(Image.new("RGB", (1, 1), "orange"), "PNG"),
        "wide.jpg": encoded(picture(30, (20000, 20))),
        "ünïcödé 写真 🌈.jpg": encoded(picture(31)),
        "new\nline\r.jpg": encoded(picture(32)),
        'comma, "quote" 100% %41.jpg': encoded(picture(33)),
        "-leading dash.jpg": encoded(picture(34)),
        "NA.jpg": encoded(picture(35)),
        "n" * 251 + ".jpg": encoded(picture(36)),
        "in/a/folder.jpg/photo.jpg": encoded(picture(37)),
        **{f"orientation-{number}.jpg": oriented(number, 50 + number) for number in range(1, 9)},
        "orientation-99.jpg": oriented(99, 60),
        **({"avif.avif": encoded(picture(38), "AVIF")} if features.check("avif") else {}),
        **({"jpeg2000.jp2": encoded(picture(47), "JPEG2000")} if features.check("jpg_2000") else {}),
        "without-end.jpg": encoded(picture(48))[:-2],
        "float-rgb.tif": tiff(np.asarray(picture(49)) / np.float32(255), photometric="rgb"),
        "icon.ico": encoded(picture(51), "ICO", sizes=[SIZE]),
        "targa.tga": encoded(picture(52), "TGA"),
        "rgb12.tif": tiff(_rgb16(72) // 16, photometric="rgb"),
        **({os.fsdecode(b"not-utf8-\xff.jpg"): encoded(picture(39))} if sys.platform == "linux" else {}),
    }


def _grey() -> dict[str, bytes]:
    grey = np.asarray(picture(40).convert("L"))
    return {
        "grey.jpg": encoded(Image.fromarray(grey)),
        "one-bit.png": encoded(picture(41).convert("1"), "PNG"),
        "one-bit.tif": encoded(picture(42).convert("1"), "TIFF", compression="group4"),
        "grey-see-through.png": encoded(_see_through("L", 43), "PNG"),
        "grey16.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "grey16-big-endian.tif": tiff(grey.astype(">u2") * 200, byteorder=">"),
        "grey32.tif": tiff(grey.astype(np.int32) * 150),
        "grey12.tif": tiff(grey.astype(np.uint16) * 16),
        "float.tif": tiff(grey.astype(np.float32) / 300),
    }


def _unusable() -> dict[str, tuple[bytes, str]]:
    big = picture(70, (300, 200))
    jpeg, gif = encoded(big), encoded(big, "GIF")
    unknown, cut = "not a photo, or in a format that is not supported", "cut short"
    return {
        "empty.jpg": (b"", "empty"),
        "garbage.jpg": (_noise(5000), unknown),
        "text.jpg": (b"This is a shopping list.\n" * 40, unknown),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", unknown),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', unknown),
        "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n", unknown),
        "zeros.jpg": (bytes(10000), unknown),
        "first-bytes.jpg": (jpeg[:3], unknown),
        "cut.jpg": (jpeg[: len(jpeg) // 2], cut),
        "cut-progressive.jpg": (encoded(big, progressive=True)[:1500], cut),
        "cut.png": (encoded(big, "PNG")[:-5000], cut),
        "cut.gif": (gif[:9000], cut),
        "cut.webp": (encoded(big, "WEBP")[:900], "damaged"),
        "cut.bmp": (encoded(big, "BMP")[:90000], cut),
        "cut.tif": (encoded(big, "TIFF")[:90000], cut),
        "damaged.png": (encoded(big, "PNG").replace(b"IDAT", b"IDAX"), unknown),
        "bomb.png": (png(12000, 12000, 1, 0, bytes(12000 * 1501)), "too many pixels"),
        "bomb-declared.png": (png(50000, 50000, 8, 2, b"\0"), "too many pixels"),
        "bomb-declared.jpg": (_resized_header(jpeg), "too many pixels"),
        "bomb-declared.gif": (gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:], "too many pixels"),
        "iphone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
        "nobody.avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200), "AVIF"),
        "complex.tif": (tiff(np.zeros((8, 8), np.complex64)), unknown),
        "nan.tif": (tiff(np.full((8, 8), np.nan, np.float32)), "not numbers"),
        "negative.tif": (tiff(np.full((8, 8), -5, np.int32)), "negative"),
    }


def _special(folder: Path) -> dict[str, Case]:
    """Links, devices, folders and files without permission."""
    made: dict[str, Case] = {}

    def add(name: str, make: Callable[[Path], object], case: Case) -> None:
        make(folder / name)
        made[name] = case

    add("huge.jpg", lambda path: (path.touch(), os.truncate(path, 2**31)), Case("larger than"))
    add("link.jpg", lambda path: path.symlink_to("good.jpg"), Case(copy_of="good.jpg"))
    add("copy.jpg", lambda path: shutil.copy(folder / "good.jpg", path), Case(copy_of="good.jpg"))
    add("circle.jpg", lambda path: path.symlink_to("circle.jpg"), Case("loop"))
    add("nowhere.jpg", lambda path: path.symlink_to("nothing.jpg"), Case("no such file"))
    add("device.jpg", lambda path: path.symlink_to("/dev/zero"), Case("device"))
    add("fifo.jpg", os.mkfifo, Case("fifo"))
    add("vanishing.jpg", lambda path: path.write_bytes(encoded(picture(44))), Case("no such file", vanishes=True))
    forbidden = Case() if ROOT else Case("permission")
    add("forbidden.jpg", lambda path: (path.write_bytes(encoded(picture(45))), path.chmod(0)), forbidden)
    (folder / "up").symlink_to("..")  # a loop, and not a photo
    (folder / "locked").mkdir()
    (folder / "locked" / "inside.jpg").write_bytes(encoded(picture(46)))
    (folder / "locked").chmod(0)
    made["locked/inside.jpg" if ROOT else "locked"] = forbidden
    return made


def write(folder: Path) -> dict[str, Case]:
    """Fills `folder`; returns the expected outcome of each photo by its listed name."""
    cases: dict[str, Case] = {}
    for contents, grey in ((_usable(), False), (_grey(), True)):
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            cases[name] = Case(grey=grey)
    for name, (content, reason) in _unusable().items():
        (folder / name).write_bytes(content)
        cases[name] = Case(reason)
    return {listed_name(name): case for name, case in {**cases, **_special(folder)}.items()}


def vanish(folder: Path, cases: dict[str, Case]) -> None:
    """Removes the files that vanish between listing and decoding."""
    for name, case in cases.items():
        if case.vanishes:
            (folder / name).unlink()


def unlock(folder: Path) -> None:
    """Restores the permissions, so that the folder can be deleted."""
    (folder / "locked").chmod(0o755)
