"""What a result keeps of its photo, in each format."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import battery
import numpy as np
import profiles
import pytest
from coloured import YEAR_2001, lightness, save
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from recolor.images.decoding import decode
from recolor.images.metadata import save_options
from recolor.inference import formats
from recolor.inference.colorizer import Colorizer

DOCUMENT_NAME, PAGE_NAME, MAKER_NOTE, USER_COMMENT = 0x010D, 0x011D, 0x927C, 0x9286
ORIENTATION, MAKE, DATE_TAKEN, COLOUR_SPACE, LATITUDE = 0x0112, 0x010F, 0x9003, 0xA001, 2
EXIF, GPS = 0x8769, 0x8825


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_format_exif_dpi_and_date_are_kept(run: Callable, tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Plaubel", 6
    exif[EXIF] = {DATE_TAKEN: "1936:05:01 10:00:00", COLOUR_SPACE: 65535}
    exif[GPS] = {1: "N", LATITUDE: (45.0, 24.0, 0.0)}
    dpi = {} if suffix == ".webp" else {"dpi": (300, 300)}
    profile = profiles.icc("Adobe RGB", profiles.ADOBE_RGB)
    source = save(tmp_path / f"photo{suffix}", exif=exif.tobytes(), icc_profile=profile, **dpi)
    job = run(source)[source.name]
    assert job.problem == ""
    assert job.target == tmp_path / f"photo-recolor{suffix}"
    assert job.target.stat().st_mtime == YEAR_2001
    with Image.open(source) as before, Image.open(job.target) as after:
        assert after.format == before.format
        assert after.size == battery.SIZE[::-1]  # upright
        assert np.abs(lightness(after) - lightness(decode(source))).mean() < 2
        kept = after.getexif()
        assert (kept[MAKE], kept[ORIENTATION]) == ("Plaubel", 1)
        assert kept.get_ifd(EXIF)[DATE_TAKEN] == "1936:05:01 10:00:00"
        assert kept.get_ifd(EXIF)[COLOUR_SPACE] == 1
        assert kept.get_ifd(GPS)[LATITUDE] == (45.0, 24.0, 0.0)
        assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(after.info["icc_profile"])))
        assert after.info.get("dpi", before.info.get("dpi")) == pytest.approx(before.info.get("dpi"), abs=0.01)


def test_texts_are_kept_where_the_format_can(run: Callable, tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6" exif:DateTimeOriginal="1936-05-01"></x:xmpmeta>'
    exif = Image.Exif()
    exif[DOCUMENT_NAME], exif[PAGE_NAME] = "Album 3", "Page 12"
    texts = PngInfo()
    texts.add_text("Title", "Sommer")
    texts.add_itxt("Author", "Änne", lang="de")
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    save(tmp_path / "a.jpg", exif=exif, xmp=xmp, comment=b"from the attic")
    save(tmp_path / "b.png", exif=exif, pnginfo=texts)
    save(tmp_path / "c.tif", tiffinfo={DOCUMENT_NAME: "Album 3", PAGE_NAME: "Page 12", 700: xmp})
    save(tmp_path / "d.webp", exif=exif, xmp=xmp)
    for name in ("a.jpg", "b.png", "c.tif", "d.webp"):
        for suffix in (".jpg", ".png", ".tif", ".webp"):
            out = tmp_path / f"{name[0]}-as{suffix}"
            assert run(tmp_path / name, out=out)[name].problem == ""
            with Image.open(out) as result:
                kept = result.getexif()
                assert (kept[DOCUMENT_NAME], kept[PAGE_NAME]) == ("Album 3", "Page 12"), out
                assert b"1936-05-01" in result.info["xmp"], out
                assert b'Orientation="6"' not in result.info["xmp"], out
    assert Image.open(tmp_path / "a-as.jpg").info["comment"] == b"from the attic"
    assert Image.open(tmp_path / "a-as.png").text["Comment"] == "from the attic"
    kept = Image.open(tmp_path / "b-as.png").text
    assert (kept["Title"], kept["Author"], kept["Author"].lang) == ("Sommer", "Änne", "de")


def test_exif_that_a_jpeg_cannot_hold_costs_itself_and_not_the_photo(run: Callable, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[MAKE] = "Plaubel"
    exif[EXIF] = {DATE_TAKEN: "1936:05:01 10:00:00", MAKER_NOTE: b"n" * 70_000}
    source = save(tmp_path / "photo.png", exif=exif)
    job = run(source, out=tmp_path / "photo.jpg")["photo.png"]
    assert (job.problem, "MakerNote" in job.note) == ("", True)
    kept = Image.open(job.target).getexif()
    assert (kept[MAKE], kept.get_ifd(EXIF)[DATE_TAKEN]) == ("Plaubel", "1936:05:01 10:00:00")
    exif[EXIF] = {USER_COMMENT: b"c" * 70_000}
    job = run(save(tmp_path / "photo.png", exif=exif), out=tmp_path / "photo.jpg", force=True)["photo.png"]
    assert (job.problem, "EXIF" in job.note, "MakerNote" in job.note) == ("", True, False)
    assert not Image.open(job.target).getexif()
    assert run(source)["photo.png"].note == ""


def test_a_side_that_a_format_cannot_hold_is_named(run: Callable, tmp_path: Path) -> None:
    Image.new("L", (40_000, 1)).save(tmp_path / "wide.jpg")
    problem = run(tmp_path / "wide.jpg", side_by_side=True)["wide.jpg"].problem
    assert re.search("80000x1.*JPEG.*65,500", problem)
    assert run(tmp_path / "wide.jpg", side_by_side=True, out=tmp_path / "wide.png")["wide.jpg"].problem == ""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_lossless_formats_stay_so(run: Callable, tmp_path: Path, colorizer: Colorizer, suffix: str) -> None:
    source = save(tmp_path / f"photo{suffix}")
    result = Image.open(run(source)[source.name].target)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(colorizer(Image.open(source))))


def test_a_jpeg_is_one_of_quality_95_with_all_its_colour(run: Callable, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.jpg", quality=30)
    result = Image.open(run(source)["photo.jpg"].target)
    expected = Image.open(io.BytesIO(battery.encoded(battery.picture(0), quality=95, subsampling="4:4:4")))
    assert (result.quantization, result.layer) == (expected.quantization, expected.layer)


def test_transparency_is_kept_where_the_format_can(run: Callable, tmp_path: Path) -> None:
    image = battery.picture(0)
    opacity = np.arange(image.width * image.height, dtype=np.uint32).astype(np.uint8).reshape(image.height, image.width)
    image.putalpha(Image.fromarray(opacity))
    image.save(tmp_path / "photo.png")
    kept = Image.open(run(tmp_path / "photo.png")["photo.png"].target)
    np.testing.assert_array_equal(np.asarray(kept)[..., 3], opacity)
    laid_over_white = run(tmp_path / "photo.png", out=tmp_path / "photo.jpg")["photo.png"]
    assert laid_over_white.problem == ""
    assert np.asarray(Image.open(laid_over_white.target))[0, 0].min() > 200


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_compressed_tiff_stays_compressed_with_its_exif(run: Callable, tmp_path: Path, compression: str) -> None:
    source = tmp_path / "photo.tif"
    battery.picture(0).resize((300, 200)).save(source, compression=compression)
    exif = Image.Exif()
    exif[MAKE], exif[EXIF], exif[GPS] = (
        "Plaubel",
        {DATE_TAKEN: "1936:05:01 10:00:00"},
        {1: "N", LATITUDE: (45.0, 24.0, 0.0)},
    )
    with_exif = tmp_path / "exif.jpg"
    battery.picture(0).save(with_exif, exif=exif)
    assert run(source)["photo.tif"].problem == ""
    with Image.open(tmp_path / "photo-recolor.tif") as result:
        assert result.info["compression"] == compression.replace("jpeg", "tiff_adobe_deflate")
        assert np.abs(lightness(result) - lightness(decode(source))).max() < 0.5
    with Image.open(with_exif) as file:
        metadata, _ = save_options(file, "TIFF")
    formats.save(battery.picture(0), tmp_path / "both.tif", "TIFF", metadata | {"compression": "tiff_lzw"})
    with Image.open(tmp_path / "both.tif") as result:
        kept = result.getexif()
        assert kept[MAKE] == "Plaubel"
        assert kept.get_ifd(EXIF)[DATE_TAKEN] == "1936:05:01 10:00:00"
        assert kept.get_ifd(GPS)[LATITUDE] == (45.0, 24.0, 0.0)
        np.testing.assert_array_equal(np.asarray(result), np.asarray(battery.picture(0)))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality_is_a_setting(run: Callable, tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"photo{suffix}")
    sizes = [run(source, force=True, quality=quality)[source.name].target.stat().st_size for quality in (20, 95)]
    assert sizes[0] < sizes[1]
