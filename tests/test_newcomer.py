"""Adds an objective, a generator and a metric where the README says, and runs the pipeline to its report."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from clone import dvc, make_clone, set_params, write_photos
from ruamel.yaml import YAML

OBJECTIVE = '''
@dataclass(frozen=True)
class HingeGAN(VanillaGAN):
    """Hinge loss (Lim and Ye 2017)."""

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> CriticLoss:
        on_real, on_fake = critic(real), critic(fake)
        total = (F.relu(1 - on_real) + F.relu(1 + on_fake)).mean()
        real_mean, fake_mean = on_real.mean(), on_fake.mean()
        return CriticLoss(total, real_mean, fake_mean, torch.zeros_like(total), real_mean - fake_mean)

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        return -critic(fake).mean()


class HingeParams(GANParams, frozen=True):
    def objective(self) -> Objective:
        return HingeGAN()

'''
GENERATOR = """
from typing import Literal

import torch
from torch import Tensor, nn

from recolor.core.params import Section
from recolor.models.layers import Generator


class OneConvolutionParams(Section, frozen=True):
    kind: Literal["one"]
    multiple: int = 1
    description: str = "one convolution"


class OneConvolution(Generator):
    def __init__(self, params: OneConvolutionParams) -> None:
        super().__init__()
        self.params = params
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, lightness: Tensor) -> Tensor:
        return torch.tanh(self.convolution(lightness).float())
"""
METRIC = """
    ImageMetric(
        name="mean_error",
        label="mean error",
        better="lower",
        digits=".1f",
        headline=True,
        compute=lambda output, truth: (output.float() - truth.float()).abs().mean(dim=(1, 2, 3)),
    ),"""


def insert(path: Path, after: str, text: str) -> None:
    """Inserts `text` behind the only match of the pattern `after`."""
    found, count = re.subn(f"({after})", lambda match: match[0] + text, path.read_text())
    assert count == 1, (path, after)
    path.write_text(found)


def add_objective(clone: Path) -> None:
    objectives = clone / "recolor/models/objectives.py"
    insert(objectives, r'\n    "wgan": Model\(.*', '\n    "hinge": Model("Hinge", "#cc79a7", HingeParams),')
    insert(objectives, r"\n(?=\n@dataclass\(frozen=True\)\nclass Model:)", OBJECTIVE)
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    for recipe in ("paper", "modern"):
        params[recipe]["hinge"] = deepcopy(params[recipe]["gan"])
    yaml.dump(params, clone / "params.yaml")
    pipeline = yaml.load(clone / "dvc.yaml")
    pipeline["stages"]["train_hinge"] = {
        **pipeline["stages"]["train_gan"],
        "do": renamed(pipeline["stages"]["train_gan"]["do"]),
    }
    pipeline["stages"]["evaluate"]["do"]["deps"].append("data/models/${item}/hinge")
    yaml.dump(pipeline, clone / "dvc.yaml")


def renamed(part: Any) -> Any:
    """A stage's definition for the GAN, for the hinge loss."""
    if isinstance(part, dict):
        return {renamed(key): renamed(value) for key, value in part.items()}
    if isinstance(part, list):
        return [renamed(value) for value in part]
    return re.sub(r"(?<![a-z])gan\b", "hinge", part)


def add_generator(clone: Path) -> None:
    (clone / "recolor/models/one.py").write_text(GENERATOR)
    generators = clone / "recolor/models/generators.py"
    insert(
        generators,
        "from recolor.models.layers import .*\n",
        "from recolor.models.one import OneConvolution, OneConvolutionParams\n",
    )
    insert(generators, r"\nGENERATORS.* = {", '"one": OneConvolution, ')
    insert(generators, r"\nGeneratorParams = Annotated\[", "OneConvolutionParams | ")


@pytest.mark.sweep
def test_an_added_generator_objective_and_metric_are_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    clone = make_clone(tmp_path / "clone", write_photos(tmp_path / "photos"))
    set_params(clone, {f"{recipe}.generator": {"kind": "one"} for recipe in ("paper", "modern")})
    add_generator(clone)
    insert(clone / "recolor/evaluation/metrics.py", r"\nMETRICS.* = \{\n.*\n    for metric in \(", METRIC)
    add_objective(clone)

    dvc(clone, "repro")
    scores = pd.read_csv(clone / "reports/results.csv")
    assert set(scores["model"]) == {"grey", "gan", "wgan", "hinge"}
    assert scores["mean_error"].between(0, 255, inclusive="neither").all()
    card = json.loads((clone / "data/models/mine/hinge/model.json").read_text())
    assert card["objective"] == "HingeGAN"
    assert card["params"]["generator"]["kind"] == "one"
    report = (clone / "reports/results.md").read_text()
    assert "mean error" in report
    assert "Hinge" in report
