"""Reading a cache: batches in any order, and the refusal of incomplete or changed caches."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clone import contents

from recolor.core.errors import UserError
from recolor.core.tables import write_table
from recolor.dataset import shards
from recolor.dataset.shards import CachedPhotos, CacheError, write_shards

TRAIN, TEST = 15, 6
SHAPE = (3, 32, 32)


def write_cache(folder: Path, seed: int = 0) -> Path:
    """A cache of random tensors."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    tensors = [rng.uniform(-1, 1, SHAPE).astype("<f2").tobytes() for _ in range(TRAIN + TEST)]
    write_shards(folder, iter(tensors), SHAPE)
    split = ["train"] * TRAIN + ["test"] * TEST
    paths = [f"{number}.jpg" for number in range(TRAIN + TEST)]
    hashes = [hashlib.sha256(tensor).hexdigest() for tensor in tensors]
    table = {"split": split, "row": range(TRAIN + TEST), "path": paths, "tensor_sha256": hashes}
    write_table(pd.DataFrame(table), folder / "manifest.csv")
    return folder


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachedPhotos:
    """Eleven shards."""
    monkeypatch.setattr(shards, "SHARD", 2)
    return CachedPhotos(write_cache(tmp_path / "many"), "train")


def test_a_batch_is_in_the_order_asked_for(many: CachedPhotos) -> None:
    order = [14, 0, 7, 7, 3, 9, 1, 14]
    batch = many[order]
    assert batch.dtype == torch.float32
    assert batch.shape == (8, 3, 32, 32)
    for place, row in enumerate(order):
        stored = np.load(many.directory / f"shard-{row // 2:03d}.npy")[row % 2]
        np.testing.assert_array_equal(batch[place], stored.astype(np.float32))
        assert hashlib.sha256(stored.tobytes()).hexdigest() == many.manifest["tensor_sha256"][row]
    assert many.read_fp16(order).dtype == torch.float16
    for same in (np.array(order), torch.tensor(order)):
        assert torch.equal(many[same], batch)


def test_edges(many: CachedPhotos) -> None:
    assert len(many) == 15
    assert many[[]].shape == (0, 3, 32, 32)
    with pytest.raises(IndexError):
        many[[15]]


def test_a_batch_is_a_copy(many: CachedPhotos) -> None:
    before = contents(many.directory)
    many.read_fp16([0])[:] = 0
    many[[0]][:] = 0
    assert contents(many.directory) == before


def test_more_shards_than_files_may_be_open_are_read(many: CachedPhotos) -> None:
    resource = pytest.importorskip("resource", reason="the limit is POSIX's")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    expected = many[range(15)]
    room = os.dup(0)  # the lowest number that is free
    os.close(room)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room + 3, before[1]))  # with the split's own folder
        assert torch.equal(CachedPhotos(many.directory, "train")[range(15)], expected)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_cache_that_takes_its_place_is_not_mixed_with_it(many: CachedPhotos) -> None:
    shutil.rmtree(many.directory)
    write_cache(many.directory, seed=1)
    with pytest.raises(CacheError, match=r"shard-000\.npy cannot be read"):
        many.read_fp16([0])


def test_a_shard_that_was_cut_meanwhile_is_an_error(many: CachedPhotos) -> None:
    os.truncate(many.directory / "shard-001.npy", 128 + 6144 + 100)
    assert len(many.read_fp16([2])) == 1
    with pytest.raises(CacheError, match=r"shard-001\.npy cannot be read"):
        many.read_fp16([3])


def change_a_value(folder: Path) -> None:
    with (folder / "shard-000.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01")


def swap_two_tensors(folder: Path) -> None:
    shard = np.load(folder / "shard-000.npy")
    np.save(folder / "shard-000.npy", shard[[1, 0, *range(2, len(shard))]])


def lose_a_row(folder: Path) -> None:
    table = shards.read_table(folder / "manifest.csv")
    write_table(table.drop(index=3), folder / "manifest.csv")


def lose_a_row_and_its_tensor(folder: Path) -> None:
    lose_a_row(folder)
    np.save(folder / "shard-000.npy", np.delete(np.load(folder / "shard-000.npy"), 3, axis=0))


def swap_two_rows(folder: Path) -> None:
    table = shards.read_table(folder / "manifest.csv")
    write_table(table.loc[[1, 0, *range(2, len(table))]], folder / "manifest.csv")


def take_another_manifest(folder: Path) -> None:
    table = shards.read_table(folder / "manifest.csv")
    rolled = table.assign(tensor_sha256=np.roll(table["tensor_sha256"], 1), path=np.roll(table["path"], 1))
    write_table(rolled, folder / "manifest.csv")


def lose_the_hashes(folder: Path) -> None:
    table = shards.read_table(folder / "manifest.csv")
    write_table(table.drop(columns="tensor_sha256"), folder / "manifest.csv")


def another_size(folder: Path) -> None:
    shard = np.load(folder / "shard-000.npy")
    np.save(folder / "shard-000.npy", shard[:-1])
    np.save(folder / "shard-001.npy", shard[-1:, :, ::2, ::2])


@pytest.mark.parametrize(
    "spoil",
    [
        change_a_value,
        swap_two_tensors,
        lose_a_row,
        lose_a_row_and_its_tensor,
        swap_two_rows,
        take_another_manifest,
        another_size,
        lambda folder: (folder / "shard-000.npy").unlink(),
        lambda folder: os.truncate(folder / "shard-000.npy", 5000),
        lambda folder: (folder / "shard-000.npy").write_text("This is a shopping list."),
        lambda folder: np.save(folder / "shard-000.npy", np.load(folder / "shard-000.npy").astype(np.float32)),
        lambda folder: shutil.copy(folder / "shard-000.npy", folder / "shard-001.npy"),
        lambda folder: (folder / "manifest.csv").unlink(),
        lambda folder: (folder / "manifest.csv").write_text(""),
        lambda folder: (folder / "manifest.csv").write_text("split,row\ntrain,first\n"),
        lose_the_hashes,
    ],
)
def test_a_cache_that_is_not_as_it_was_built_is_refused(spoil, tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache")
    CachedPhotos(cache, "train").verify()
    spoil(cache)
    with pytest.raises(UserError, match="cache") as refusal:
        for share in range(2):  # of two processes one finds it
            CachedPhotos(cache, "train").verify(share, 2)
    assert "\n" not in str(refusal.value)


def test_a_split_without_photos_is_refused(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache")
    table = shards.read_table(cache / "manifest.csv")
    write_table(table.assign(split="train"), cache / "manifest.csv")
    with pytest.raises(CacheError, match="test"):
        CachedPhotos(cache, "test")


def test_both_splits_read_the_same_shards(many: CachedPhotos) -> None:
    test = CachedPhotos(many.directory, "test")
    stored = np.concatenate([np.load(many.directory / f"shard-{number:03d}.npy") for number in range(11)])
    assert torch.equal(torch.cat([many.read_fp16(range(TRAIN)), test.read_fp16(range(TEST))]), torch.from_numpy(stored))
    assert list(test.manifest["path"]) == [f"{number}.jpg" for number in range(TRAIN, TRAIN + TEST)]
