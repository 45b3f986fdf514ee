"""The mean of several models' weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SMALL_PRETRAINED

from recolor.core.errors import UserError
from recolor.models.averaging import average
from recolor.models.folder import load_generator, read_card, save_generator, weights_sha256
from recolor.models.generators import build_generator
from recolor.models.unet import UNetGenerator, UNetParams


def model(folder: Path, seed: int, filters: int = 2, manifest: str = "a") -> Path:
    torch.manual_seed(seed)
    generator = UNetGenerator(UNetParams(kind="unet", filters=filters, downs=5, dropout=0.0))
    for buffer in generator.buffers():
        buffer += seed
    card: dict[str, Any] = {
        "objective": f"Objective{seed}",
        "data": {"manifest_sha256": manifest},
        "scores": [{"psnr": 1}],
    }
    save_generator(folder, generator, {**card, "params": {"seed": seed}})
    return folder


def test_every_weight_and_statistic_is_the_mean(tmp_path: Path) -> None:
    folders = [model(tmp_path / str(seed), seed) for seed in (1, 2, 6)]
    average(folders, tmp_path / "out")
    found = load_generator(tmp_path / "out").state_dict()
    states = [load_generator(folder).state_dict() for folder in folders]
    for name, tensor in found.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, sum(state[name] for state in states) / 3)
    assert any(name.endswith("running_var") for name in found)


def test_the_card_holds_what_was_averaged_and_no_score_of_one_of_them(tmp_path: Path) -> None:
    folders = [model(tmp_path / str(seed), seed) for seed in (1, 2)]
    average(folders, tmp_path / "out")
    card = read_card(tmp_path / "out")
    assert [one["sha256"] for one in card["averaged"]] == [weights_sha256(folder) for folder in folders]
    assert [one["params"]["seed"] for one in card["averaged"]] == [1, 2]
    assert all(name in card["objective"] for name in ("Objective1", "Objective2"))
    assert "scores" not in card


@pytest.mark.parametrize("other", [{"filters": 3}, {"manifest": "b"}], ids=["network", "split"])
def test_models_that_do_not_fit_are_an_error_that_names_one(other: dict[str, Any], tmp_path: Path) -> None:
    folders = [model(tmp_path / "one", 1), model(tmp_path / "other", 2, **other)]
    with pytest.raises(UserError, match=str(folders[1])):
        average(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_of_equal_weights_that_compute_other_colours_have_no_mean(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("guided", "bilinear")]
    for folder in folders:
        params = SMALL_PRETRAINED.model_copy(update={"upsampling": folder.name})
        save_generator(folder, build_generator(params), {})
    with pytest.raises(UserError, match=str(folders[1])):
        average(folders, tmp_path / "out")


def test_one_model_has_no_mean(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        average([model(tmp_path / "one", 1)], tmp_path / "out")
