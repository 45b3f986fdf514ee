"""Listings: every photo in a folder, however odd, and the folder left as it was."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import battery
import pandas as pd
import pytest
from surroundings import ordinary_user, photos_in

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull
from recolor.dataset.shards import read_table
from recolor.images.decoding import decode
from recolor.images.folders import walk
from recolor.images.opening import PhotoError, locate, open_file
from recolor.sources.fetch import FolderParams, SampleParams, fetch
from recolor.sources.listing import listing_of, write_listing

NOWHERE = Path("/nowhere")  # for sources that download nothing


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a folder that reading it must not change."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_mode, path.lstat().st_ino)
        for path in [folder, *folder.rglob("*")]
    }


def test_battery_is_listed_completely_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "battery"
    folder.mkdir()
    cases = battery.write(folder)
    (folder / "notes.txt").write_text("not a photo")
    before = state(folder)
    listing = fetch(FolderParams(source="folder", path=str(folder)), 42, NOWHERE)
    assert state(folder) == before
    assert list(listing["path"]) == sorted([*cases, "notes.txt"])
    write_listing(listing, tmp_path / "raw" / "listing.csv")
    listing = read_table(tmp_path / "raw" / "listing.csv")
    assert list(listing["path"]) == sorted([*cases, "notes.txt"])
    for row in listing[listing["path"] != "notes.txt"].itertuples():
        case, file = cases[str(row.path)], locate(folder, str(row.path))
        if row.sha256:
            assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256 == row.group
            assert file.stat().st_size == row.size
        else:
            assert case.reason
            assert (row.size, row.group) == (0, row.path)
            with pytest.raises(PhotoError, match=case.reason), open_file(file):
                pass
        if case.copy_of:
            assert row.sha256 == listing.set_index("path")["sha256"][case.copy_of]
    battery.unlock(folder)


def test_links_in_circles_end_and_a_photo_goes_by_its_own_name(tmp_path: Path) -> None:
    folder = photos_in(tmp_path, ["z/one.jpg", "y/deep/two.jpg"])
    (folder / "a-link").symlink_to("z")
    (folder / "z" / "up").symlink_to("..")
    (folder / "y" / "self").symlink_to(folder / "y")
    (folder / "knot").symlink_to("knot")
    elsewhere = photos_in(Path(tempfile.mkdtemp(dir=tmp_path.parent)), ["three.jpg"])
    (folder / "elsewhere").symlink_to(elsewhere)
    assert sorted(walk(folder)) == ["elsewhere/three.jpg", "knot", "y/deep/two.jpg", "z/one.jpg"]


def test_photos_by_name_in_any_case_what_else_there_is_and_nothing_hidden_or_coloured_by_recolor(
    tmp_path: Path,
) -> None:
    photos = ["a.JPG", "b.Jpeg", "c.PNG", "d.tiff", "e.WebP", "f.HEIC", "g.x.jpg"]
    others = ["h.txt", "i.jpg.xmp", "j.mp4", "jpg"]
    photos_in(tmp_path, [*photos, ".jpg", "._a.jpg", ".thumbnails/a.jpg", "a-recolor.jpg"])
    for name in others:
        (tmp_path / name).write_text("not a photo")
    assert sorted(walk(tmp_path)) == [*photos, *others]
    listing = fetch(FolderParams(source="folder", path=str(tmp_path), limit=3), 42, NOWHERE)
    assert [row.path for row in listing.itertuples() if not row.sha256] == others  # a limit is for photos
    assert listing["sha256"].astype(bool).sum() == 3


def test_a_folder_of_other_files_names_the_suffixes(tmp_path: Path) -> None:
    for name in ("notes", "film.mp4"):
        (tmp_path / name).write_text("not a photo")
    with pytest.raises(UserError, match=r"\.apng, .* 2 .*film\.mp4"):
        fetch(FolderParams(source="folder", path=str(tmp_path)), 42, NOWHERE)


def test_folders_and_photos_without_permission_are_reported() -> None:
    folder = photos_in(Path(tempfile.mkdtemp()), ["open/a.jpg", "closed/b.jpg", "names only/c.jpg", "d.jpg"])
    folder.chmod(0o755)
    for name, mode in (("closed", 0), ("names only", 0o744), ("d.jpg", 0)):
        (folder / name).chmod(mode)
    (folder / "into closed").symlink_to(folder / "closed" / "b.jpg")
    (folder / "open" / "into closed.jpg").symlink_to(folder / "closed" / "b.jpg")
    with ordinary_user():
        listing = fetch(FolderParams(source="folder", path=str(folder)), 42, NOWHERE)
        assert {row.path: bool(row.sha256) for row in listing.itertuples()} == {
            "closed": False,
            "d.jpg": False,
            "into closed": False,
            "names only/c.jpg": False,
            "open/into closed.jpg": False,
            "open/a.jpg": True,
        }
        for name in ("closed", "d.jpg", "names only/c.jpg"):
            with pytest.raises(PhotoError, match="no permission"):
                decode(folder / name)
    for name in ("closed", "names only"):
        (folder / name).chmod(0o755)
    shutil.rmtree(folder)


def test_a_photo_that_vanishes_meanwhile_stays_in_the_listing(tmp_path: Path) -> None:
    names = list(walk(photos_in(tmp_path, ["a.jpg", "b.jpg"])))
    (tmp_path / "b.jpg").unlink()
    assert [bool(sha256) for sha256 in listing_of(tmp_path, names)["sha256"]] == [True, False]


def test_a_listing_that_does_not_fit_is_an_error(small_disk: Path) -> None:
    listing = fetch(SampleParams(source="sample", crops=200), 42, NOWHERE)
    (small_disk / "other").write_bytes(bytes(900_000))
    with pytest.raises(DiskFull, match="the listing"):
        write_listing(listing, small_disk / "raw" / "listing.csv")
    assert list((small_disk / "raw").iterdir()) == []
    (small_disk / "other").unlink()
    write_listing(listing, small_disk / "raw" / "listing.csv")


def test_a_listing_is_read_as_it_was_written(tmp_path: Path) -> None:
    sample = fetch(SampleParams(source="sample", crops=5), 42, NOWHERE)
    write_listing(sample, tmp_path / "listing.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "listing.csv"), sample, check_dtype=False)
