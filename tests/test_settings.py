"""The check that comes before all work: the faults of one setting, and of settings that do not fit each other."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

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


def documented_settings() -> list[str]:
    """What follows `-S` in the documents; a grid's values one by one."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/experiments.md")]
    found = [shlex.split(setting)[0] for text in texts for setting in re.findall(r"-S ('[^']+'|[^\s'`)]+)", text)]
    return [
        f"{name}={value}"
        for name, values in (setting.lstrip("+").split("=", 1) for setting in found if "section.key" not in setting)
        for value in ([values] if values[0] in "[{" else values.split(","))
    ]


@pytest.mark.parametrize("setting", sorted(set(documented_settings())))
def test_every_setting_in_the_documents_does_what_it_says(setting: str, params_file: Path) -> None:
    yaml = YAML(typ="safe")
    apply_overrides(str(params_file), [setting])
    check(params_file)
    name, value = setting.split("=", 1)
    found = yaml.load(params_file)
    for key in name.split("."):
        found = found[key]
    wanted = value if "path" in name else yaml.load(value)
    assert found | wanted == found if isinstance(wanted, dict) else found == wanted
