"""The cache: its contents, the split, and the refusal of incomplete or changed caches."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from battery import encoded, picture
from clone import contents
from filelock import FileLock
from PIL import Image
from pydantic import ValidationError
from skimage import data
from skimage.color import rgb2lab
from surroundings import mounted

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull
from recolor.dataset import shards
from recolor.dataset.shards import CacheCounts, CachedPhotos
from recolor.images.color import lab_to_rgb
from recolor.images.folders import walk
from recolor.preprocessing.build import CacheParams, build
from recolor.sources.listing import listing_of
from stages import preprocess

PARAMS = CacheParams(seed=42, size=32, train_fraction=0.7, min_chroma=2.0)
PHOTOS = 20  # good ones, of different content


def list_photos(folder: Path) -> pd.DataFrame:
    return listing_of(folder, walk(folder))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        size = (40 + number, 30)
        (folder / f"{number:02d}.jpg").write_bytes(encoded(picture(number, size)))
    (folder / "01 again.jpg").write_bytes((folder / "01.jpg").read_bytes())
    (folder / "grey.png").write_bytes(encoded(picture(40).convert("L"), "PNG"))
    (folder / "text.jpg").write_text("This is a shopping list.")
    (folder / "NA").mkdir()
    (folder / "NA" / "null.jpg").write_bytes(encoded(picture(41)))
    (folder / "changed.jpg").write_bytes(encoded(picture(42)))
    (folder / "vanished.jpg").write_bytes(encoded(picture(43)))
    return folder


@pytest.fixture(scope="module")
def listing(photos: Path) -> pd.DataFrame:
    listing = list_photos(photos)
    content = (photos / "changed.jpg").read_bytes()
    (photos / "changed.jpg").write_bytes(bytes(len(content)))
    (photos / "vanished.jpg").unlink()
    return listing


@pytest.fixture(scope="module")
def built(photos: Path, listing: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CacheCounts]:
    out = tmp_path_factory.mktemp("cache") / "built"
    return out, build(listing, photos, out, PARAMS, processes=1)


@pytest.fixture
def copy(built: tuple[Path, CacheCounts], tmp_path: Path) -> Path:
    """A cache that a test may damage."""
    return shutil.copytree(built[0], tmp_path / "copy")


def test_every_photo_listed_is_used_or_rejected_with_its_reason(
    built: tuple[Path, CacheCounts], listing: pd.DataFrame
) -> None:
    out, counts = built
    manifest, rejected = (shards.read_table(out / name) for name in ("manifest.csv", "rejected.csv"))
    assert sorted([*manifest["path"], *rejected["path"]]) == sorted(listing["path"])
    assert dict(zip(rejected["path"], rejected["reason"], strict=True)) == {
        "01.jpg": "duplicate of 01 again.jpg",
        "changed.jpg": "changed since it was listed",
        "grey.png": "grey: its mean chroma is 0.00",
        "text.jpg": "not a photo, or in a format that is not supported",
        "vanished.jpg": "no such file",
    }
    assert counts.used == counts.train + counts.test == len(manifest) == PHOTOS + 1
    assert counts.train == round(0.7 * (PHOTOS + 1)) == (manifest["split"] == "train").sum()
    assert sum(counts.rejected.values()) == len(rejected)
    assert "26 listed, 21 used: 15 train, 6 test" in str(counts)


def test_a_tensor_is_the_photo_squeezed_and_in_lab(built: tuple[Path, CacheCounts], photos: Path) -> None:
    for split in ("train", "test"):
        cached = CachedPhotos(built[0], split)
        for row, entry in cached.manifest.iterrows():
            photo = Image.open(photos / entry["path"])
            assert (entry["width"], entry["height"]) == photo.size
            lab = rgb2lab(np.asarray(photo.resize((32, 32), Image.Resampling.BICUBIC)))
            expected = np.stack([lab[..., 0] / 50 - 1, lab[..., 1] / 110, lab[..., 2] / 110])
            np.testing.assert_allclose(cached[[row]][0], expected, atol=3e-4)
            assert entry["chroma"] == pytest.approx(np.hypot(lab[..., 1], lab[..., 2]).mean(), abs=6e-3)
            assert entry["sha256"] == hashlib.sha256((photos / entry["path"]).read_bytes()).hexdigest()


def test_real_photos_come_back_to_the_last_level(tmp_path: Path) -> None:
    truth = {}
    for name in ("astronaut", "chelsea"):
        truth[f"{name}.png"] = Image.fromarray(getattr(data, name)())
        truth[f"{name}.png"].save(tmp_path / f"{name}.png")
    params = CacheParams(seed=42, size=256, train_fraction=0.5, min_chroma=2)
    build(list_photos(tmp_path), tmp_path, tmp_path / "out", params, processes=1)
    for split in ("train", "test"):
        cached = CachedPhotos(tmp_path / "out", split)
        photo = truth[cached.manifest["path"][0]].resize((256, 256), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(lab_to_rgb(cached[[0]])[0].permute(1, 2, 0), photo)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_bit_identical_for_any_processes_and_order(
    processes: int, built: tuple[Path, CacheCounts], photos: Path, listing: pd.DataFrame, tmp_path: Path
) -> None:
    shuffled = listing.sample(frac=1, random_state=processes)
    counts = build(shuffled, photos, tmp_path / "out", PARAMS, processes)
    assert contents(tmp_path / "out") == contents(built[0])
    assert counts == built[1]


def test_the_split_depends_on_content_and_seed_not_on_names(
    built: tuple[Path, CacheCounts], photos: Path, listing: pd.DataFrame, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(reversed(listing["path"])):
        if (photos / path).exists():
            shutil.copy(photos / path, renamed / f"{number}.jpg")
    build(list_photos(renamed), renamed, tmp_path / "out", PARAMS, processes=1)
    build(listing, photos, tmp_path / "other seed", PARAMS.model_copy(update={"seed": 43}), processes=1)
    # `changed.jpg` is a photo of its own in the new listing; all the others stay in order.
    found = list(CachedPhotos(built[0], "train").manifest["sha256"])
    assert [sha for sha in CachedPhotos(tmp_path / "out", "train").manifest["sha256"] if sha in found] == found
    assert list(CachedPhotos(tmp_path / "other seed", "train").manifest["sha256"]) != found


def test_copies_of_a_photo_are_used_once(tmp_path: Path) -> None:
    for number in range(12):
        for name in ("a", "b", "c"):
            (tmp_path / f"{name}{number}.jpg").write_bytes(encoded(picture(number)))
    counts = build(list_photos(tmp_path), tmp_path, tmp_path / "out", PARAMS, processes=1)
    assert counts == CacheCounts(12, 12, 4, 8, 4, {"duplicate": 24})
    kept = shards.read_table(tmp_path / "out" / "manifest.csv")
    assert kept["sha256"].is_unique
    assert set(kept["path"]) == {f"a{number}.jpg" for number in range(12)}


def test_a_file_with_the_same_pixels_is_a_copy_too(tmp_path: Path) -> None:
    """Such as a photo whose EXIF data was edited: in two files it could be in both splits."""
    for number in range(12):
        for level in (1, 9):
            file = tmp_path / f"{number}-{level}.png"
            Image.fromarray(np.asarray(picture(number))).save(file, compress_level=level)
    counts = build(list_photos(tmp_path), tmp_path, tmp_path / "out", PARAMS, processes=1)
    assert counts == CacheCounts(12, 12, 4, 8, 4, {"duplicate": 12})
    rejected = shards.read_table(tmp_path / "out" / "rejected.csv")
    for path, reason in zip(rejected["path"], rejected["reason"], strict=True):
        assert reason.removeprefix("duplicate of ").partition("-")[0] == path.partition("-")[0]


def test_groups_are_never_split_and_the_fraction_is_of_groups(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number, (64, 64)), "PNG"))
    listing = list_photos(tmp_path)
    crops = [f"{left},0,{left + 20},{left + 30}" for left in range(7)]
    listing = pd.concat([listing.assign(crop=crop) for crop in crops])
    counts = build(listing, tmp_path, tmp_path / "out", PARAMS, processes=1)
    assert (counts.train, counts.test) == (49, 21)
    train, test = (CachedPhotos(tmp_path / "out", split) for split in ("train", "test"))
    assert not set(train.manifest["group"]) & set(test.manifest["group"])
    entry = train.manifest.iloc[3]
    left, top, right, bottom = map(int, entry["crop"].split(","))
    crop = np.asarray(Image.open(tmp_path / entry["path"]))[top:bottom, left:right]
    assert (entry["width"], entry["height"]) == (20, bottom - top)
    squeezed = Image.fromarray(crop).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(lab_to_rgb(train[[3]])[0].permute(1, 2, 0), squeezed)


@pytest.mark.parametrize(
    ("number", "fraction", "train"),
    [(2, 0.99, 1), (2, 0.01, 1), (3, 0.85, 2), (10, 0.01, 1), (10, 0.85, 8), (11, 0.5, 6)],
)
def test_the_fraction_is_exact_and_leaves_no_side_empty(
    number: int, fraction: float, train: int, photos: Path, listing: pd.DataFrame, tmp_path: Path
) -> None:
    params = CacheParams(seed=42, size=16, train_fraction=fraction, min_chroma=0)
    some = listing[listing["path"].str.match(r"\d\d.jpg")][:number]
    counts = build(some, photos, tmp_path / "out", params, processes=1)
    assert (counts.train, counts.test) == (train, number - train)


@pytest.mark.parametrize("shard", [1, 4, 7])
def test_the_split_does_not_depend_on_the_shards(
    shard: int,
    built: tuple[Path, CacheCounts],
    photos: Path,
    listing: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "SHARD", shard)
    build(listing, photos, tmp_path / "out", PARAMS, processes=1)
    for split in ("train", "test"):
        cached, expected = (CachedPhotos(folder, split) for folder in (tmp_path / "out", built[0]))
        cached.verify()
        pd.testing.assert_frame_equal(cached.manifest, expected.manifest)
        assert torch.equal(cached[range(len(cached))], expected[range(len(expected))])
    sizes = [np.load(file).shape for file in sorted((tmp_path / "out").glob("*.npy"))]
    assert [size[0] for size in sizes[:-1]] == [shard] * ((PHOTOS + 1 - 1) // shard)
    assert sum(size[0] for size in sizes) == PHOTOS + 1


class TestFailures:
    def test_too_few_photos_are_an_error_and_the_old_cache_stays(
        self, photos: Path, listing: pd.DataFrame, copy: Path
    ) -> None:
        before = contents(copy)
        bad = listing[listing["path"].isin(["00.jpg", "grey.png", "text.jpg", "vanished.jpg"])]
        with pytest.raises(
            UserError, match=r"^data.mine: 1 .*4 listed .*1 grey.*grey\.png.*data\.min_chroma"
        ) as refusal:
            build(bad, photos, copy, PARAMS, processes=1, dataset="mine")
        assert "\n" not in str(refusal.value)
        with pytest.raises(UserError, match="0 listed"):
            build(listing[:0], photos, copy, PARAMS, processes=1)
        assert contents(copy) == before
        assert {file.name for file in copy.parent.iterdir()} <= {"copy", ".copy.lock"}

    def test_two_at_once_do_not_mix(self, photos: Path, listing: pd.DataFrame, copy: Path) -> None:
        with FileLock(copy.with_name(".copy.lock")), pytest.raises(UserError, match=str(copy)):
            build(listing, photos, copy, PARAMS, processes=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk too small for a cache of a few photos."""
    with mounted(tmp_path / "disk", "size=256k") as disk:
        yield disk


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_leaves_no_cache(
    foreseen: bool,
    small_disk: Path,
    photos: Path,
    listing: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = PARAMS.model_copy(update={"size": 64})
    if not foreseen:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Mock(free=10**9))  # another program uses it meanwhile
    with pytest.raises(DiskFull, match="the cache"):
        build(listing, photos, small_disk / "out", params, processes=1)
    assert {file.name for file in small_disk.iterdir()} <= {".out.lock"}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"size": size} for size in (100, 0, 8)),
        *({"train_fraction": fraction} for fraction in (0, 1, 1.5)),
        *({"min_chroma": chroma} for chroma in (-1, float("nan"))),
        {"sizes": 256},
    ],
)
def test_absurd_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CacheParams(**{**PARAMS.model_dump(), **wrong})


def test_the_stage_prints_the_counts_and_names_a_missing_file(
    listing: pd.DataFrame, photos: Path, params_file: Path, set_param, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    del listing  # made, and with it one photo cut short and one taken away
    monkeypatch.chdir(params_file.parent)
    set_param("data.mine.path", str(photos))
    set_param("data.size", 32)
    with pytest.raises(UserError, match=r"^data/raw/mine/listing\.csv is missing"):
        preprocess.main("mine")
    Path("data/raw/mine").mkdir(parents=True)
    list_photos(photos).to_csv("data/raw/mine/listing.csv", index=False)
    preprocess.main("mine")
    assert capsys.readouterr().out.startswith("mine: 25 listed, 21 used: 18 train, 3 test; left out 4: ")
    CachedPhotos(Path("data/cache/mine"), "test").verify()
