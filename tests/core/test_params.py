"""Settings: the sections, the overrides, and the one line that a wrong value gets."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from recolor.core.errors import UserError
from recolor.core.params import Params, ParamsError
from recolor.models.objectives import GANParams, WGANParams
from recolor.runtime.context import RuntimeParams
from recolor.training.loop import TrainParams

KINDS: dict[str, Any] = {"train": TrainParams, "gan": GANParams, "wgan": WGANParams, "runtime": RuntimeParams}


def error_of(path: Path, section: str, kind: Any) -> str:
    with pytest.raises(ParamsError) as caught:
        Params(path).section(section, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_the_recipe_chooses_between_the_sections(params_file: Path, set_param) -> None:
    set_param("modern.train.epochs", 3)
    assert Params(params_file).section("train", TrainParams).epochs == 100
    assert Params(params_file, recipe="modern").section("train", TrainParams).epochs == 3
    set_param("recipe", "modern")
    assert Params(params_file).section("train", TrainParams).epochs == 3


def test_a_datasets_overrides_replace_values_of_the_sections(params_file: Path, set_param) -> None:
    set_param("overrides.coco", {"paper.train.epochs": 7, "modern.train.epochs": 8})
    for dataset, recipe, epochs in (("coco", "paper", 7), ("coco", "modern", 8), ("imagenet", "paper", 100)):
        params = Params(params_file, dataset, recipe)
        assert params.section("train", TrainParams).epochs == params.section("train.epochs", int) == epochs


def test_a_float_in_scientific_notation_is_a_float(params_file: Path) -> None:
    params_file.write_text(params_file.read_text().replace("lr: 0.00005", "lr: 3e-05"))  # as DVC writes it
    assert Params(params_file).section("wgan", WGANParams).lr == 3e-5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("paper.train.epochs", 10**12),
        ("paper.train.epochs", "7"),
        ("paper.train.epochs", True),
        ("paper.gan.lr", True),
        ("runtime.deterministic", "on"),
        ("runtime.compile", "perhaps"),
        ("runtime.checkpoint_minutes", math.inf),
    ],
)
def test_a_wrong_value_is_one_line_with_key_and_value(params_file: Path, set_param, name: str, value: object) -> None:
    set_param(name, value)
    section = name.split(".")[-2]
    assert error_of(params_file, section, KINDS[section]).startswith(f"{name}: got {value!r}; ")


def test_a_wrong_element_of_a_list_is_named(params_file: Path, set_param) -> None:
    set_param("paper.gan.betas", [0.5, 1.5])
    assert error_of(params_file, "gan", GANParams).startswith("paper.gan.betas.1: got 1.5; ")


def test_what_is_missing_or_unknown_is_named(params_file: Path, set_param) -> None:
    assert "paper.wgun is missing: add it" in error_of(params_file, "wgun", WGANParams)
    with pytest.raises(ParamsError, match=r"data\.cocoa is missing: .*sample, coco, imagenet, mine"):
        Params(params_file, "cocoa")
    with pytest.raises(UserError, match=r"nothing\.yaml: no such file"):
        Params(params_file.with_name("nothing.yaml"))
    set_param("paper.train.epoch", 3)
    assert error_of(params_file, "train", TrainParams) == "paper.train.epoch: no such setting"
    params_file.write_text(params_file.read_text().replace("    batch_size: 16", "    batch: 16"))
    assert "paper.train.batch_size is missing" in error_of(params_file, "train", TrainParams)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "just words", "", "- a\n- b"])
def test_a_file_without_settings_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        Params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["paper.train.epoch", "train.epochs", "trian.epochs", "epochs", "data.size", "runtime.device"]
)
def test_an_override_of_an_unknown_setting_is_refused(params_file: Path, set_param, name: str) -> None:
    set_param("overrides.coco", {name: 1})
    with pytest.raises(ParamsError, match=rf"overrides\.coco\.{name}: no such setting"):
        Params(params_file, "coco")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overrides.coco", ["paper.train.epochs"]),
        ("overrides.coco", "paper.train.epochs: 3"),
        ("overrides.coco", 3),
        ("data", None),
        ("data", []),
        ("data", "sample"),
    ],
)
def test_data_and_overrides_take_a_mapping(params_file: Path, set_param, name: str, value: object) -> None:
    set_param(name, value)
    with pytest.raises(ParamsError) as caught:
        Params(params_file, "coco")
    assert str(caught.value).startswith(f"{params_file}: {name}: got {value!r}; ")


def test_only_a_change_of_what_was_read_is_noticed(params_file: Path, set_param) -> None:
    params = Params(params_file, "coco")
    params.section("train", TrainParams)
    params.section("runtime", RuntimeParams)
    set_param("paper.wgan.lr", 0.5)
    set_param("runtime.device", "cpu")
    params.check_unchanged()
    set_param("paper.train.epochs", 3)
    with pytest.raises(ParamsError, match=r"paper\.train was changed"):
        params.check_unchanged()


def test_the_record_of_what_was_read_names_the_recipe_and_leaves_the_machine_out(params_file: Path) -> None:
    params = Params(params_file)
    params.section("data.seed", int)
    assert params.read == {"data.seed": 42}
    params.section("runtime", RuntimeParams)
    params.section("train.epochs", int)
    assert params.read == {"data.seed": 42, "recipe": "paper", "train.epochs": 100}


def test_the_tag_of_a_union_is_not_part_of_the_key(params_file: Path, set_param) -> None:
    class Sample(BaseModel, extra="forbid"):
        source: Literal["sample"]
        crops: int = Field(ge=1)

    class Other(BaseModel):
        source: Literal["other"]

    set_param("data.sample.crops", 0)
    with pytest.raises(ParamsError, match=r"data\.sample\.crops: got 0; "):
        Params(params_file, "sample").source(Annotated[Sample | Other, Field(discriminator="source")])
