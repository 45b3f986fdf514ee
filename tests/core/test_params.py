"""Settings: what is read, and the one line that a wrong one gets."""

import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from recolor.core.errors import UserError
from recolor.core.params import Params, ParamsError
from recolor.models.networks import GeneratorParams
from recolor.training.loop import TrainParams
from recolor.training.objectives import GANParams, WGANParams


def error_of(path: Path, section: str, kind: type) -> str:
    with pytest.raises(ParamsError) as caught:
        Params(path).section(section, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_the_repositorys_settings_are_the_papers_recipe(params_file: Path) -> None:
    params = Params(params_file)
    assert params.section("generator", GeneratorParams) == GeneratorParams(filters=64, downs=8, dropout=0.5)
    gan = params.section("gan", GANParams)
    assert (gan.lr, gan.betas, gan.l1_weight) == (2e-4, (0.5, 0.999), 100)
    wgan = params.section("wgan", WGANParams)
    assert (wgan.constraint, wgan.clip, wgan.lr, wgan.n_critic, wgan.penalty_weight) == ("clip", 0.01, 5e-5, 5, 10)
    train = params.section("train", TrainParams)
    assert (train.epochs, train.batch_size, train.flip) == (100, 16, True)
    assert params.value("seed", int) == 42


def test_a_dataset_lays_its_overrides_over_the_sections(params_file: Path, set_param) -> None:
    set_param("data.coco.overrides", {"train.epochs": 7})
    assert Params(params_file, "coco").section("train", TrainParams).epochs == 7
    assert Params(params_file, "imagenet").section("train", TrainParams).epochs == 100


def test_a_float_as_dvc_writes_it_is_a_float(params_file: Path) -> None:
    text = params_file.read_text()
    for written in ("3e-05", "'3e-05'"):  # the second as a reader of YAML 1.1 has it
        params_file.write_text(text.replace("lr: 0.00005", f"lr: {written}"))
        assert Params(params_file).section("wgan", WGANParams).lr == 3e-5


def test_a_value_within_a_section_is_the_datasets_own(params_file: Path, set_param) -> None:
    set_param("data.coco.overrides", {"train.batch_size": 7})
    assert Params(params_file, "coco").value("train.batch_size", int) == 7
    assert Params(params_file, "mine").value("train.batch_size", int) == 16
    with pytest.raises(ParamsError, match=r"train\.batch is missing$"):
        Params(params_file).value("train.batch", int)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("train.epochs", 0, "train.epochs: got 0; takes greater than or equal to 1"),
        ("train.epochs", "many", "train.epochs: got 'many'; takes a valid integer"),
        ("train.epochs", "7", "train.epochs: got '7'; takes a valid integer"),
        ("train.epochs", True, "train.epochs: got True; takes a valid integer"),
        ("train.epochs", 10**12, "train.epochs: got 1000000000000; takes less than or equal to 1000000"),
        ("train.flip", "yes", "train.flip: got 'yes'; takes a valid boolean"),
        ("train.deterministic", "on", "train.deterministic: got 'on'; takes a valid boolean"),
        ("train.compile", "perhaps", "train.compile: got 'perhaps'; takes 'auto', True or False"),
        ("train.checkpoint_minutes", math.inf, "train.checkpoint_minutes: got inf; takes a finite number"),
        ("train.epoch", 3, "train.epoch: no such setting"),
        ("train.device", "gpu", "train.device: got 'gpu'; takes 'auto', 'cpu', 'cuda' or 'mps'"),
        ("train.batch_size", -1, "train.batch_size: got -1; takes greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(
    params_file: Path, set_param, name: str, value: object, line: str
) -> None:
    set_param(name, value)
    assert error_of(params_file, "train", TrainParams) == line


def test_a_negative_rate_and_a_wild_beta_are_refused(params_file: Path, set_param) -> None:
    set_param("gan.lr", -0.1)
    assert error_of(params_file, "gan", GANParams) == "gan.lr: got -0.1; takes greater than 0"
    set_param("gan.lr", 0.1)
    set_param("gan.betas", [0.5, 1.5])
    assert error_of(params_file, "gan", GANParams) == "gan.betas.1: got 1.5; takes less than 1"
    set_param("gan.betas", [0.5, True])
    assert error_of(params_file, "gan", GANParams) == "gan.betas.1: got True; takes a valid number"
    set_param("gan.betas", [0.5, 0.9])
    set_param("gan.lr", True)
    assert error_of(params_file, "gan", GANParams) == "gan.lr: got True; takes a valid number"


def test_a_missing_section_key_file_or_dataset_is_named(params_file: Path) -> None:
    assert error_of(params_file, "wgun", WGANParams) == "wgun is missing"
    with pytest.raises(ParamsError, match=r"data.cocoa is missing: the datasets are sample, coco, imagenet, mine"):
        Params(params_file, "cocoa")
    with pytest.raises(UserError, match=r"no such file; run this in the repository's root"):
        Params(params_file.with_name("nothing.yaml"))
    params_file.write_text(params_file.read_text().replace("  epochs: 100\n", ""))
    assert error_of(params_file, "train", TrainParams) == "train.epochs is missing"


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "just words", "", "- a\n- b"])
def test_a_file_that_holds_no_settings_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        Params(path)
    assert "\n" not in str(caught.value)


def test_an_override_of_nothing_is_refused(params_file: Path, set_param) -> None:
    for name in ["train.epoch", "trian.epochs", "epochs", "data.size"]:
        set_param("data.coco.overrides", {name: 1})
        with pytest.raises(ParamsError, match=rf"data.coco.overrides.{name}: no such setting; name one as section.key"):
            Params(params_file, "coco")


@pytest.mark.parametrize("overrides", [["train.epochs"], "train.epochs: 3", 3])
def test_overrides_that_are_no_mapping_are_refused(params_file: Path, set_param, overrides: object) -> None:
    set_param("data.coco.overrides", overrides)
    with pytest.raises(ParamsError) as caught:
        Params(params_file, "coco")
    takes = "takes section.key: value, or {}"
    assert str(caught.value) == f"{params_file}: data.coco.overrides: got {overrides!r}; {takes}"


@pytest.mark.parametrize("data", [None, [], "sample"])
def test_data_that_is_no_mapping_is_refused(params_file: Path, set_param, data: object) -> None:
    set_param("data", data)
    with pytest.raises(ParamsError) as caught:
        Params(params_file, "coco")
    assert str(caught.value) == f"{params_file}: data: got {data!r}; takes settings and datasets"


def test_a_change_meanwhile_is_noticed_in_what_was_read_only(params_file: Path, set_param) -> None:
    params = Params(params_file, "coco")
    params.section("train", TrainParams)
    set_param("wgan.lr", 0.5)
    params.check_unchanged()
    set_param("train.epochs", 3)
    with pytest.raises(ParamsError, match="train was changed while this ran; run it again"):
        params.check_unchanged()


def test_a_tagged_unions_tag_is_not_part_of_the_key(params_file: Path, set_param) -> None:
    class Sample(BaseModel, extra="forbid"):
        source: Literal["sample"]
        crops: int = Field(ge=1)
        overrides: dict[str, object]

    class Other(BaseModel):
        source: Literal["other"]

    set_param("data.sample.crops", 0)
    with pytest.raises(ParamsError) as caught:
        Params(params_file, "sample").source(Annotated[Sample | Other, Field(discriminator="source")])
    assert "data.sample.crops: got 0; takes greater than or equal to 1" in str(caught.value)
