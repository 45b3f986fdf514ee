"""TIFFs that Pillow alone refuses or misreads: values packed without gaps, and uncompressed YCbCr."""

import struct
import zlib
from pathlib import Path

import battery
import numpy as np
import pytest
import tifffile
from PIL import Image

from recolor.images.decoding import decode
from recolor.images.opening import MAX_PIXELS, PhotoError

SIZE = WIDTH, HEIGHT = 45, 32  # rows of packed grey end within a byte
GREY, RGB, YCBCR = 1, 2, 6
BITS, COMPRESSION, PHOTOMETRIC, PLACES, SAMPLES, LENGTHS, SUBSAMPLING = 258, 259, 262, 273, 277, 279, 530
TILE_WIDTH, TILE_LENGTH = 322, 323


def picture(mode: str) -> Image.Image:
    return battery.picture(2, SIZE).convert(mode)


def tiff(rows: list[bytes], tags: dict[int, list[int]], order: str, deflate: bool = False, per_strip: int = 7) -> bytes:
    """`rows` in strips of `per_strip` rows."""
    strips = [b"".join(rows[top : top + per_strip]) for top in range(0, len(rows), per_strip)]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    places = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    tags |= {256: [WIDTH], 257: [HEIGHT], COMPRESSION: [8 if deflate else 1], 278: [per_strip]}
    tags |= {PLACES: places, LENGTHS: [len(strip) for strip in strips]}
    start = 8 + sum(map(len, strips))
    entries, beyond, end = b"", b"", start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}H", *values).ljust(4, b"\0")
        if len(content) > 4:
            beyond, content = beyond + content, struct.pack(f"{order}L", end + len(beyond))
        entries += struct.pack(f"{order}HHL", tag, 3, len(values)) + content
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HL", 42, start)
    return head + b"".join(strips) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond


def packed(values: np.ndarray, bits: int) -> list[bytes]:
    """The rows of 8-bit `values`, widened to `bits` bits each."""
    wide = np.round(values.reshape(HEIGHT, -1) * ((2**bits - 1) / 255)).astype(int)
    return [np.packbits([int(bit) for value in row for bit in f"{value:0{bits}b}"]).tobytes() for row in wide]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("order", "deflate"), [("<", False), (">", False), ("<", True)])
def test_packed_values_give_the_picture_in_8_bits(mode: str, bits: int, order: str, deflate: bool) -> None:
    expected = picture(mode)
    channels = len(mode)
    tags = {BITS: [bits] * channels, PHOTOMETRIC: [RGB if mode == "RGB" else GREY], SAMPLES: [channels]}
    result = decode(tiff(packed(np.asarray(expected), bits), tags, order, deflate))
    assert result == expected.convert("RGB")
    assert not result.info


def test_packed_values_that_are_cut_are_refused() -> None:
    tags = {BITS: [10], PHOTOMETRIC: [GREY], SAMPLES: [1], LENGTHS: [1]}
    data = tiff(packed(np.asarray(picture("L")), 10)[:-7], tags, "<")
    with pytest.raises(PhotoError):
        decode(data)


def test_a_last_strip_that_is_filled_up_to_its_full_height_is_read() -> None:
    expected = picture("L")
    rows = packed(np.asarray(expected), 16)
    tags = {BITS: [16], PHOTOMETRIC: [GREY], SAMPLES: [1]}
    filled = [*rows, *rows[: -HEIGHT % 7]]
    assert decode(tiff(filled, tags, ">", deflate=True, per_strip=7)) == expected.convert("RGB")


def test_a_tile_of_more_pixels_than_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.zeros((16, 16), np.uint16), tile=(16, 16), compression="deflate")
    with tifffile.TiffFile(file, mode="r+") as written:
        for tag in TILE_WIDTH, TILE_LENGTH:
            written.pages[0].tags[tag].overwrite(20_000)
    with pytest.raises(PhotoError, match=str(MAX_PIXELS // 10**6)):
        decode(file)


@pytest.mark.parametrize("order", ["<", ">"])
def test_uncompressed_ycbcr_gives_its_colours(order: str, tmp_path: Path) -> None:
    expected = battery.picture(2, SIZE)
    rows = [row.tobytes() for row in np.asarray(expected.convert("YCbCr"))]
    tags = {BITS: [8] * 3, PHOTOMETRIC: [YCBCR], SAMPLES: [3], SUBSAMPLING: [1, 1]}
    data = tiff(rows, tags, order)
    (tmp_path / "photo.tif").write_bytes(data)
    for file in (data, tmp_path / "photo.tif"):
        difference = np.abs(np.asarray(decode(file)).astype(int) - np.asarray(expected))
        assert difference.max() <= 3
