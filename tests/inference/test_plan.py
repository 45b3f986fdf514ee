"""Which photo becomes which file, and what never happens to a file."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import battery
import numpy as np
import pytest
from coloured import lightness, save
from PIL import Image

from recolor.core.errors import UserError
from recolor.inference.colorizer import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.plan import plan


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
    assert done["empty"].problem
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
    assert "--force" in done[0].problem
    assert done[1].problem == ""
    assert Image.open(done[1].target).size == battery.SIZE
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert set(tmp_path.iterdir()) == {first, second, *mine, done[1].target}
    assert done[1].target.stat().st_mode == second.stat().st_mode


def test_nothing_is_overwritten_unless_asked(run: Callable, tmp_path: Path) -> None:
    source, there = save(tmp_path / "photo.jpg"), tmp_path / "photo-recolor.jpg"
    there.write_text("mine")
    assert "--force" in run(source)["photo.jpg"].problem
    assert there.read_text() == "mine"
    assert run(source, force=True)["photo.jpg"].problem == ""
    assert Image.open(there).size == battery.SIZE


def test_a_named_photo_is_never_written_even_by_force(run: Callable, tmp_path: Path) -> None:
    first, second = save(tmp_path / "photo.png", 1), save(tmp_path / "photo-recolor.png", 2)
    (tmp_path / "link.png").symlink_to(second)
    before = first.read_bytes(), second.read_bytes()
    done = run(first, second, force=True)
    assert done["photo.png"].problem
    assert done["photo-recolor.png"].problem == ""
    for out in (first, tmp_path / "link.png"):
        assert run(first if out == first else second, out=out, force=True).popitem()[1].problem
    assert (first.read_bytes(), second.read_bytes()) == before


def test_two_photos_never_become_one_file(tmp_path: Path) -> None:
    one, other = save(tmp_path / "a/photo.png", 1), save(tmp_path / "b/photo.png", 2)
    jobs = plan([one, other, one], tmp_path / "out", force=True)
    assert [(job.source, bool(job.problem)) for job in jobs] == [(one, False), (other, True)]
    assert str(one) in jobs[1].problem


def test_odd_links_and_names_are_reported(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    long = save(tmp_path / f"{'n' * 245}.png")
    done = run(tmp_path / "loop.jpg", long, tmp_path / "missing.jpg")
    assert "a link in a loop" in done["loop.jpg"].problem
    assert "File name too long" in done[long.name].problem
    assert "no such file" in done["missing.jpg"].problem


@pytest.mark.parametrize(
    ("photos", "out", "message"),
    [
        (["a.png", "b.png"], "out.png", "2 photos"),
        (["a.png"], "out.gif", r"\.gif.*\.jpg"),
    ],
)
def test_plans_that_cannot_be_are_reported(tmp_path: Path, photos: list[str], out: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan([tmp_path / name for name in photos], None if out is None else tmp_path / out)


def test_what_cannot_be_written_is_reported_and_the_rest_is_done(run: Callable, tmp_path: Path) -> None:
    save(tmp_path / "in/a/photo.png", 1)
    save(tmp_path / "in/b/photo.png", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("a file where a folder is needed")
    jobs = list(run(tmp_path / "in/a", out=tmp_path / "out/a/c").values())
    assert str(tmp_path / "out/a") in jobs[0].problem
    assert run(tmp_path / "in/b", out=tmp_path / "out/b")["photo.png"].problem == ""


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
    battery.picture(0).save(tmp_path / "album/scan.jp2")
    done = run(tmp_path / "album", out=tmp_path / "out")
    assert {name for name, job in done.items() if not job.problem} == {"noext", "linked.png", "scan.jp2"}
    assert {name for name, job in done.items() if job.skipped} == {"notes.txt"}
    results = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert results == {"noext-recolor.jpg", "link/linked-recolor.png", "scan-recolor.png"}


def test_a_folder_that_refuses_is_found_before_a_photo_is_painted(
    colorizer: Colorizer, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "photo.png")
    (tmp_path / "file").write_text("a file where a folder is needed")
    monkeypatch.setattr(colorizer, "paint", None)
    assert str(tmp_path / "file") in run(source, out=tmp_path / "file/new")["photo.png"].problem
