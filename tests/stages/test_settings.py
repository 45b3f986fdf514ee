"""Stage check: faults of one setting, of settings that do not fit each other, and of this machine."""

import math
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from surroundings import ROOT, photos_in

from recolor.core.errors import UserError
from recolor.core.params import ParamsError
from stages import check as check_stage
from stages import paths, settings
from stages.settings import check, check_machine

WEIGHTS, BOUNDS = ("l1_weight", "adversarial_weight"), ("clip", "penalty_weight")
NO_LOSS = {"lr": 0.1, "betas": [0, 0], "l1_weight": 0, "adversarial_weight": 0, "balance": None}


def test_the_repositorys_settings_pass_for_every_dataset(params_file: Path, set_param) -> None:
    assert check(params_file) == ["sample"]
    set_param("datasets", ["sample", "coco", "imagenet", "mine"])
    assert check(params_file) == ["sample", "coco", "imagenet", "mine"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datasets", []),
        ("datasets", ["sample", "sample"]),
        ("loss", "vae"),
        ("loss", "grey"),
        ("recipe", "classic"),
        ("data", None),
        ("data.seed", -1),
        ("data.seed", 2**32),
        ("data.seed", True),
        ("data.seed", "one"),
        ("data.train_fraction", 1.5),
        ("data.min_chroma", -1),
        ("data.size", 100),
        ("data.size", 272),  # no multiple of what the generator needs
        ("data.sample.crops", 0),
        ("data.mine.limit", 1),
        ("data.mine.path", "~nobody-of-that-name/x"),
        ("evaluate.bootstrap", 1),
        ("evaluate.inception_weights", "~nobody-here/x"),
        ("runtime.processes", 10**6),
        ("paper.train.epochs", 0),  # which the sample's overrides replace
        ("paper.generator.dropout", 1),
        ("modern.generator.encoder_weights", "~nobody-here/x"),
        ("modern.pretrain.start", "~nobody-here/x"),
        ("paper.discriminator.downs", 0),
        ("paper.discriminator.downs", 6.5),
        ("paper.wgan.constraint", "hope"),
        ("paper.wgan.n_critic", 0),
        ("modern.train.sample_epochs", 0),  # the recipe that is not in use is checked too
        *((f"paper.gan.{name}", math.inf) for name in WEIGHTS),
        *((f"paper.wgan.{name}", math.inf) for name in (*WEIGHTS, *BOUNDS)),
    ],
)
def test_a_wrong_value_is_one_line_with_key_and_value(params_file: Path, set_param, name: str, value: object) -> None:
    set_param(name, value)
    with pytest.raises(ParamsError) as caught:
        check(params_file)
    assert str(caught.value).startswith(f"{params_file}: {name}: got {value!r}; ")


@pytest.mark.parametrize(
    ("name", "value", "start"),
    [
        ("datasets", ["sample", "cocoa"], "data.cocoa is missing"),
        *(("datasets", [name], f"datasets.0: got {name!r}; ") for name in ("a b", "a.b", "a/b", "a;b", "-a", "a\n")),
        ("paper.augment", {"flip": True, "crop": 1.0, "tone": 0.0}, "paper.augment.film is missing: add it"),  # older
        ("data.mien", {"path": "/photos"}, "data.mien.source is missing"),
        ("data.sample.crop", 3, "data.sample.crop: no such setting"),
        ("overrides.sample", {"paper.train.epochs": 0}, "paper.train.epochs: got 0; "),
        ("overrides", {"coco": {}}, "overrides.sample is missing"),
        ("overrides.cocoa", {}, "overrides.cocoa: no such dataset"),
        ("paper.train.decay_epochs", 7, "paper.train.decay_epochs: got 7; "),  # of the six that the overrides leave
        ("runtime.processes", 3, "paper.train.batch_size: got 16; "),
        ("modern.discriminator", {"filters": 64, "downs": 6, "scale": 0.5}, "modern.discriminator.downs: got 6; "),
        *(("modern.generator.encoder", name, "modern.generator: ") for name in ("mixer_b16_224", "coatnet_0_rw_224")),
        ("paper.gan", NO_LOSS, "paper.gan.l1_weight: got 0, "),
        ("modern.gan.l1_weight", 0, "modern.gan.balance: "),
        ("paper.trian", {"epochs": 3}, "paper.trian: no such setting"),
        ("train", {"epochs": 3}, "train: no such setting"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    params_file: Path, set_param, name: str, value: object, start: str
) -> None:
    set_param(name, value)
    with pytest.raises(ParamsError) as caught:
        check(params_file)
    assert str(caught.value).startswith(f"{params_file}: {start}")
    assert "\n" not in str(caught.value)


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
def test_every_setting_in_the_documents_is_set_as_written(setting: str, params_file: Path) -> None:
    yaml = YAML(typ="safe")
    apply_overrides(str(params_file), [setting])
    check(params_file)
    name, value = setting.split("=", 1)
    found = yaml.load(params_file)
    for key in name.split("."):
        found = found[key]
    wanted = value.strip('"') if "path" in name else yaml.load(value)
    assert found | wanted == found if isinstance(wanted, dict) else found == wanted


def test_what_this_machine_lacks_is_found_before_any_work(
    params_file: Path, set_param, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "HOME", params_file.parent)

    def message(dataset: str) -> str:
        with pytest.raises(UserError) as caught:
            check_machine(params_file, dataset)
        return str(caught.value).replace(str(params_file.parent), "HOME")

    check_machine(params_file, "sample")
    for dataset, path in (("mine", "photos"), ("imagenet", "data/imagenet")):  # from HOME, not from where this runs
        assert message(dataset).startswith(f"data.{dataset}.path: ")
        assert f"HOME/{path}" in message(dataset)
    photos_in(params_file.parent / "photos", ["a.jpg"])
    assert re.match("data.mine.path: .*'a.jpg'.* HOME/photos", message("mine"))
    photos_in(params_file.parent / "photos", ["b.jpg"])
    check_machine(params_file, "mine")

    set_param("evaluate.inception_weights", "weights")
    check_machine(params_file, "sample")  # whose evaluation takes none
    assert message("mine").startswith("HOME/weights/")
    assert "is missing: evaluate.inception_weights must be a folder with " in message("mine")
    set_param("evaluate.inception_weights", None)

    set_param("paper.pretrain.start", "models/first")
    assert message("sample").startswith("pretrain.start: HOME/models/first ")
    (params_file.parent / "models/first").mkdir(parents=True)
    assert message("sample").startswith("HOME/models/first: ")  # which holds no model
    set_param("paper.pretrain.start", "none")
    set_param("recipe", "modern")
    set_param("modern.generator.encoder_weights", "weights.pt")
    assert message("sample").startswith("generator.encoder_weights: HOME/weights.pt ")
    (params_file.parent / "weights.pt").write_bytes(b"other")
    assert message("sample").startswith("generator.encoder_weights: HOME/weights.pt ")
    set_param("modern.generator.encoder_weights", "auto")
    if not torch.cuda.is_available():
        set_param("runtime.device", "cuda")
        assert message("mine").startswith("runtime.device: got cuda")


def test_an_edit_during_the_check_fails_it_at_its_end(
    params_file: Path, set_param, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Edited:
        """Replaces a module whose import takes seconds: the file is edited meanwhile."""

        def __getattr__(self, name: str) -> object:
            set_param("paper.train.epochs", 101)
            return getattr(settings, name)

    monkeypatch.chdir(params_file.parent)
    monkeypatch.setitem(sys.modules, "stages.settings", Edited())
    with pytest.raises(UserError, match=str(paths.PARAMS)):
        check_stage.main()
    assert not paths.CHECKED.exists()
