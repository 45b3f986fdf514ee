"""Listings of all kinds of sources: complete, reproducible, and errors for what is missing."""

import hashlib
import os
import re
import tarfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter
from surroundings import photos_in

from recolor.core.downloads import Patience
from recolor.dataset.shards import read_table
from recolor.images.decoding import decode
from recolor.preprocessing.conversion import Converted, ListedPhoto, convert
from recolor.sources.fetch import (
    SAMPLE,
    FolderParams,
    ImageNetParams,
    SampleParams,
    SourceError,
    SourceParams,
    check_photos_exist,
    fetch,
    root,
)
from recolor.sources.listing import COLUMNS
from stages import download

NOWHERE = Path("/nowhere")  # for sources that download nothing
IMPATIENT = Patience(timeout=20, attempts=2, wait=0.01)


# Sample


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return fetch(SampleParams(source="sample", crops=12), 42, NOWHERE)


def test_sample_is_crops_of_colour_photos_that_are_installed(sample: pd.DataFrame) -> None:
    assert list(sample.columns) == COLUMNS
    assert Counter(sample["path"]) == dict.fromkeys(SAMPLE, 12)
    assert (sample["group"] == sample["sha256"]).all()
    folder, scales = root(SampleParams(source="sample"), NOWHERE), set()
    for name, rows in sample.groupby("path"):
        content = (folder / str(name)).read_bytes()
        assert set(rows["sha256"]) == {hashlib.sha256(content).hexdigest()}
        assert set(rows["size"]) == {len(content)}
        width, height = decode(content).size
        crops = [tuple(int(edge) for edge in crop.split(",")) for crop in rows["crop"]]
        assert len(set(crops)) == 12
        for left, top, right, bottom in crops:
            assert 256 <= right - left == bottom - top
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            scales.add(right - left)
    assert max(scales) > 800
    assert len(scales) > 50


def test_sample_depends_on_the_seed_alone(sample: pd.DataFrame) -> None:
    params = SampleParams(source="sample", crops=12)
    pd.testing.assert_frame_equal(sample, fetch(params, 42, NOWHERE))
    other = fetch(params, 43, NOWHERE)
    assert (other["path"] == sample["path"]).all()
    assert (other["crop"] != sample["crop"]).mean() > 0.9
    fewer = fetch(SampleParams(source="sample", crops=5), 42, NOWHERE)
    assert set(fewer["crop"]) < set(sample["crop"])


def test_sample_without_its_photos_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recolor.sources.fetch.SAMPLE", ["astronaut.png", "not-installed.png"])
    with pytest.raises(SourceError, match="pip install --force-reinstall"):
        fetch(SampleParams(source="sample"), 42, NOWHERE)


# ImageNet

CLASSES = {"n01": 30, "n02": 8, "n03": 2, "deep/er/n04": 20}
IMAGENET = [f"{name}/{name[-3:]}_{number}.JPEG" for name, count in CLASSES.items() for number in range(count)]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same photos in a folder, in tars of it, and in a tar of class tars, as ILSVRC2012_img_train.tar is."""
    base = tmp_path_factory.mktemp("imagenet")
    folder = photos_in(base / "photos", IMAGENET)
    (folder / "n01" / "synset.txt").write_text("not a photo")
    with tarfile.open(base / "flat.tar", "w") as tar:
        tar.add(folder, ".")
    with tarfile.open(base / "packed.tar.gz", "w:gz") as tar:
        tar.add(folder, "")
    with tarfile.open(base / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in CLASSES:
            with tarfile.open(base / "class.tar", "w") as inner:
                inner.add(folder / name, "")
            outer.add(base / "class.tar", f"{name}.tar")
    names = {"folder": "photos", "flat": "flat.tar", "packed": "packed.tar.gz", "ilsvrc": "ILSVRC2012_img_train.tar"}
    return {kind: base / name for kind, name in names.items()}


@pytest.mark.parametrize("kind", ["folder", "flat", "packed", "ilsvrc"])
@pytest.mark.parametrize("limit", [None, 3, 24, 1000])
def test_imagenet_is_the_same_from_a_folder_and_from_any_tar(
    imagenet: dict[str, Path], kind: str, limit: int | None, tmp_path: Path
) -> None:
    params = ImageNetParams(source="imagenet", path=str(imagenet[kind]), limit=limit)
    listing = fetch(params, 42, tmp_path)
    expected = fetch(ImageNetParams(source="imagenet", path=str(imagenet["folder"]), limit=limit), 42, NOWHERE)
    assert list(expected.loc[expected["sha256"] == "", "path"]) == ["n01/synset.txt"]  # listed, to be rejected by name
    expected = expected[expected["sha256"] != ""].reset_index(drop=True)
    if kind == "folder":
        listing = listing[listing["sha256"] != ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(listing, expected)
    for row in listing.itertuples():
        file = root(params, tmp_path) / str(row.path)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256
    if kind != "folder":
        assert {str(path.relative_to(root(params, tmp_path))) for path in tmp_path.rglob("*.JPEG")} == set(
            listing["path"]
        )


def test_imagenet_limit_is_balanced_over_the_classes(imagenet: dict[str, Path]) -> None:
    def drawn(limit: int, seed: int = 42) -> pd.DataFrame:
        listing = fetch(ImageNetParams(source="imagenet", path=str(imagenet["folder"]), limit=limit), seed, NOWHERE)
        return listing[listing["sha256"] != ""]

    def counts(limit: int) -> dict[str, int]:
        return dict(Counter(path.rpartition("/")[0] for path in drawn(limit)["path"]))

    assert counts(8) == {"n01": 2, "n02": 2, "n03": 2, "deep/er/n04": 2}
    assert counts(23) == {"n01": 7, "n02": 7, "n03": 2, "deep/er/n04": 7}
    assert sorted(counts(24).values()) == [2, 7, 7, 8]
    assert counts(40) == {"n01": 15, "n02": 8, "n03": 2, "deep/er/n04": 15}
    assert set(drawn(8)["path"]) < set(drawn(9)["path"])
    assert set(drawn(8)["path"]) != set(drawn(8, seed=43)["path"])


def test_another_tar_under_the_same_name_is_unpacked_again(tmp_path: Path) -> None:
    params = ImageNetParams(source="imagenet", path=str(tmp_path / "mine.tar"))

    def listing_with(content: bytes, time: int) -> str:
        (tmp_path / "a.jpg").write_bytes(content)
        os.utime(tmp_path / "a.jpg", (time, time))
        with tarfile.open(tmp_path / "mine.tar", "w") as tar:
            tar.add(tmp_path / "a.jpg", "n01/a.jpg")
        return str(fetch(params, 42, tmp_path / "downloads")["sha256"][0])

    assert listing_with(b"12345", 1000) == hashlib.sha256(b"12345").hexdigest()
    assert listing_with(b"54321", 2000) == hashlib.sha256(b"54321").hexdigest()


# Folder


def test_a_limit_draws_with_the_seed_and_changes_little_with_the_folder(tmp_path: Path) -> None:
    def drawn(seed: int) -> set[str]:
        return set(fetch(FolderParams(source="folder", path=str(tmp_path), limit=10), seed, NOWHERE)["path"])

    photos_in(tmp_path, [f"{number}.jpg" for number in range(40)])
    before = drawn(1)
    assert len(before) == 10
    assert drawn(1) == before != drawn(2)
    photos_in(tmp_path, ["one-more.jpg"])
    assert len(drawn(1) & before) >= 9


# Errors of the user


@pytest.mark.parametrize("kind", [FolderParams, ImageNetParams])
def test_a_missing_path_names_the_setting_and_the_command(kind: type, tmp_path: Path) -> None:
    params = kind(source=kind.model_fields["source"].annotation.__args__[0], path=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=rf"^data\.mine\.path: .*{tmp_path}/nowhere.* -S data\.mine\.path="):
        fetch(params, 42, NOWHERE, dataset="mine")


@pytest.mark.parametrize("name", ["a.jpg", "fifo", "a.jpg/b", "n" * 300, "null\0byte"])
def test_a_path_that_is_no_folder_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    photos_in(tmp_path, ["a.jpg"])
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError) as caught:
        fetch(FolderParams(source="folder", path=str(tmp_path / name)), 42, NOWHERE, dataset="mine")
    path = repr(str(tmp_path / name))
    assert str(caught.value).startswith(f"data.mine.path: {path:.200} ")


def test_what_is_at_hand_is_known_by_its_names(imagenet: dict[str, Path], tmp_path: Path) -> None:
    for path in imagenet.values():
        check_photos_exist(ImageNetParams(source="imagenet", path=str(path)), "mine")
    check_photos_exist(FolderParams(source="folder", path=str(imagenet["folder"])), "mine")

    (tmp_path / "notes.txt").touch()
    for found in ("no photo", "only 'a.jpg'"):
        for params in (
            FolderParams(source="folder", path=str(tmp_path)),
            ImageNetParams(source="imagenet", path=str(tmp_path)),
            ImageNetParams(source="imagenet", path=str(tmp_path / ".it.tar")),
        ):
            with tarfile.open(tmp_path / ".it.tar", "w") as tar:
                for file in sorted(tmp_path.glob("[a-z]*")):
                    tar.add(file, file.name)
            with pytest.raises(SourceError) as caught:
                check_photos_exist(params, "mine")
            assert str(caught.value).startswith(f"data.mine.path: found {found} in {params.path}")
        photos_in(tmp_path, ["a.jpg"])
    (tmp_path / "mine.tar").write_text("no tar")
    with pytest.raises(SourceError, match=rf"^data\.mine\.path: {tmp_path}/mine\.tar"):
        check_photos_exist(ImageNetParams(source="imagenet", path=str(tmp_path / "mine.tar")), "mine")


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_a_folder_without_photos_is_an_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    params = TypeAdapter(SourceParams).validate_python({"source": kind, "path": str(tmp_path)})
    with pytest.raises(SourceError, match=rf"^data\.mine: .*{tmp_path}: .*\.apng, .*\.jpg"):
        fetch(params, 42, NOWHERE, dataset="mine")


def test_stage_lists_what_params_say(params_file: Path, set_param, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(params_file.parent)
    folder = photos_in(Path("photos"), ["a.jpg", "b/c.jpg"])
    (folder / "d.jpg").touch()
    download.main("mine")
    size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert re.match(f"mine: 3 .*{size / 1e6:,.1f} MB.* 1 ", capsys.readouterr().out)
    assert list(read_table(Path("data/raw/mine/listing.csv"))["path"]) == ["a.jpg", "b/c.jpg", "d.jpg"]
    set_param("data.mine.path", "elsewhere")
    with pytest.raises(SourceError, match=r"^data\.mine\.path: .*elsewhere"):
        download.main("mine")


def test_photos_of_a_folder_are_recognised_by_their_content(tmp_path: Path) -> None:
    photos_in(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "b.jpg").rename(tmp_path / "noext")
    (tmp_path / "notes").write_text("not a photo")
    params = FolderParams(source="folder", path=str(tmp_path))
    check_photos_exist(params, "mine")  # two photos
    listing = fetch(params, 42, NOWHERE).set_index("path")
    assert set(listing.index) == {"a.jpg", "noext", "notes"}
    assert listing["sha256"]["noext"] == hashlib.sha256((tmp_path / "noext").read_bytes()).hexdigest()
    assert listing["sha256"]["notes"] == ""
    assert isinstance(convert(_listed(listing, "noext"), tmp_path, 16, 0), Converted)
    assert "not a photo" in convert(_listed(listing, "notes"), tmp_path, 16, 0)


def _listed(listing: pd.DataFrame, path: str) -> ListedPhoto:
    row = listing.loc[path]
    return ListedPhoto(path, int(row["size"]), row["sha256"], row["crop"])
