"""The check that comes before all work: the faults of one setting, and of settings that do not fit each other."""

from pathlib import Path

import pytest

from recolor.params import ParamsError
from recolor.settings import check


def test_the_repositorys_settings_pass_for_every_dataset(params_file: Path, set_param) -> None:
    assert check(params_file) == ["sample"]
    set_param("datasets", ["sample", "coco", "imagenet", "mine"])
    assert check(params_file) == ["sample", "coco", "imagenet", "mine"]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("datasets", [], "datasets: got []; List should have at least 1 item after validation, not 0"),
        ("datasets", ["sample", "sample"], "datasets: got ['sample', 'sample']; takes each dataset once"),
        ("datasets", ["sample", "cocoa"], "data.cocoa is missing: the datasets are sample, coco, imagenet, mine"),
        ("loss", "vae", "loss: got 'vae'; takes 'gan' or 'wgan'"),
        ("seed", -1, "seed: got -1; takes greater than or equal to 0"),
        ("seed", "one", "seed: got 'one'; takes a valid integer, unable to parse string as an integer"),
        ("data.train_fraction", 1.5, "data.train_fraction: got 1.5; takes less than 1"),
        ("data.min_chroma", -1, "data.min_chroma: got -1; takes greater than or equal to 0"),
        ("data.size", 100, "data.size: got 100; takes a multiple of 16"),
        ("data.size", 272, "data.size: got 272; takes a multiple of 256, because generator.downs is 8"),
        ("data.sample.crops", 0, "data.sample.crops: got 0; takes greater than or equal to 1"),
        ("data.sample.crop", 3, "data.sample.crop: no such setting"),
        ("data.sample.overrides", {"train.epochs": 0}, "train.epochs: got 0; takes greater than or equal to 1"),
        ("generator.dropout", 1, "generator.dropout: got 1; takes less than 1"),
        ("discriminator.downs", 0, "discriminator.downs: got 0; takes greater than or equal to 1"),
        ("train.decay_epochs", 7, "train.decay_epochs: got 7; takes at most the 6 epochs"),
        ("train.processes", 3, "train.batch_size: got 16; takes a multiple of the 3 processes"),
        ("gan.l1_weight", -100, "gan.l1_weight: got -100; takes greater than or equal to 0"),
        ("wgan.constraint", "hope", "wgan.constraint: got 'hope'; takes 'clip' or 'gradient_penalty'"),
        ("wgan.n_critic", 0, "wgan.n_critic: got 0; takes greater than or equal to 1"),
        ("evaluate.bootstrap", 1, "evaluate.bootstrap: got 1; takes greater than or equal to 100"),
        ("seed", 2**32, "seed: got 4294967296; takes less than 4294967296"),
        (
            "data.sample",
            {"source": "sample", "crops": 4},
            "data.sample.overrides is missing: DVC tracks it; {} will do",
        ),
    ],
)
def test_a_fault_is_one_line_that_names_the_key(
    params_file: Path, set_param, name: str, value: object, line: str
) -> None:
    set_param(name, value)
    with pytest.raises(ParamsError) as caught:
        check(params_file)
    assert str(caught.value) == f"{params_file}: {line}"
