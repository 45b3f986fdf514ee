"""Files in, files out: what a result keeps of its photo, and what never happens to a file."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import battery
import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from recolor.core.errors import UserError
from recolor.images.color import rgb_to_lab
from recolor.images.decoding import decode
from recolor.images.metadata import save_options
from recolor.images.opening import listed_name
from recolor.inference import colorizer as colorizing
from recolor.inference import files, formats
from recolor.inference.colorizer import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.plan import Job, plan

DOCUMENT_NAME, PAGE_NAME, MAKER_NOTE, USER_COMMENT = 0x010D, 0x011D, 0x927C, 0x9286
ORIENTATION, MAKE, DATE_TAKEN, COLOUR_SPACE, LATITUDE = 0x0112, 0x010F, 0x9003, 0xA001, 2
EXIF, GPS = 0x8769, 0x8825
YEAR_2001 = 1_000_000_000


@pytest.fixture(scope="session")
def colorizer(tiny_model: Path) -> Colorizer:
    return Colorizer.load(tiny_model, "cpu")


@pytest.fixture
def run(colorizer: Colorizer) -> Callable[..., dict[str, Job]]:
    """Colours photos; gives the jobs by the names of their photos."""

    def colour(*photos: Path, out: Path | None = None, force: bool = False, **settings: object) -> dict[str, Job]:
        return {job.source.name: job for job in colorize_files(colorizer, plan(photos, out, force), **settings)}

    return colour


def lightness(image: Image.Image) -> np.ndarray:
    return rgb_to_lab(np.asarray(image.convert("RGB")))[0] * 50 + 50


def save(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    battery.picture(seed).save(path, **options)
    os.utime(path, (YEAR_2001, YEAR_2001))
    return path


def test_whatever_can_be_decoded_is_coloured_and_the_rest_is_told(run: Callable, tmp_path: Path) -> None:
    cases = battery.write(tmp_path / "in")
    out = tmp_path / "out"
    done = run(tmp_path / "in", out=out)
    assert {name for name, job in done.items() if not job.problem} >= {
        "cmyk.jpg",
        "grey16.png",
        "float.tif",
        "palette.bmp",
    }
    for job in done.values():
        name = listed_name(job.source.relative_to(tmp_path / "in").as_posix())
        if job.problem:
            assert cases[name].reason in job.problem or "already" in job.problem or "too long" in job.problem, name
            assert not os.path.lexists(job.target) or "already" in job.problem
            continue
        assert cases[name].vanishes or not cases[name].reason
        photo, result = decode(job.source), decode(job.target)
        assert result.size == photo.size
        if job.target.suffix in (".png", ".tif", ".bmp", ".ppm") and not name.startswith(
            ("rgba", "grey-see", "palette-see")
        ):
            assert np.abs(lightness(result) - lightness(photo)).max() < 0.5, name
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_format_exif_dpi_and_date_are_kept(run: Callable, tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Plaubel", 6
    exif[EXIF] = {DATE_TAKEN: "1936:05:01 10:00:00", COLOUR_SPACE: 65535}
    exif[GPS] = {1: "N", LATITUDE: (45.0, 24.0, 0.0)}
    dpi = {} if suffix == ".webp" else {"dpi": (300, 300)}
    profile = battery.icc("Adobe RGB", battery.ADOBE_RGB)
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
    assert (job.problem, job.note) == ("", "its EXIF data is too long for a JPEG: the MakerNote is left out")
    kept = Image.open(job.target).getexif()
    assert (kept[MAKE], kept.get_ifd(EXIF)[DATE_TAKEN]) == ("Plaubel", "1936:05:01 10:00:00")
    exif[EXIF] = {USER_COMMENT: b"c" * 70_000}
    job = run(save(tmp_path / "photo.png", exif=exif), out=tmp_path / "photo.jpg", force=True)["photo.png"]
    assert (job.problem, job.note) == ("", "its EXIF data is too long for a JPEG and left out")
    assert not Image.open(job.target).getexif()
    assert run(source)["photo.png"].note == ""


def test_a_side_that_a_format_cannot_hold_is_named(run: Callable, tmp_path: Path) -> None:
    Image.new("L", (40_000, 1)).save(tmp_path / "wide.jpg")
    problem = run(tmp_path / "wide.jpg", side_by_side=True)["wide.jpg"].problem
    assert "80000x1 pixels; JPEG holds 65,500 a side" in problem
    assert run(tmp_path / "wide.jpg", side_by_side=True, out=tmp_path / "wide.png")["wide.jpg"].problem == ""


def test_what_was_guessed_or_is_missing_is_noted(run: Callable, tmp_path: Path) -> None:
    grey = np.asarray(battery.picture(1).convert("L"))
    jpeg = battery.encoded(battery.picture(1, (320, 240)))
    contents = {"12 bits.tif": battery.tiff(grey.astype(np.uint16) * 16), "end.jpg": jpeg[:-2], "cut.jpg": jpeg[:2000]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    done = run(tmp_path)
    assert {name for name, job in done.items() if not job.problem} == {"12 bits.tif", "end.jpg"}
    assert all(job.note for job in done.values() if not job.problem)
    result = decode(tmp_path / "12 bits-recolor.tif")
    assert lightness(result).mean() == pytest.approx(lightness(Image.fromarray(grey).convert("RGB")).mean(), abs=1)
    damaged = run(tmp_path, force=True, damaged=True)["cut.jpg"]
    assert (damaged.problem, bool(damaged.note)) == ("", True)


def test_what_a_result_has_less_than_its_photo_is_noted(run: Callable, tmp_path: Path) -> None:
    pages = {"save_all": True, "append_images": [battery.picture(1), battery.picture(2)]}
    save(tmp_path / "pages.tif", **pages)
    save(tmp_path / "moving.gif", **pages)
    save(tmp_path / "moving.webp", **pages)
    save(tmp_path / "previews.mpo", **pages)
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    battery_tiff = battery.tiff(np.full((9, 9, 3), 40_000, np.uint16), photometric="rgb")
    (tmp_path / "deep.tif").write_bytes(battery_tiff)
    save(tmp_path / "plain.tif")
    first, deep = "the first of 3 pages or frames", "in 8 bits, the photo has more"
    assert {name: (job.problem, job.note) for name, job in run(tmp_path).items()} == {
        "pages.tif": ("", first),
        "moving.gif": ("", first),
        "moving.webp": ("", first),
        "previews.mpo": ("", ""),
        "deep.png": ("", deep),
        "deep.tif": ("", deep),
        "plain.tif": ("", ""),
    }


@pytest.mark.parametrize(
    ("name", "kind", "result"),
    [
        ("noext", "JPEG", "noext-recolor.jpg"),
        ("a.mpo", "JPEG", "a-recolor.jpg"),
        ("a.jpg", "PNG", "a-recolor.png"),
        ("a.png", "WEBP", "a-recolor.webp"),
        ("a.gif", "GIF", "a-recolor.png"),
        ("a.pgm", "PPM", "a-recolor.ppm"),
        ("a.JPEG", "JPEG", "a-recolor.JPEG"),
        ("a.tiff", "TIFF", "a-recolor.tiff"),
    ],
)
def test_the_content_decides_the_format(run: Callable, tmp_path: Path, name: str, kind: str, result: str) -> None:
    save(tmp_path / name, format=kind)
    job = run(tmp_path / name)[name]
    assert (job.problem, job.target) == ("", tmp_path / result)
    assert Image.open(job.target).format == (kind if kind != "GIF" else "PNG")


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


def test_side_by_side_holds_the_photo_and_its_result(run: Callable, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    both = np.asarray(Image.open(run(source, side_by_side=True)["photo.png"].target))
    alone = np.asarray(Image.open(run(source, out=tmp_path / "alone.png")["photo.png"].target))
    np.testing.assert_array_equal(both, np.hstack([np.asarray(Image.open(source)), alone]))


def test_a_folder_is_searched_and_its_tree_kept(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.PNG", "sub/deep/c.gif", "a-recolor.jpg", ".hidden/d.jpg", "sub/._e.jpg"):
        save(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("not a photo")
    jobs = plan([tmp_path / "in"], tmp_path / "out")
    found = {
        job.source.relative_to(tmp_path).as_posix(): job.target.relative_to(tmp_path).as_posix()
        for job in jobs
        if not job.skipped
    }
    assert [job.source.name for job in jobs if job.skipped] == ["notes.txt"]
    assert found == {
        "in/a.jpg": "out/a-recolor.jpg",
        "in/sub/b.PNG": "out/sub/b-recolor.PNG",
        "in/sub/deep/c.gif": "out/sub/deep/c-recolor.png",
    }
    assert [job.target for job in plan([tmp_path / "in/sub"])] == [
        tmp_path / "in/sub/b-recolor.PNG",
        tmp_path / "in/sub/deep/c-recolor.png",
    ]


def test_an_empty_folder_keeps_nobody_from_being_done(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / "empty", save(tmp_path / "photo.png"), out=tmp_path / "out.png")
    assert done["empty"].problem == "no photos in this folder"
    assert done["photo.png"].problem == ""
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_meanwhile_is_not_overwritten(
    colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # what FAT answers

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    first, second = save(tmp_path / "a.jpg"), save(tmp_path / "b.jpg")
    mine = [tmp_path / "a-recolor.jpg", tmp_path / "b-recolor.jpg.part"]
    jobs = plan([first, second])
    for path in mine:
        path.write_text("mine")
    done = list(colorize_files(colorizer, jobs))
    assert "exists already; --force" in done[0].problem
    assert done[1].problem == ""
    assert Image.open(done[1].target).size == battery.SIZE
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert set(tmp_path.iterdir()) == {first, second, *mine, done[1].target}
    assert done[1].target.stat().st_mode == second.stat().st_mode


def test_nothing_is_overwritten_unless_asked(run: Callable, tmp_path: Path) -> None:
    source, there = save(tmp_path / "photo.jpg"), tmp_path / "photo-recolor.jpg"
    there.write_text("mine")
    assert "exists already; --force" in run(source)["photo.jpg"].problem
    assert there.read_text() == "mine"
    assert run(source, force=True)["photo.jpg"].problem == ""
    assert Image.open(there).size == battery.SIZE


def test_a_named_photo_is_never_written_even_by_force(run: Callable, tmp_path: Path) -> None:
    first, second = save(tmp_path / "photo.png", 1), save(tmp_path / "photo-recolor.png", 2)
    (tmp_path / "link.png").symlink_to(second)
    before = first.read_bytes(), second.read_bytes()
    done = run(first, second, force=True)
    assert "these stay as they are" in done["photo.png"].problem
    assert done["photo-recolor.png"].problem == ""
    for out in (first, tmp_path / "link.png"):
        assert (
            "these stay as they are" in run(first if out == first else second, out=out, force=True).popitem()[1].problem
        )
    assert (first.read_bytes(), second.read_bytes()) == before


def test_two_photos_never_become_one_file(run: Callable, tmp_path: Path) -> None:
    one, other = save(tmp_path / "a/photo.png", 1), save(tmp_path / "b/photo.png", 2)
    jobs = plan([one, other, one], tmp_path / "out", force=True)
    assert [(job.source, bool(job.problem)) for job in jobs] == [(one, False), (other, True)]
    assert str(one) in jobs[1].problem


def test_odd_links_and_names_are_told(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    long = save(tmp_path / f"{'n' * 245}.png")
    done = run(tmp_path / "loop.jpg", long, tmp_path / "missing.jpg")
    assert "a link that leads in a circle" in done["loop.jpg"].problem
    assert "File name too long" in done[long.name].problem
    assert "no such file" in done["missing.jpg"].problem


@pytest.mark.parametrize(
    ("photos", "out", "message"),
    [
        (["a.png", "b.png"], "out.png", "one file cannot hold 2 photos"),
        (["a.png"], "out.gif", "cannot write .gif; takes .*.jpg"),
    ],
)
def test_plans_that_cannot_be_are_told(tmp_path: Path, photos: list[str], out: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan([tmp_path / name for name in photos], None if out is None else tmp_path / out)


def test_what_cannot_be_written_is_told_and_the_rest_is_done(run: Callable, tmp_path: Path) -> None:
    save(tmp_path / "in/a/photo.png", 1)
    save(tmp_path / "in/b/photo.png", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("a file where a folder is needed")
    jobs = list(run(tmp_path / "in/a", out=tmp_path / "out/a/c").values())
    assert "cannot be written" in jobs[0].problem
    assert run(tmp_path / "in/b", out=tmp_path / "out/b")["photo.png"].problem == ""


def test_a_full_disk_leaves_nothing_half_written(run: Callable, tmp_path: Path, small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    assert "No space left" in run(tmp_path / "photo.png", out=small_disk / "out")["photo.png"].problem
    assert list((small_disk / "out").iterdir()) == []


def test_ctrl_c_leaves_nothing_half_written(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(image: Image.Image, path: Path, *args: object, **options: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    source = save(tmp_path / "photo.png")
    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert list(tmp_path.iterdir()) == [source]


def test_photos_are_read_a_few_at_a_time(
    colorizer: Colorizer, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", number)
    pixels = battery.SIZE[0] * battery.SIZE[1]
    monkeypatch.setattr(files, "BATCH", 4)
    monkeypatch.setattr(files, "BATCH_PIXELS", 3 * pixels)
    together = []
    predict = colorizer.predict
    monkeypatch.setattr(
        colorizer, "predict", lambda photos, size: together.append(len(photos)) or predict(photos, size)
    )
    run(tmp_path)
    assert together == [3, 3, 3, 1]


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


def test_all_pages_are_files_of_their_own(colorizer: Colorizer, tmp_path: Path) -> None:
    pages = [battery.picture(number) for number in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    done = list(colorize_files(colorizer, plan([tmp_path / "pages.tif"], all_pages=True)))
    assert [job.target.name for job in done] == [f"pages-{number}-recolor.tif" for number in (1, 2, 3)]
    for job, page in zip(done, pages, strict=True):
        assert job.problem == ""
        assert np.abs(lightness(Image.open(job.target)) - lightness(page)).max() < 0.5


@pytest.mark.parametrize(("thumbnail", "expected"), [((24, 16), battery.SIZE), ((10, 16), (10, 16))])
def test_a_thumbnail_in_front_is_not_the_photo(
    run: Callable, tmp_path: Path, thumbnail: tuple[int, int], expected: tuple[int, int]
) -> None:
    small = battery.picture(0, thumbnail)
    small.save(tmp_path / "photo.tif", save_all=True, append_images=[battery.picture(0)])
    job = run(tmp_path / "photo.tif")["photo.tif"]
    assert job.note
    assert Image.open(job.target).size == expected


def test_photos_are_found_by_content_and_through_links(run: Callable, tmp_path: Path) -> None:
    save(tmp_path / "album/noext", format="JPEG")
    save(tmp_path / "elsewhere/linked.png")
    (tmp_path / "album/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "album/link/back").symlink_to(tmp_path / "album", target_is_directory=True)
    (tmp_path / "album/notes.txt").write_text("not a photo")
    done = run(tmp_path / "album", out=tmp_path / "out")
    assert {name for name, job in done.items() if not job.problem} == {"noext", "linked.png"}
    assert {name for name, job in done.items() if job.skipped} == {"notes.txt"}
    results = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert results == {"noext-recolor.jpg", "link/linked-recolor.png"}


def test_a_folder_that_refuses_is_found_before_a_photo_is_painted(
    colorizer: Colorizer, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "photo.png")
    (tmp_path / "file").write_text("a file where a folder is needed")
    monkeypatch.setattr(colorizer, "predict", None)
    assert str(tmp_path / "file") in run(source, out=tmp_path / "file/new")["photo.png"].problem


def test_states_of_a_photo_are_reported(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colorizing, "STRIP", 100)
    states: list[str] = []
    run(save(tmp_path / "photo.png"), notify=lambda job, state: states.append(state))
    assert (states[0], states[-2], states[-1]) == ("reading", "painting 100%", "writing")
    assert len(states) > 5


def alone(model: Path, code: str) -> list[str]:
    """The lines that a process of its own prints, with one thread: the stacks of more would count as memory too."""
    start = f"""
import resource
from pathlib import Path
from recolor.images.metadata import save_options
from recolor.inference import colorizer as colorizing
from recolor.inference import files, formats
from recolor.inference import colorizer as inference
from recolor.inference.files import colorize_files
from recolor.inference.plan import plan
colorizer = inference.Colorizer.load({str(model)!r}, "cpu")
def colour(*photos, out=None, **settings):
    jobs = list(colorize_files(colorizer, plan([Path(photo) for photo in photos], out), **settings))
    return [(job.source.name, job.problem) for job in jobs if job.problem]
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_too_little_memory_costs_the_photo_that_needs_more(tiny_model: Path, tmp_path: Path) -> None:
    """First there is too little for a batch, which is done photo by photo; then for one photo, painted in one piece."""
    for number in range(16):
        save(tmp_path / f"in/{number}.png", number)
    Image.linear_gradient("L").resize((2000, 2000)).save(tmp_path / "in/large.png")
    batch, large = alone(
        tiny_model,
        f"""
folder = Path({str(tmp_path)!r})
colour(folder / "in/0.png", out=folder / "first.png", size=1024)
inference.STRIP = 2**22
files.BATCH_PIXELS = 2**23
def leave(megabytes):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 10**6, resource.RLIM_INFINITY))
leave(150)  # 16 photos of 1024 x 1024 take 200 for what goes in and comes out alone
print(colour(*(folder / f"in/{{number}}.png" for number in range(16)), out=folder / "batch", size=1024))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
leave(60)  # 4 megapixels painted at once take 300
print(colour(folder / "in", out=folder / "out"))
""",
    )
    assert batch == "[]"
    assert large == "[('large.png', 'needs more memory than there is')]"
    assert len(list((tmp_path / "batch").iterdir())) == len(list((tmp_path / "out").iterdir())) == 16


def test_memory_does_not_grow_with_more_than_the_photo_itself(tiny_model: Path, tmp_path: Path) -> None:
    """Strips: a matrix of weights for all of the longer side would take 38 MB. 2 megapixels: two copies at 4 bytes a pixel,
    and tiles; in one piece, each of its Lab pictures would take 27 MB."""
    save(tmp_path / "small.png")
    sizes = {"wide.png": (300_000, 2), "tall.png": (2, 300_000), "photo.jpg": (1500, 1500)}
    for name, size in sizes.items():
        Image.linear_gradient("L").resize(size).save(tmp_path / name)
    lines = alone(
        tiny_model,
        f"""
inference.STRIP = 2**16
start = 0
for name in ["small.png", *{list(sizes)}]:
    assert not colour(Path({str(tmp_path)!r}) / name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    start = start or peak
    print(peak - start)
""",
    )
    small, wide, tall, photo = map(float, lines)  # MB more than for the small one
    assert (small, wide < 25, tall < 25, photo < 80) == (0, True, True, True), lines
