"""Files in, files out: what a result keeps of its photo, and what never happens to a file."""

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

from recolor import files
from recolor.color import rgb_to_lab
from recolor.errors import UserError
from recolor.files import Job, colorize_files, plan
from recolor.inference import Colorizer
from recolor.photos import decode, listed_name

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
    found = {job.source.relative_to(tmp_path).as_posix(): job.target.relative_to(tmp_path).as_posix() for job in jobs}
    assert found == {
        "in/a.jpg": "out/a-recolor.jpg",
        "in/sub/b.PNG": "out/sub/b-recolor.PNG",
        "in/sub/deep/c.gif": "out/sub/deep/c-recolor.png",
    }
    assert [job.target for job in plan([tmp_path / "in/sub"])] == [
        tmp_path / "in/sub/b-recolor.PNG",
        tmp_path / "in/sub/deep/c-recolor.png",
    ]


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
    assert "is to hold" in jobs[1].problem


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
        (["empty"], None, "empty: no photos in this folder"),
        (["a.png", "b.png"], "out.png", "one file cannot hold 2 photos"),
        (["a.png"], "out.gif", "cannot write .gif; takes .*.jpg"),
    ],
)
def test_plans_that_cannot_be_are_told(tmp_path: Path, photos: list[str], out: str | None, message: str) -> None:
    (tmp_path / "empty").mkdir()
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


def test_memory_does_not_grow_with_more_than_the_photo_itself(tiny_model: Path, tmp_path: Path) -> None:
    """2 megapixels: two copies at 4 bytes a pixel, and bands. In one piece, each of its Lab pictures would take 27 MB."""
    Image.linear_gradient("L").resize((1500, 1500)).save(tmp_path / "photo.jpg")
    small = save(tmp_path / "small.jpg")
    code = f"""
import resource
from pathlib import Path
from recolor import inference
from recolor.files import colorize_files, plan
def peak(photo):
    assert not list(colorize_files(colorizer, plan([Path(photo)])))[0].problem
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
inference.BAND = 2**16
colorizer = inference.Colorizer.load({str(tiny_model)!r}, "cpu")
print(-peak({str(small)!r}) + peak({str(tmp_path / "photo.jpg")!r}))
"""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # its threads' stacks would count too
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=alone).stdout
    assert float(grown) < 80  # MB
