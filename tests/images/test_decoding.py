"""Decoding: correct pixels of unusual photos, a reason for bad ones, and no other exception for any bytes."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import battery
import numpy as np
import pandas as pd
import profiles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from surroundings import few_or_many, search

from recolor.images import depth, opening
from recolor.images.decoding import decode, to_srgb
from recolor.images.opening import CutShortError, PhotoError, listed_name, locate


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def difference(image: Image.Image, expected: Image.Image | np.ndarray) -> int:
    assert image.mode == "RGB"
    return int(np.abs(pixels(image) - np.asarray(expected).astype(int)).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, battery.Case]]]:
    path = tmp_path_factory.mktemp("battery")
    cases = battery.write(path)
    battery.vanish(path, cases)
    yield path, cases
    battery.unlock(path)


def test_every_file_of_the_battery_is_decoded_or_refused_with_its_reason(
    folder: tuple[Path, dict[str, battery.Case]],
) -> None:
    root, cases = folder
    for name, case in cases.items():
        if case.reason:
            with pytest.raises(PhotoError, match=case.reason) as refusal:
                decode(locate(root, name))
            assert "\n" not in str(refusal.value), name
            assert len(str(refusal.value)) < 120, name
        else:
            image = decode(locate(root, name))
            assert (image.mode, type(image), set(image.info) - {"notes"}) == ("RGB", Image.Image, set()), name
            assert (np.ptp(pixels(image), axis=2) <= 1).all() == case.grey, name


def test_path_and_bytes_give_the_same(folder: tuple[Path, dict[str, battery.Case]]) -> None:
    path = folder[0] / "display-p3.png"
    assert decode(path) == decode(path.read_bytes())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    assert difference(decode(battery.oriented(orientation)), battery.picture(50)) <= 8


def test_tiff_orientation_is_applied_once() -> None:
    stored = battery.picture(1).transpose(Image.Transpose.ROTATE_90)
    assert decode(battery.encoded(stored, "TIFF", tiffinfo={0x0112: 6})) == battery.picture(1)


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(profiles.ADOBE_RGB, 2.19921875), (profiles.DISPLAY_P3, 2.2)], ids=["adobe", "p3"]
)
def test_wide_colours_become_srgb(primaries: tuple[tuple[float, ...], ...], gamma: float) -> None:
    image = battery.picture(3)
    data = battery.encoded(image, "PNG", icc_profile=profiles.icc("wide", primaries, gamma))
    xyz = (pixels(image) / 255) ** gamma @ np.array(primaries)
    srgb_to_xyz = np.array(
        [[0.4360747, 0.2225045, 0.0139322], [0.3850649, 0.7168786, 0.0971045], [0.1430804, 0.0606169, 0.7141733]]
    )
    linear = (xyz @ np.linalg.inv(srgb_to_xyz)).clip(0, 1)  # IEC 61966-2-1, primaries adapted to D50
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert difference(decode(data), np.rint(255 * srgb)) <= 3
    assert difference(image, np.rint(255 * srgb)) > 20  # the profile makes a visible difference


def test_an_srgb_profile_changes_nothing() -> None:
    profile = profiles.icc("sRGB IEC61966-2.1", profiles.DISPLAY_P3)
    assert decode(battery.encoded(battery.picture(1), "PNG", icc_profile=profile)) == battery.picture(1)


def test_inks_become_light() -> None:
    assert difference(decode(battery.encoded(battery.picture(9).convert("CMYK"), quality=95)), battery.picture(9)) <= 8
    assert difference(decode(battery.ycck(10)), battery.picture(10)) <= 12


def test_transparency_lies_over_white() -> None:
    image = battery.picture(5)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    colour, alpha = pixels(image)[..., :3], pixels(image)[..., 3:] / 255
    assert difference(decode(battery.encoded(image, "PNG")), np.rint(alpha * colour + (1 - alpha) * 255)) <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    shown = decode(battery.encoded(palette, "PNG", transparency=1))
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_sixteen_bits_become_the_upper_eight() -> None:
    values = np.arange(0, 65536, 8, dtype=np.uint16).reshape(64, 128)
    grey = np.repeat((values >> 8)[..., None], 3, axis=2)
    assert difference(decode(battery.encoded(Image.fromarray(values), "PNG")), grey) == 0
    assert difference(decode(battery.tiff(values.astype(">u2"), byteorder=">")), grey) == 0
    assert difference(decode(battery.tiff(np.stack([values] * 3, axis=-1), photometric="rgb")), grey) == 0
    rows = b"".join(b"\0" + np.stack([row] * 3, axis=-1).astype(">u2").tobytes() for row in values)
    assert difference(decode(battery.png(128, 64, 16, 2, rows)), grey) == 0


def test_the_sixteen_bit_value_that_is_not_seen_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "STRIP", 4)
    values = np.array([[40_000, 40_001], [40_002, 40_000], [7, 8]], np.uint16)
    image = Image.open(io.BytesIO(battery.encoded(Image.fromarray(values), "PNG", transparency=40_000)))
    shown = pixels(to_srgb(image, keep_alpha=True))
    assert shown[..., 3].tolist() == [[0, 255], [255, 0], [255, 255]]
    np.testing.assert_array_equal(shown[..., 0], values >> 8)


@pytest.mark.parametrize("strip", [20, depth.STRIP])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floats_are_scaled_by_the_range_that_they_fill(white: int, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "STRIP", strip)
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2)
    assert difference(decode(battery.tiff(ramp * white)), expected) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = battery.encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data) == frames[0]


def thumbnail_in_front(image: Image.Image, shape: tuple[int, int]) -> bytes:
    return battery.encoded(image.resize(shape), "TIFF", save_all=True, append_images=[image])


def test_of_a_tiff_with_a_thumbnail_in_front_the_photo() -> None:
    photo = battery.picture(1, (96, 64))
    assert decode(thumbnail_in_front(photo, (24, 16))) == photo
    assert decode(thumbnail_in_front(photo, (24, 48))) == photo.resize((24, 48))  # another picture


def test_the_pixels_of_a_later_page_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PIXELS", 1000)
    with pytest.raises(PhotoError):
        decode(thumbnail_in_front(battery.picture(1, (96, 64)), (24, 16)))


def test_crop_is_of_the_upright_photo() -> None:
    whole, crop = decode(battery.oriented(6)), (3, 5, 20, 31)
    assert decode(battery.oriented(6), crop) == whole.crop(crop)


@pytest.mark.parametrize("crop", [(0, 0, 49, 10), (-1, 0, 5, 5), (5, 0, 5, 5), (0, 30, 5, 33)])
def test_a_crop_that_leaves_the_photo_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(PhotoError, match="48x32"):
        decode(battery.encoded(battery.picture(1)), crop)


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = battery.encoded(battery.picture(1))
    monkeypatch.setattr(opening, "MAX_PIXELS", 48 * 32)
    assert decode(data).size == (48, 32)
    monkeypatch.setattr(opening, "MAX_PIXELS", 48 * 32 - 1)
    with pytest.raises(PhotoError) as caught:
        decode(data[:-50])
    assert not isinstance(caught.value, CutShortError)  # which a decoder would raise


def test_eps_is_not_run() -> None:
    """Pillow would start Ghostscript."""
    with pytest.raises(PhotoError, match="not supported"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


def test_a_fifo_that_replaces_a_photo_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(battery.encoded(battery.picture(1)))
    os.mkfifo(tmp_path / "fifo.jpg")
    before = (tmp_path / "photo.jpg").stat()
    monkeypatch.setattr(Path, "stat", lambda path: before)
    with pytest.raises(PhotoError, match="fifo"):
        decode(tmp_path / "fifo.jpg")


@given(st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name and b"/" not in name))
@example(b"new\nline\r\t\xff\x80%41%.jpg")
@example("写真 e\u0301\u202e\u00a0\u200d\U0001f308".encode())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_name_survives_a_table(name: bytes) -> None:
    listed = listed_name(os.fsdecode(name))
    assert listed.isprintable()
    table = io.StringIO(pd.DataFrame({"path": [listed], "other": ["x"]}).to_csv(index=False))
    read = pd.read_csv(table, keep_default_na=False, dtype=str)["path"][0]
    assert os.fsencode(locate(Path("/photos"), read)) == b"/photos/" + name


def test_ordinary_names_stay_readable() -> None:
    assert listed_name("2024/Été à Paris/写真 (1), final.JPG") == "2024/Été à Paris/写真 (1), final.JPG"


SEEDS = [
    *(battery.encoded(battery.picture(1), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")),
    battery.encoded(battery.picture(2), progressive=True),
    battery.encoded(battery.picture(3), "TIFF", compression="tiff_lzw"),
    battery.encoded(battery.picture(4), "TIFF", compression="jpeg"),
    battery.encoded(battery.picture(5), "MPO", save_all=True, append_images=[battery.picture(6)]),
    battery.encoded(battery.picture(7).quantize(16), "PNG", transparency=3),
    battery.encoded(battery.picture(8), icc_profile=profiles.icc("wide", profiles.ADOBE_RGB)),
    battery.encoded(battery.picture(8), "WEBP", save_all=True, append_images=[battery.picture(9)], lossless=True),
    battery.encoded(battery.picture(9), "PNG", save_all=True, append_images=[battery.picture(10)]),
    battery.encoded(battery.picture(9).convert("1"), "TIFF", compression="group4"),
    battery.oriented(6),
    battery.ycck(1),
    battery.tiff(np.asarray(battery.picture(3)).astype(np.uint16) * 16, photometric="rgb"),
    battery.tiff(np.asarray(battery.picture(3))[..., :2].astype(np.uint16) * 16, extrasamples=["unassalpha"]),
    battery.tiff(
        np.asarray(battery.picture(3)) / np.float32(255), photometric="rgb", compression="deflate", tile=(16, 16)
    ),
    battery.tiff(
        np.asarray(battery.picture(3)) / np.float32(255), photometric="rgb", compression="lzw", predictor=True
    ),
    battery.tiff(np.asarray(battery.picture(3)).astype(np.uint16), photometric="rgb", bitspersample=12),
    battery.png(8, 4, 16, 2, bytes(4 * 49)),
    *(battery.encoded(battery.picture(6), kind) for kind in ("TGA", "ICO")),
    *([battery.encoded(battery.picture(1), "AVIF")] if battery.features.check("avif") else []),
    *([battery.encoded(battery.picture(1), "JPEG2000")] if battery.features.check("jpg_2000") else []),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes changed, removed, inserted or doubled, more often in the header."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(data), 200)) | st.integers(0, len(data)))
        kind, some = draw(st.sampled_from(["set", "cut", "put", "double", "end"])), draw(st.integers(1, 40))
        match kind:
            case "set":
                new = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff\xff", b"\0\0\0\0", b"\x7f\xff"]))
                data[place : place + len(new)] = new
            case "cut":
                del data[place : place + some]
            case "put":
                data[place:place] = draw(st.binary(min_size=1, max_size=some))
            case "double":
                data[place:place] = data[place : place + some]
            case "end":
                del data[max(place, 1) :]
    return bytes(data)


@few_or_many
def test_any_mutation_of_a_photo_is_a_photo_or_a_refusal(examples: int) -> None:
    @given(mutated())
    @search(examples)
    def holds(data: bytes) -> None:
        try:
            image = decode(data)
        except PhotoError as error:
            assert str(error).isprintable()
            assert 3 < len(str(error)) < 120
        else:
            assert image.mode == "RGB"
            assert 0 < image.width * image.height <= opening.MAX_PIXELS

    holds()
