"""What a training starts from: a fresh generator, or the weights of a model folder."""

from pathlib import Path

import pytest
import torch
from clone import set_params

from recolor.core.errors import UserError
from recolor.core.params import Params
from recolor.models.folder import save_generator, starting_generator, trained_on
from recolor.models.unet import UNetGenerator, UNetParams
from stages import paths
from stages.starting import generator_section

PARAMS = UNetParams(kind="unet", filters=2, downs=3, dropout=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(9)
    save_generator(tmp_path, UNetGenerator(PARAMS), {})
    return tmp_path


def weights(generator: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in generator.parameters()])


def test_a_fresh_generator_follows_from_the_seed() -> None:
    one, same, other = (weights(starting_generator(PARAMS, None, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_models_weights_start_a_training_with_other_settings_of_the_same_network(folder: Path) -> None:
    torch.manual_seed(9)
    expected = weights(UNetGenerator(PARAMS))
    generator = starting_generator(PARAMS.model_copy(update={"dropout": 0.0}), folder, 1)
    assert torch.equal(weights(generator), expected)
    assert generator.params.dropout == 0


def test_another_network_is_refused_and_both_are_named(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        starting_generator(PARAMS.model_copy(update={"filters": 4}), folder, 1)
    assert PARAMS.description in str(caught.value)
    assert "4 filters" in str(caught.value)


def test_a_model_trained_on_other_photos_is_known(folder: Path) -> None:
    assert trained_on(folder, "5" * 64)  # its card names no photos
    save_generator(folder, UNetGenerator(PARAMS), {"data": {"manifest_sha256": "5" * 64}})
    assert trained_on(folder, "5" * 64)
    assert not trained_on(folder, "6" * 64)


def test_a_file_of_encoder_weights_is_found_from_the_repository(params_file, monkeypatch) -> None:
    set_params(params_file.parent, {"recipe": "modern", "modern.generator.encoder_weights": "weights.pt"})
    monkeypatch.setattr(paths, "HOME", params_file.parent)
    params = Params(params_file, "mine")
    with pytest.raises(UserError, match="encoder_weights"):
        generator_section(params)
    file = params_file.parent / "weights.pt"
    file.touch()
    generator, found = generator_section(params)
    assert generator.weights_file == found == file
