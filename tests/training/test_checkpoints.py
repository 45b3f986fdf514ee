"""Checkpoints: a loaded state equals the saved one, and the one before a damaged one is used."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from clone import contents
from safetensors.torch import save_file
from torch.utils._pytree import tree_flatten

from recolor.training.checkpoints import Checkpoints, run_key

STATE = {
    "place": {"epoch": 2, "history": [{"l1": 0.1}, {"l1": None}]},
    "weights": {"a": torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last), 3: [torch.arange(5), "x"]},
}

WEIGHTS = torch.ones(9)


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal: keys in the same order, tensors of the same type and memory format."""
    values, tree = tree_flatten(one)
    others, other_tree = tree_flatten(other)
    return tree == other_tree and all(
        torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride() if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(values, others, strict=True)
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load(warn=pytest.fail) is None
    checkpoints.save(7, STATE)
    assert same(STATE, checkpoints.load(warn=pytest.fail))


@pytest.mark.parametrize("decay_epochs", [0, 2])
def test_the_key_of_a_run_has_what_its_result_depends_on(decay_epochs: int) -> None:
    def key(lr: float = 0.1, **train: int) -> str:
        sections = {"gan": {"lr": lr, "betas": [0.5, 0.9]}, "train": train | {"decay_epochs": decay_epochs}}
        return run_key({"params.yaml": sections, "photos": "5" * 64})

    assert key(seed=1, epochs=4, sample_epochs=1) == key(sample_epochs=2, epochs=4, seed=1)  # DVC ignores the order too
    assert key(seed=1, epochs=4) != key(seed=2, epochs=4)
    assert key(0.1, epochs=4) != key(0.2, epochs=4)
    assert (key(epochs=4) == key(epochs=5)) == (decay_epochs == 0)


def test_the_newest_two_are_kept_and_one_after_the_end_until_its_model_is_recorded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.acquire() is None
    for step in [9, 10, 100]:
        checkpoints.save(step, {"step": step})
    assert sorted(path.stem for path in checkpoints.folder.glob("*.pt")) == ["000000010", "000000100"]
    checkpoints.finish()
    assert [path.stem for path in checkpoints.folder.glob("*.pt")] == ["000000100"]
    assert checkpoints.load(warn=pytest.fail) == {"step": 100}
    other = Checkpoints(checkpoints.folder)
    other.remove_finished()  # it is still held
    assert checkpoints.load(warn=pytest.fail) == {"step": 100}
    checkpoints.release()
    other.remove_finished()
    assert not checkpoints.folder.exists()


def test_a_run_that_is_under_way_again_is_not_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.acquire()
    checkpoints.save(1, {"step": 1})
    checkpoints.release()
    checkpoints.remove_finished()  # as if killed: it never ended
    assert checkpoints.load(warn=pytest.fail) == {"step": 1}
    checkpoints.acquire()
    checkpoints.finish()
    checkpoints.release()
    checkpoints.acquire()  # run again, and killed
    checkpoints.release()
    checkpoints.remove_finished()
    assert checkpoints.load(warn=pytest.fail) == {"step": 1}


def flip_a_bit(path: Path, within: bytes = b"step") -> None:
    content = path.read_bytes()
    position = content.index(within)
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        flip_a_bit,
        lambda path: flip_a_bit(path, WEIGHTS.numpy().tobytes()),
        lambda path: save_file({"weights": WEIGHTS}, path),
        lambda path: ZipFile(path, "w").writestr("step", "2"),
        lambda path: torch.save({"step": 2, "weights": Path()}, path),  # builds an object: it could be any
    ],
    ids=["cut", "empty", "bit", "weight", "safetensors", "zip", "object"],
)
def test_after_a_damaged_state_the_one_before_it_is_loaded(tmp_path: Path, harm: Any) -> None:
    checkpoints, lines = Checkpoints(tmp_path), []
    checkpoints.save(1, {"step": 1, "weights": WEIGHTS})
    checkpoints.save(2, {"step": 2, "weights": WEIGHTS})
    before = contents(tmp_path)
    harm(tmp_path / "000000002.pt")
    assert contents(tmp_path) != before
    state = checkpoints.load(warn=lines.append)
    assert state["step"] == 1
    (line,) = lines
    assert str(tmp_path / "000000002.pt") in line
    assert checkpoints.newest() == tmp_path / "000000001.pt"


def test_a_changed_byte_anywhere_changes_no_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE)
    path = checkpoints.newest()
    content = path.read_bytes()
    for position in range(0, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        state = checkpoints.load(warn=lambda line: None)
        assert state is None or same(STATE, state), position


def test_where_all_are_damaged_each_is_named_and_there_is_no_state(tmp_path: Path) -> None:
    checkpoints, lines = Checkpoints(tmp_path), []
    for step in [1, 2]:
        checkpoints.save(step, {"step": step})
        flip_a_bit(tmp_path / f"{step:09d}.pt")
    assert checkpoints.load(warn=lines.append) is None
    newest, oldest = lines
    assert "000000002.pt" in newest
    assert "000000001.pt" in oldest
    assert checkpoints.newest() is None


def test_a_damaged_state_is_not_kept_for_one_of_the_two(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in [7, 8, 9]:
        checkpoints.save(step, {"step": step})
    flip_a_bit(tmp_path / "000000009.pt")
    for step in [8, 10]:
        checkpoints.save(step, {"step": step})
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == ["000000008", "000000010"]


def test_a_half_written_state_does_not_count_and_goes_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"step": 1})
    whole = set(tmp_path.iterdir())
    (tmp_path / "000000002.pt.part").write_bytes(b"half")
    assert checkpoints.load(warn=pytest.fail) == {"step": 1}
    checkpoints.acquire()
    assert set(tmp_path.iterdir()) == whole | {tmp_path / "lock", tmp_path / "pid"}
    assert checkpoints.load(warn=pytest.fail) == {"step": 1}


def test_a_second_process_gets_the_firsts_pid(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from recolor.training.checkpoints import Checkpoints
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
print(checkpoints.acquire(), flush=True)
input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "None\n"
        assert Checkpoints(tmp_path).acquire() == str(holder.pid)
        (tmp_path / "pid").write_text("")  # as it is for a moment, and on a full disk
        assert Checkpoints(tmp_path).acquire() == "unknown"
    finally:
        holder.kill()
        holder.wait()
    assert Checkpoints(tmp_path).acquire() is None  # a killed process holds no lock
