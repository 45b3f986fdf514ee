"""Models and checkpoints on disk: what comes back is what went in, and nothing damaged or foreign is taken for whole."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from clone import contents
from safetensors.torch import load_file, save_file

from recolor.models.checkpoint import CARD, WEIGHTS, Checkpoints, ModelError, load_generator, read_card, save_generator
from recolor.models.networks import GeneratorParams, UNetGenerator

STORED = Path(__file__).parent / "stored" / "model-format-1"


@pytest.fixture
def generator() -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(GeneratorParams(filters=2, downs=3, dropout=0.5)).eval()


@pytest.fixture
def model(generator: UNetGenerator, tmp_path: Path) -> Path:
    save_generator(tmp_path / "model", generator, {"dataset": "sample", "epochs": 3})
    return tmp_path / "model"


def line_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_generator(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_comes_back_as_it_was(generator: UNetGenerator, model: Path) -> None:
    loaded = load_generator(model)
    assert not loaded.training
    photo = torch.randn(2, 1, 16, 16)
    assert torch.equal(loaded(photo), generator(photo))
    card = read_card(model)
    assert (card["format"], card["dataset"], card["epochs"]) == (1, "sample", 3)


def test_a_model_is_the_same_bytes_whatever_the_memory_layout(generator: UNetGenerator, tmp_path: Path) -> None:
    save_generator(tmp_path / "a", generator, {})
    save_generator(tmp_path / "b", generator.to(memory_format=torch.channels_last), {})
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_a_model_of_format_1_keeps_loading() -> None:
    # Written once by this project and kept: what it says of a ramp must never change.
    generator = load_generator(STORED)
    expected = load_file(STORED / "expected.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(generator(expected["lightness"]), expected["ab"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", [WEIGHTS, CARD])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "garbage"])
def test_a_damaged_model_is_one_line(model: Path, file: str, harm: str) -> None:
    path = model / file
    content = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbage": b"\x80\x04garbage" * 99}[harm])
    assert file in line_of(model)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 2}, "not a model of format 1"),
        ({"normalisation": {"lightness": "L / 100", "ab": "ab / 128"}}, "another normalisation"),
        ({"architecture": {"name": "ResNet"}}, "not a UNetGenerator"),
        ({"architecture": {"name": "UNetGenerator", "filters": 2}}, "not a UNetGenerator's"),
        (
            {"architecture": {"name": "UNetGenerator", "filters": 3, "downs": 3, "dropout": 0}},
            "not this model's weights",
        ),
        ({"architecture": "UNet"}, "not a UNetGenerator's"),
        ({"architecture": None}, "not a UNetGenerator's"),
        ({"size": "big"}, "size: Input should be a valid integer; got big"),
        ({"size": None}, "size: Input should be a valid integer; got None"),
        ({"size": 0}, "size: Input should be greater than or equal to 1; got 0"),
        ({"data": "a hash"}, "data: Input should be"),
    ],
)
def test_a_foreign_model_is_one_line(model: Path, change: dict[str, Any], line: str) -> None:
    path = model / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert line in line_of(model)


def test_weights_of_another_network_are_refused(model: Path) -> None:
    save_file({"weight": torch.zeros(3)}, model / WEIGHTS)
    assert "not this model's weights" in line_of(model)


def test_a_card_nested_without_end_is_one_line(model: Path) -> None:
    (model / CARD).write_text("[" * 100_000)
    assert "cannot be read" in line_of(model)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda weight: weight.half(), "torch.float16; this version of recolor reads torch.float32"),
        (lambda weight: weight.double(), "torch.float64; this version of recolor reads torch.float32"),
        (lambda weight: weight.masked_fill(weight == weight.max(), torch.nan), "not finite"),
        (lambda weight: weight.masked_fill(weight == weight.max(), torch.inf), "not finite"),
    ],
)
def test_weights_of_another_type_or_without_value_are_refused(model: Path, change: Any, line: str) -> None:
    weights = load_file(model / WEIGHTS)
    name = "out.1.weight"
    save_file({**weights, name: change(weights[name])}, model / WEIGHTS)
    message = line_of(model)
    assert name in message
    assert line in message


def test_a_pickle_is_never_opened(model: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save(Trap(), model / WEIGHTS)
    assert WEIGHTS in line_of(model)
    assert not (tmp_path / "sprung").exists()


STATE = {
    "place": {"epoch": 2, "history": [{"l1": 0.1}, {"l1": None}]},
    "weights": {"a": torch.arange(5.0), 3: [torch.ones(2), "x"]},
}


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def never(line: str) -> None:
    raise AssertionError(line)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load(warn=never) is None
    checkpoints.save(7, STATE)
    assert_same(STATE, checkpoints.load(warn=never))


def test_the_newest_two_are_kept_and_one_after_the_end_until_its_model_is_recorded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.take() is None
    for step in [9, 10, 100]:
        checkpoints.save(step, {"step": step})
    assert sorted(path.stem for path in checkpoints.folder.glob("*.json")) == ["000000010", "000000100"]
    checkpoints.finish("this model")
    assert [path.stem for path in checkpoints.folder.glob("*.safetensors")] == ["000000100"]
    assert checkpoints.load(warn=never) == {"step": 100}
    other = Checkpoints(checkpoints.folder)
    other.remove_finished("this model")  # it is still held
    checkpoints.release()
    other.remove_finished("another model")
    assert checkpoints.load(warn=never) == {"step": 100}
    other.remove_finished("this model")
    assert not checkpoints.folder.exists()


def test_a_run_that_is_under_way_again_is_not_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.take()
    checkpoints.save(1, {"step": 1})
    checkpoints.release()
    checkpoints.remove_finished()  # as if killed: it never ended
    assert checkpoints.load(warn=never) == {"step": 1}
    checkpoints.take()
    checkpoints.finish("a model")
    checkpoints.release()
    checkpoints.take()  # run again, and killed
    checkpoints.release()
    checkpoints.remove_finished()
    assert checkpoints.load(warn=never) == {"step": 1}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        flip_a_bit,
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("{}"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_text("null"),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
        lambda path: path.with_suffix(".json").write_text(
            path.with_suffix(".json").read_text().replace("[2, ", "[2502, ")
        ),
    ],
    ids=["cut", "empty", "missing", "a bit", "{", "{}", "[]", "null", "deep", "a digit"],
)
def test_a_damaged_state_gives_way_to_the_one_before_it(tmp_path: Path, harm: Any) -> None:
    checkpoints, lines = Checkpoints(tmp_path), []
    checkpoints.save(1, {"step": 1, "weights": torch.ones(9)})
    checkpoints.save(2, {"step": 2, "weights": torch.ones(9)})
    before = contents(tmp_path)
    harm(tmp_path / "000000002.safetensors")
    assert contents(tmp_path) != before
    state = checkpoints.load(warn=lines.append)
    assert state is not None
    assert state["step"] == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"checkpoint {tmp_path / '000000002.safetensors'} is damaged (")
    assert lines[0].endswith("); trying the one before it")
    assert checkpoints.newest() == tmp_path / "000000001.safetensors"


def test_where_all_are_damaged_the_last_line_says_that_training_starts_afresh(tmp_path: Path) -> None:
    checkpoints, lines = Checkpoints(tmp_path), []
    for step in [1, 2]:
        checkpoints.save(step, {"step": step})
        flip_a_bit(tmp_path / f"{step:09d}.safetensors")
    assert checkpoints.load(warn=lines.append) is None
    assert [line.rpartition("; ")[2] for line in lines] == [
        "trying the one before it",
        "there is none before it, and training starts afresh",
    ]
    assert checkpoints.newest() is None


def test_a_damaged_state_is_not_kept_for_one_of_the_two(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in [7, 8, 9]:
        checkpoints.save(step, {"step": step})
    flip_a_bit(tmp_path / "000000009.safetensors")
    for step in [8, 10]:
        checkpoints.save(step, {"step": step})
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["000000008", "000000010"]


def test_a_half_written_state_does_not_count_and_goes_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"step": 1})
    whole = set(tmp_path.iterdir())
    (tmp_path / "000000002.safetensors.part").write_bytes(b"half")
    (tmp_path / ".tmp2HaeyE").write_bytes(b"half, under safetensors' own temporary name")
    (tmp_path / "000000003.safetensors").write_bytes(b"whole, but its state is not there yet")
    assert checkpoints.load(warn=never) == {"step": 1}
    checkpoints.take()
    assert set(tmp_path.iterdir()) == whole | {tmp_path / "lock", tmp_path / "pid"}
    assert checkpoints.load(warn=never) == {"step": 1}


def test_a_second_process_is_told_the_firsts_pid(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from recolor.models.checkpoint import Checkpoints
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
print(checkpoints.take(), flush=True)
input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "None\n"
        assert Checkpoints(tmp_path).take() == str(holder.pid)
        (tmp_path / "pid").write_text("")  # as it is for a moment, and on a full disk
        assert Checkpoints(tmp_path).take() == "unknown"
    finally:
        holder.kill()
        holder.wait()
    assert Checkpoints(tmp_path).take() is None  # a killed holder holds nothing
