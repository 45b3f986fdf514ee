"""The check that comes before all work: the faults of one setting, and of settings that do not fit each other."""

import math
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT, photos_in
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from recolor.core.errors import UserError
from recolor.core.params import ParamsError
from stages.settings import check, check_machine

WEIGHTS, BOUNDS = ("l1_weight", "adversarial_weight"), ("clip", "penalty_weight")
TOP = "datasets, loss, seed, data, generator, discriminator, train, gan, wgan, evaluate"
NOBODY = "takes a path, and there is no such user here"


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
        ("evaluate.processes", 10**6, "evaluate.processes: got 1000000; takes less than or equal to 1024"),
        (
            "evaluate.inception_weights",
            "~nobody-here/x",
            "evaluate.inception_weights: got '~nobody-here/x'; takes a path, and there is no such user here",
        ),
        ("loss", "vae", "loss: got 'vae'; takes 'gan' or 'wgan'"),
        ("seed", -1, "seed: got -1; takes greater than or equal to 0"),
        ("seed", "one", "seed: got 'one'; takes a valid integer"),
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
        ("seed", True, "seed: got True; takes a valid integer"),
        *((f"gan.{name}", math.inf, f"gan.{name}: got inf; takes a finite number") for name in WEIGHTS),
        *((f"wgan.{name}", math.inf, f"wgan.{name}: got inf; takes a finite number") for name in (*WEIGHTS, *BOUNDS)),
        (
            "gan",
            {"lr": 0.1, "betas": [0, 0], "l1_weight": 0, "adversarial_weight": 0},
            "gan.l1_weight: got 0, and gan.adversarial_weight is 0 too; takes one of them above 0",
        ),
        (
            "data.sample.overrides",
            {"wgan.l1_weight": 0, "wgan.adversarial_weight": 0},
            "wgan.l1_weight: got 0, and wgan.adversarial_weight is 0 too; takes one of them above 0",
        ),
        ("trian", {"epochs": 3}, f"trian: no such setting; at the top level stand {TOP}"),
        ("batch_size", 8, f"batch_size: no such setting; at the top level stand {TOP}"),
        ("data", None, "data: got None; takes settings and datasets"),
        ("data.mine.limit", 1, "data.mine.limit: got 1; takes greater than or equal to 2"),
        ("data.mine.path", "~nobody-of-that-name/x", f"data.mine.path: got '~nobody-of-that-name/x'; {NOBODY}"),
        ("data.mien", {"path": "/photos"}, "data.mien.source is missing"),
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


def test_what_this_machine_lacks_is_told_before_any_work(params_file: Path, set_param) -> None:
    def told(dataset: str) -> str:
        with pytest.raises(UserError) as caught:
            check_machine(params_file, dataset, params_file.parent)
        return str(caught.value).replace(str(params_file.parent), "HOME")

    check_machine(params_file, "sample", params_file.parent)
    for dataset, path in (("mine", "photos"), ("imagenet", "data/imagenet")):  # from `home`, not from where this runs
        assert told(dataset).startswith(f"data.{dataset}.path: there is nothing at HOME/{path}; ")
    photos_in(params_file.parent / "photos", ["a.jpg"])
    assert told("mine").startswith("data.mine.path: got HOME/photos with 'a.jpg' alone in it; ")
    photos_in(params_file.parent / "photos", ["b.jpg"])
    check_machine(params_file, "mine", params_file.parent)

    set_param("evaluate.inception_weights", "weights")
    check_machine(params_file, "sample", params_file.parent)  # whose evaluation takes none
    assert told("mine").startswith("HOME/weights/")
    assert "is missing: evaluate.inception_weights takes a folder with " in told("mine")
    set_param("evaluate.inception_weights", None)
    if not torch.cuda.is_available():
        for section in ("train", "evaluate"):
            set_param("data.mine.overrides", {f"{section}.device": "cuda"})
            assert told("mine").startswith(f"{section}.device: got cuda, which this machine does not have; it has cpu")


def test_an_edit_during_the_check_fails_it_at_its_end(params_file: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.check"],
        cwd=params_file.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any("libtorch" in module.path for module in psutil.Process(process.pid).memory_maps()):
        assert process.poll() is None  # it imports what it needs for the check, having looked at the file
    process.send_signal(signal.SIGSTOP)
    params_file.write_text(params_file.read_text().replace("epochs: 100", "epochs: 101"))
    process.send_signal(signal.SIGCONT)
    _, told = process.communicate()
    line = "error: params.yaml was changed while it was checked; run it again\n"
    assert (process.returncode, told) == (1, line)
