"""Model folders: a generator comes back as it was saved, and a damaged or foreign folder is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recolor.images.color import lab_to_rgb
from recolor.models.folder import CARD, SMALL_TENSOR, WEIGHTS, ModelError, load_generator, read_card, save_generator
from recolor.models.unet import UNetGenerator, UNetParams

STORED = Path(__file__).parent / "stored" / "model-format-1"


@pytest.fixture
def generator() -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(UNetParams(kind="unet", filters=2, downs=3, dropout=0.5)).eval()


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
    # Written once by this project and kept: its colours for a ramp must never change.
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


@pytest.mark.parametrize("file", [WEIGHTS, CARD])
def test_what_the_system_refuses_is_not_called_damaged(model: Path, file: str) -> None:
    (model / file).unlink()
    (model / file).mkdir()
    assert f"{file}: cannot be read" in line_of(model)


ARCHITECTURE = {"name": "UNetGenerator", "kind": "unet", "filters": 2, "downs": 3, "dropout": 0.5}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 2}, "format 1"),
        ({"normalisation": {"lightness": "L / 100", "ab": "ab / 128"}}, "another normalisation"),
        ({"architecture": {**ARCHITECTURE, "kind": "resnet"}}, "architecture: "),
        ({"architecture": {"name": "UNetGenerator", "filters": 2}}, "architecture.unet.downs: "),
        ({"architecture": {**ARCHITECTURE, "filters": 3}}, "not this model's weights"),
        ({"architecture": "UNet"}, "architecture: "),
        ({"architecture": None}, "architecture: "),
        ({"size": "big"}, "size: "),
        ({"size": 0}, "size: "),
        ({"data": "a hash"}, "data: "),
    ],
)
def test_a_foreign_card_is_one_line(model: Path, change: dict[str, Any], line: str) -> None:
    path = model / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert line in line_of(model)


def test_weights_of_another_network_are_refused(model: Path) -> None:
    save_file({"weight": torch.zeros(3)}, model / WEIGHTS)
    assert "not this model's weights" in line_of(model)


def test_a_card_nested_without_end_is_one_line(model: Path) -> None:
    (model / CARD).write_text("[" * 100_000)
    assert "damaged" in line_of(model)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda weight: weight.double(), "float64"),
        (lambda weight: weight.masked_fill(weight == weight.max(), torch.nan), "finite"),
        (lambda weight: weight.masked_fill(weight == weight.max(), torch.inf), "finite"),
    ],
)
def test_weights_of_another_type_or_without_value_are_refused(model: Path, change: Any, word: str) -> None:
    weights = load_file(model / WEIGHTS)
    name = "out.1.weight"
    save_file({**weights, name: change(weights[name])}, model / WEIGHTS)
    message = line_of(model)
    assert name in message
    assert word in message


def test_half_precision_weights_take_half_the_room_and_colour_the_same(tmp_path: Path) -> None:
    generator = UNetGenerator(UNetParams(kind="unet", filters=16, downs=3, dropout=0.5)).eval()
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_generator(tmp_path / name, generator, {}, dtype)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.65 * sizes[1]
    stored = load_file(tmp_path / "half" / WEIGHTS)
    assert {tensor.dtype for tensor in stored.values() if tensor.numel() > SMALL_TENSOR} == {torch.float16}
    assert torch.float16 not in {tensor.dtype for tensor in stored.values() if tensor.numel() <= SMALL_TENSOR}
    half = load_generator(tmp_path / "half")
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    lightness = torch.linspace(-1, 1, 64 * 64).view(1, 1, 64, 64)
    with torch.no_grad():
        lab, other = (torch.cat([lightness, network(lightness)], dim=1) for network in (generator, half))
    assert (lab_to_rgb(lab).int() - lab_to_rgb(other).int()).abs().max() <= 1


def test_a_pickle_is_never_opened(model: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save(Trap(), model / WEIGHTS)
    assert WEIGHTS in line_of(model)
    assert not (tmp_path / "sprung").exists()
