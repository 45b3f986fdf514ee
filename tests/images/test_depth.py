"""Each mode with more than 8 bits against the same picture in 8-bit RGB."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import battery
import numpy as np
import pytest
import tifffile
from battery import tiff
from PIL import Image

from recolor.images.decoding import decode, to_srgb
from recolor.images.opening import PhotoError

COLOUR = np.asarray(battery.picture(3, (64, 48)))
GREY = np.asarray(battery.picture(3, (64, 48)).convert("L").resize((64, 48)))
ALPHA = np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8), GREY.shape)
SIGNED, FLOAT16 = np.int16, np.float16


def widened(values: np.ndarray, white: int, dtype: Any = np.uint16) -> np.ndarray:
    return np.rint(values / 255.0 * white).astype(dtype)


def full(values: np.ndarray, dtype: Any = np.uint16) -> np.ndarray:
    return (values.astype(np.uint64) * (257 if np.dtype(dtype).itemsize == 2 else 2**24 + 2**16 + 2**8 + 1)).astype(
        dtype
    )


def png(values: np.ndarray, kind: int, significant: int | None = None) -> bytes:
    """A 16-bit PNG; `significant`: the bits in its sBIT chunk."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = battery.png(width, height, 16, kind, rows)
    if significant is None:
        return data
    content = bytes([significant]) * (1 if values.ndim == 2 else values.shape[2])
    checksum = struct.pack(">I", zlib.crc32(b"sBIT" + content))
    return data[:33] + struct.pack(">I", len(content)) + b"sBIT" + content + checksum + data[33:]


def of_type(values: np.ndarray, dtype: Any) -> np.ndarray:
    """From 0 to 1, or to the largest integer."""
    return (values / 255).astype(dtype) if np.dtype(dtype).kind == "f" else widened(values, np.iinfo(dtype).max, dtype)


def pillow_tiff(mode: str, values: np.ndarray, **options: Any) -> bytes:
    return battery.encoded(Image.frombytes(mode, values.shape[::-1], values.tobytes()), "TIFF", **options)


def ppm(values: np.ndarray, largest: int = 65535) -> bytes:
    header = f"P{5 if values.ndim == 2 else 6} {values.shape[1]} {values.shape[0]} {largest}\n"
    return header.encode() + values.astype(">u2").tobytes()


def planes(values: np.ndarray, **options: Any) -> bytes:
    return tiff(values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **options)


def max_sample(value: int) -> dict[str, Any]:
    return {"extratags": [(281, "H", 1, value, True)]}


RGB = {"photometric": "rgb"}
INVERTED = {"photometric": "miniswhite"}
GREY_ALPHA = np.stack([GREY, ALPHA], axis=-1)
RGBA = np.concatenate([COLOUR, ALPHA[..., None]], axis=-1)
PREMULTIPLIED = np.concatenate([COLOUR * (ALPHA[..., None] / 255), ALPHA[..., None]], axis=-1)
UNASSOCIATED = {"extrasamples": ["unassalpha"]}
PACKED = {"compression": "deflate"}
OME = '<OME><Image><Pixels SignificantBits="12"/></Image></OME>'
BIG = {"byteorder": ">"}

# name: a file, the picture in it, whether a note says that the range was guessed
CASES: dict[str, tuple[Callable[[], bytes], np.ndarray, bool]] = {
    **{
        f"{bits} bits, {name}": (lambda make=make, bits=bits: make(2**bits - 1), picture, True)
        for bits in (8, 10, 12, 14)
        for name, make, picture in (
            ("grey tiff", lambda white: tiff(widened(GREY, white)), GREY),
            ("grey tiff, big-endian", lambda white: tiff(widened(GREY, white, ">u2"), **BIG), GREY),
            ("grey tiff, inverted", lambda white: tiff(widened(255 - GREY, white), **INVERTED), GREY),
            ("grey tiff, signed", lambda white: tiff(widened(GREY, white, SIGNED)), GREY),
            ("grey png", lambda white: png(widened(GREY, white), 0), GREY),
            ("colour tiff", lambda white: tiff(widened(COLOUR, white), **RGB), COLOUR),
            ("colour tiff, big-endian", lambda white: tiff(widened(COLOUR, white, ">u2"), **RGB, **BIG), COLOUR),
            ("colour tiff, compressed", lambda white: tiff(widened(COLOUR, white), **RGB, **PACKED), COLOUR),
            ("colour png", lambda white: png(widened(COLOUR, white), 2), COLOUR),
            ("grey and alpha png", lambda white: png(widened(GREY_ALPHA, white), 4), GREY_ALPHA),
            ("colour and alpha png", lambda white: png(widened(RGBA, white), 6), RGBA),
        )
    },
    "times 16": (lambda: tiff(GREY.astype(np.uint16) * 16), GREY * (255 * 16 / 4095), True),
    "MaxSampleValue": (lambda: tiff(widened(GREY // 2, 4095), **max_sample(4095)), GREY // 2, False),
    "MaxSampleValue, colour": (lambda: tiff(widened(COLOUR // 3, 1023), **RGB, **max_sample(1023)), COLOUR // 3, False),
    "MaxSampleValue of 16 bits": (lambda: tiff(full(GREY // 8), **max_sample(65535)), GREY // 8, False),
    "MaxSampleValue, too small": (lambda: tiff(widened(GREY, 4095), **max_sample(255)), GREY, True),
    "SignificantBits": (lambda: tiff(widened(GREY // 2, 4095), description=OME, metadata=None), GREY // 2, False),
    "sBIT": (lambda: png(widened(GREY // 2, 4095), 0, 12), GREY // 2, False),
    "sBIT, colour": (lambda: png(widened(COLOUR // 2, 4095), 2, 12), COLOUR // 2, False),
    "sBIT of scaled values": (lambda: png(full(COLOUR), 2, 12), COLOUR, False),
    "sBIT of 16 bits": (lambda: png(full(GREY // 8), 0, 16), GREY // 8, False),
    "16 bits, grey tiff": (lambda: tiff(full(GREY)), GREY, False),
    "16 bits, grey tiff, inverted": (lambda: tiff(full(255 - GREY), **INVERTED), GREY, False),
    "16 bits, grey tiff, inverted, big-endian": (lambda: tiff(full(255 - GREY, ">u2"), **INVERTED, **BIG), GREY, False),
    "16 bits, grey tiff, inverted, compressed": (lambda: tiff(full(255 - GREY), **INVERTED, **PACKED), GREY, False),
    "16 bits, grey tiff, big-endian, compressed": (lambda: tiff(full(GREY, ">u2"), **BIG, **PACKED), GREY, False),
    "16 bits, colour planes": (lambda: planes(full(COLOUR)), COLOUR, False),
    "16 bits, colour planes, big-endian": (lambda: planes(full(COLOUR, ">u2"), **BIG), COLOUR, False),
    "12 bits, colour planes": (lambda: planes(widened(COLOUR, 4095)), COLOUR, True),
    "12 bits, colour planes, compressed": (lambda: planes(widened(COLOUR, 4095), **PACKED), COLOUR, True),
    "16 bits, colour planes, compressed": (lambda: planes(full(COLOUR), **PACKED), COLOUR, False),
    "16 bits, colour tiles": (lambda: tiff(full(COLOUR), **RGB, tile=(32, 32)), COLOUR, False),
    "12 bits, colour tiles": (lambda: tiff(widened(COLOUR, 4095), **RGB, tile=(32, 32)), COLOUR, True),
    "16 bits, grey and alpha tiff": (lambda: tiff(full(GREY_ALPHA), **UNASSOCIATED), GREY_ALPHA, False),
    "16 bits, grey and alpha tiff, big-endian": (
        lambda: tiff(full(GREY_ALPHA, ">u2"), **UNASSOCIATED, **BIG),
        GREY_ALPHA,
        False,
    ),
    "16 bits, grey and alpha tiff, compressed": (
        lambda: tiff(full(GREY_ALPHA), **UNASSOCIATED, **PACKED),
        GREY_ALPHA,
        False,
    ),
    "12 bits, grey and alpha tiff": (lambda: tiff(widened(GREY_ALPHA, 4095), **UNASSOCIATED), GREY_ALPHA, True),
    "16 bits, colour and alpha tiff": (lambda: tiff(full(RGBA), **RGB, **UNASSOCIATED), RGBA, False),
    "16 bits, colour and alpha png": (lambda: png(full(RGBA), 6), RGBA, False),
    "16 bits, grey and alpha png": (lambda: png(full(GREY_ALPHA), 4), GREY_ALPHA, False),
    "12 bits, colour multiplied by alpha": (
        lambda: tiff(widened(PREMULTIPLIED, 4095), **RGB, extrasamples=["assocalpha"]),
        RGBA,
        True,
    ),
    "8 bits of 8, signed": (lambda: tiff(widened(GREY, 127, np.int8)), GREY, False),
    "16 bits, signed": (lambda: tiff(widened(GREY, 32767, SIGNED)), GREY, False),
    "16 bits, signed, big-endian, compressed": (
        lambda: tiff(widened(GREY, 32767, ">i2"), **BIG, **PACKED),
        GREY,
        False,
    ),
    "32 bits": (lambda: tiff(full(GREY, np.uint32)), GREY, False),
    "32 bits, big-endian": (lambda: tiff(full(GREY, ">u4"), **BIG), GREY, False),
    "32 bits, big-endian, compressed": (lambda: tiff(full(GREY, ">u4"), **BIG, **PACKED), GREY, False),
    "32 bits, inverted": (lambda: tiff(full(255 - GREY, np.uint32), **INVERTED), GREY, False),
    "16 of 32 bits": (lambda: tiff(full(GREY).astype(np.uint32)), GREY, True),
    "12 of 32 bits, signed": (lambda: tiff(widened(GREY, 4095, np.int32)), GREY, True),
    "float32": (lambda: tiff(GREY / np.float32(255)), GREY, False),
    "float32, big-endian, compressed": (lambda: tiff((GREY / 255).astype(">f4"), **BIG, **PACKED), GREY, False),
    "float32, inverted": (lambda: tiff((255 - GREY) / np.float32(255), **INVERTED), GREY, False),
    "float16": (lambda: tiff((GREY / 255).astype(FLOAT16)), GREY, False),
    "float16, big-endian": (lambda: tiff((GREY / 255).astype(">f2"), **BIG), GREY, False),
    **{
        f"{name}, {how}": (
            lambda mode=mode, values=values, options=options: pillow_tiff(mode, values, **options),
            GREY,
            False,
        )
        for name, mode, values in (("16 bits", "I;16", full(GREY)), ("float32", "F", GREY / np.float32(255)))
        for how, options in (
            ("LZW", {"compression": "tiff_lzw"}),
            ("predictor", {"compression": "tiff_adobe_deflate", "tiffinfo": {317: 3 if mode == "F" else 2}}),
        )
    },
    **{
        f"colour, {np.dtype(dtype).name}{how}": (
            lambda dtype=dtype, options=options: tiff(of_type(COLOUR, dtype), **RGB, **options),
            COLOUR,
            False,
        )
        for dtype in (np.int8, np.int16, np.uint32, np.float16, np.float32, np.float64)
        for how, options in (("", {}), (", tiles", {"tile": (32, 32), **PACKED}))
    },
    "colour, float32, planes": (lambda: planes(of_type(COLOUR, np.float32), **PACKED), COLOUR, False),
    "colour and alpha, float32": (lambda: tiff(of_type(RGBA, np.float32), **RGB, **UNASSOCIATED), RGBA, False),
    "float64": (lambda: tiff(of_type(GREY, np.float64)), GREY, False),
    "uint64, big-endian": (lambda: tiff(widened(GREY, 2**48, ">u8"), **BIG), GREY * (2**48 / 2**64), False),
    **{
        f"{bits} bits of 16, {name} ppm": (
            lambda values=values, bits=bits: ppm(widened(values, 2**bits - 1)),
            values,
            bits < 16,
        )
        for bits in (10, 12, 16)
        for name, values in (("grey", GREY), ("colour", COLOUR))
    },
    "12 bits by its header, ppm": (lambda: ppm(widened(COLOUR // 2, 4095), 4095), COLOUR // 2, False),
    "float16, compressed": (lambda: tiff((GREY / 255).astype(FLOAT16), **PACKED), GREY, False),
}


@pytest.mark.parametrize("name", CASES)
def test_deep_values_give_the_picture_in_8_bits(name: str) -> None:
    make, picture, guessed = CASES[name]
    picture = picture.astype(float)
    alpha = picture[..., -1:] / 255 if picture.ndim == 3 and picture.shape[-1] in (2, 4) else 1.0
    colour = picture[..., None] if picture.ndim == 2 else picture[..., : 1 if picture.shape[-1] == 2 else 3]
    expected = np.broadcast_to(alpha * colour + (1 - alpha) * 255, (*picture.shape[:2], 3))  # over white
    result = decode(make())
    assert ("notes" in result.info) == guessed
    assert np.asarray(result).mean() == pytest.approx(expected.mean(), abs=0.6)
    assert np.abs(np.asarray(result) - expected).max() <= 1.5


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.full((8, 8), -5, np.int8)),
        tiff(np.full((8, 8, 3), np.nan), **RGB),
        tiff(COLOUR / np.float32(255), **RGB, compression="lzma"),
        tiff(COLOUR / np.float32(255), **RGB)[:-100],
    ],
    ids=["negative", "nan", "lzma", "cut"],
)
def test_values_that_cannot_be_read_are_refused_with_the_reason(data: bytes) -> None:
    with pytest.raises(PhotoError) as refusal:
        decode(data)
    assert "not a photo" not in str(refusal.value)


def test_a_part_is_decompressed_no_further_than_its_size() -> None:
    """It holds 100 times as many bytes."""
    data = tiff(COLOUR / np.float32(255), **RGB, **PACKED)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags, bomb = file.pages[0].tags, zlib.compress(bytes(100 * COLOUR.size * 4))
        places = [(tags[tag].valueoffset, value) for tag, value in ((273, len(data)), (279, len(bomb)))]
    content = bytearray(data + bomb)
    for place, value in places:
        content[place : place + 4] = struct.pack("<I", value)
    tracemalloc.start()
    with pytest.raises(PhotoError):
        decode(bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * COLOUR.size * 4


def test_a_page_of_12_bits_is_scaled_like_a_file() -> None:
    image = Image.open(io.BytesIO(tiff(np.stack([widened(COLOUR, 4095), widened(255 - COLOUR, 4095)]), **RGB)))
    image.seek(1)
    assert np.abs(np.asarray(to_srgb(image)).astype(int) - (255 - COLOUR)).max() <= 1


def test_an_image_opened_from_a_path_is_scaled_too(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(png(widened(COLOUR, 4095), 2))
    with Image.open(tmp_path / "scan.png") as image:
        assert np.abs(np.asarray(to_srgb(image)).astype(int) - COLOUR).max() <= 1
