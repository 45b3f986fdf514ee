"""When torch.compile is used, what its estimate rests on, and that it changes no result and stops no run."""

import functools
from pathlib import Path

import pytest
import torch
from test_training import DISCRIMINATOR, GENERATOR, RECIPES, MadePhotos, players_for, run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from recolor import compiling
from recolor.compiling import COST, compile_where_it_pays, flops_per_photo
from recolor.crew import Crew
from recolor.devices import Machine
from recolor.networks import DiscriminatorParams, GeneratorParams
from recolor.training import train_step

CPU = torch.device("cpu")


class Network(nn.Module):
    compiled = False

    def compile(self) -> None:
        self.compiled = True


def test_the_papers_gan_takes_86_gflop_a_photo() -> None:
    generator, discriminator = (
        GeneratorParams(filters=64, downs=8, dropout=0.5),
        DiscriminatorParams(filters=64, downs=3),
    )
    assert flops_per_photo(generator, discriminator, RECIPES["gan"], 256) == pytest.approx(86e9, rel=0.01)


@pytest.mark.parametrize(("name", "steps"), [("gan", 1), ("wgan clip", 3)])
def test_the_estimate_is_what_a_round_of_steps_takes(name: str, steps: int) -> None:
    recipe, real = RECIPES[name], MadePhotos(2, size=64).lab
    players, objective, machine = players_for(recipe), recipe.objective(), Machine.find("cpu", "fp32")
    with FlopCounterMode(display=False) as counter:
        for step in range(1, steps + 1):
            train_step(players, recipe, objective, real, step % recipe.n_critic == 0, machine, Crew())
    estimate = flops_per_photo(GENERATOR, DISCRIMINATOR, recipe, 64)
    assert counter.get_total_flops() / steps / 2 == pytest.approx(estimate, rel=0.1)  # first layers pass no gradient on


@pytest.mark.parametrize("pays", [True, False])
def test_auto_compiles_a_run_that_repays_it(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compiling.SAVED_AND_SPEED, compiling._kind(CPU), (0.1, 1e12))
    monkeypatch.setattr(compiling, "_why_not", lambda device: None)
    network, said = Network(), list[str]()
    compile_where_it_pays([network], "auto", CPU, 10 * COST * 1e12 * (1.01 if pays else 0.99), said.append)
    assert network.compiled is pays
    assert said == [
        f"train.compile auto: {'' if pays else 'not '}compiled; it takes 60 s and saves about "
        f"{'61 of 606' if pays else '59 of 594'} s here"
    ]


def test_where_there_is_no_compiler_training_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, said = Network(), list[str]()
    compile_where_it_pays([network], True, CPU, 1, said.append)
    assert not network.compiled
    (line,) = said
    assert line.startswith("train.compile: going on uncompiled, because compiling fails here: ")
    assert "\n" not in line


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_networks_have_the_losses_of_the_others(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aot_eager captures forward and backward graphs as the default back end does, and generates no code: seconds less.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(compiling, "_why_not", lambda device: None)
    compiled = run(tmp_path / "compiled", RECIPES[name], MadePhotos(4), compile=True, epochs=3).history
    for row, reference in zip(
        compiled, run(tmp_path / "not", RECIPES[name], MadePhotos(4), epochs=3).history, strict=True
    ):
        assert row["critic_loss"] == pytest.approx(reference["critic_loss"], rel=1e-4, abs=1e-6)
        assert row["generator_l1"] == (reference["generator_l1"] and pytest.approx(reference["generator_l1"], rel=1e-4))
