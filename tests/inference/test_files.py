"""Files in, files out."""

import os
from collections.abc import Callable
from pathlib import Path

import battery
import numpy as np
import pytest
from coloured import lightness, save
from PIL import Image

from recolor.images.decoding import decode
from recolor.images.opening import listed_name
from recolor.inference import colorizer as colorizing
from recolor.inference import files
from recolor.inference.colorizer import Colorizer


def test_whatever_can_be_decoded_is_coloured_and_the_rest_is_reported(run: Callable, tmp_path: Path) -> None:
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


def test_what_was_guessed_or_is_missing_is_noted(run: Callable, tmp_path: Path) -> None:
    grey = np.asarray(battery.picture(1).convert("L"))
    jpeg = battery.encoded(battery.picture(1, (320, 240)))
    contents = {"12 bits.tif": battery.tiff(grey.astype(np.uint16) * 16), "end.jpg": jpeg[:-2], "cut.jpg": jpeg[:2000]}
    contents["cut.png"] = battery.encoded(battery.picture(1, (320, 240)), "PNG")[:-2000]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    done = run(tmp_path)
    assert {name for name, job in done.items() if not job.problem} == {"12 bits.tif", "end.jpg"}
    assert all(job.note for job in done.values() if not job.problem)
    result = decode(tmp_path / "12 bits-recolor.tif")
    assert lightness(result).mean() == pytest.approx(lightness(Image.fromarray(grey).convert("RGB")).mean(), abs=1)
    assert {name for name, job in done.items() if "--damaged" in job.problem} == {
        "cut.jpg"
    }  # the only one that it helps
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
    first, deep = "the first of 3 pages or frames", "the result has 8 bits a channel, the photo more"
    assert {name: (job.problem, job.note) for name, job in run(tmp_path).items()} == {
        "pages.tif": ("", first),
        "moving.gif": ("", first),
        "moving.webp": ("", first),
        "previews.mpo": ("", ""),
        "deep.png": ("", deep),
        "deep.tif": ("", deep),
        "plain.tif": ("", ""),
    }


def test_side_by_side_holds_the_photo_and_its_result(run: Callable, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    both = np.asarray(Image.open(run(source, side_by_side=True)["photo.png"].target))
    alone = np.asarray(Image.open(run(source, out=tmp_path / "alone.png")["photo.png"].target))
    np.testing.assert_array_equal(both, np.hstack([np.asarray(Image.open(source)), alone]))


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


def test_states_of_a_photo_are_reported(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colorizing, "STRIP", 100)
    states: list[str] = []
    run(save(tmp_path / "photo.png"), notify=lambda job, state: states.append(state))
    assert (states[0], states[-2], states[-1]) == ("reading", "painting 100%", "writing")
    assert len(states) > 5
