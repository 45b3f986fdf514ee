"""When torch.compile is used, what its estimate rests on, and that it changes no result and stops no run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import (
    AUGMENT,
    DISCRIMINATOR,
    GENERATOR,
    RECIPES,
    RUNTIME,
    MadePhotos,
    assert_identical,
    players_for,
    run,
    settings,
)
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.utils.flop_counter import FlopCounterMode

from recolor.models.objectives import ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams
from recolor.models.unet import UNetParams
from recolor.runtime import compiling
from recolor.runtime.compiling import COST, compile_where_it_pays, flops_per_photo
from recolor.runtime.devices import RuntimeContext, RuntimeParams
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Trained, train, train_step

CPU = torch.device("cpu")


class Network(nn.Module):
    compiled = False

    def compile(self) -> None:
        self.compiled = True


def nothing() -> None:
    pass


def test_the_papers_gan_takes_86_gflop_a_photo() -> None:
    generator, discriminator = (
        UNetParams(filters=64, downs=8, dropout=0.5),
        DiscriminatorParams(filters=64, downs=3),
    )
    assert flops_per_photo(generator, discriminator, RECIPES["gan"], 256) == pytest.approx(86e9, rel=0.01)


@pytest.mark.parametrize(("name", "steps"), [("gan", 1), ("wgan clip", 3)])
def test_the_estimate_is_what_a_round_of_steps_takes(name: str, steps: int) -> None:
    recipe, real = RECIPES[name], MadePhotos(2, size=64).lab
    players, objective, context = players_for(recipe), recipe.objective(), RuntimeContext.find("cpu", "fp32")
    with FlopCounterMode(display=False) as counter:
        for step in range(1, steps + 1):
            train_step(players, recipe, objective, real, step % recipe.n_critic == 0, context, DistributedContext())
    estimate = flops_per_photo(GENERATOR, DISCRIMINATOR, recipe, 64)
    assert counter.get_total_flops() / steps / 2 == pytest.approx(estimate, rel=0.1)  # first layers pass no gradient on


@pytest.mark.parametrize("pays", [True, False])
def test_auto_compiles_a_run_that_repays_it(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compiling.SAVED_AND_SPEED, compiling._kind(CPU), (0.1, 1e12))
    monkeypatch.setattr(compiling, "_compile_something_small", lambda device: None)
    network, said = Network(), list[str]()
    flops = 10 * COST * 1e12 * (1.01 if pays else 0.99)
    compile_where_it_pays([network], "auto", CPU, flops, nothing, DistributedContext(), said.append)
    assert network.compiled is pays
    assert said == [
        f"runtime.compile auto: {'' if pays else 'not '}compiled; it takes 60 s and saves about "
        f"{'61 of 606' if pays else '59 of 594'} s here"
    ]


def test_auto_compiles_nothing_on_a_device_that_nobody_has_measured() -> None:
    network, said = Network(), list[str]()
    compile_where_it_pays([network], "auto", torch.device("xpu"), 1e30, nothing, DistributedContext(), said.append)
    assert not network.compiled
    assert said == ["runtime.compile auto: not compiled; it takes 60 s and saves nothing here"]


def test_where_there_is_no_compiler_training_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, said = Network(), list[str]()
    compile_where_it_pays([network], True, CPU, 1, nothing, DistributedContext(), said.append)
    assert not network.compiled
    (line,) = said
    assert line.startswith("runtime.compile: going on uncompiled, because compiling fails here: ")
    assert "\n" not in line


class BackEnd:
    """Runs graphs as they were captured, and counts them; refuses the one that is number `refused`, from 0."""

    def __init__(self, refused: int | None = None) -> None:
        self.refused = refused
        self.graphs = 0

    def take(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        if self.graphs == self.refused:
            raise RuntimeError("no convolutions here\nat all")
        self.graphs += 1
        return make_boxed_func(graph.forward)


class Watching(MadePhotos):
    """Notes how many graphs there were whenever photos were asked for."""

    def __init__(self, back_end: BackEnd) -> None:
        super().__init__(8, size=8)
        self.back_end = back_end
        self.graphs: list[int] = []

    def read_fp16(self, indices: np.ndarray) -> Tensor:
        self.graphs.append(self.back_end.graphs)
        return super().read_fp16(indices)


def run_small(folder: Path, recipe: ObjectiveParams, photos: MadePhotos, compiled: bool) -> tuple[Trained, list[str]]:
    """A run of small networks, which are compiled in a second or two, and what it said."""
    networks = UNetParams(filters=1, downs=2, dropout=0.5), DiscriminatorParams(filters=1, downs=1)
    said = list[str]()
    runtime = RuntimeParams(device="cpu", precision="fp32", compile=compiled)
    checkpoints = Checkpoints(folder)
    return train(photos, settings(epochs=3), runtime, AUGMENT, *networks, recipe, checkpoints, said.append), said


def test_where_compiling_a_network_fails_the_run_is_one_that_was_never_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["wgan clip"]  # whose steps are of both kinds

    def compiled(back_end: BackEnd) -> tuple[Trained, list[str], list[int]]:
        graphs = aot_autograd(fw_compiler=back_end.take)
        monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=graphs))
        torch._dynamo.reset()
        photos = Watching(back_end)
        folder = tmp_path / str(back_end.refused)
        return *run_small(folder, recipe, photos, compiled=True), [*photos.graphs, back_end.graphs]

    monkeypatch.setattr(compiling, "_compile_something_small", lambda device: None)
    eager, _ = run_small(tmp_path / "eager", recipe, MadePhotos(8, size=8), compiled=False)
    _, _, graphs = compiled(BackEnd())
    assert len(set(graphs)) == 1  # all before the first step: there it is not too late to do without
    assert graphs[0] > 4
    for refused in (0, graphs[0] - 1):  # the generator forwards, and backwards while the critic is to get no gradients
        trained, said, _ = compiled(BackEnd(refused))
        assert said[0] == "runtime.compile: going on uncompiled, because compiling fails here: no convolutions here"
        assert_identical(trained, eager)


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_networks_have_the_losses_of_the_others(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aot_eager captures forward and backward graphs as the default back end does, and generates no code: seconds less.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(compiling, "_compile_something_small", lambda device: None)
    compiled = run(
        tmp_path / "compiled", RECIPES[name], MadePhotos(4), RUNTIME.model_copy(update={"compile": True}), epochs=3
    ).history
    for row, reference in zip(
        compiled, run(tmp_path / "not", RECIPES[name], MadePhotos(4), epochs=3).history, strict=True
    ):
        assert row["critic_loss"] == pytest.approx(reference["critic_loss"], rel=1e-4, abs=1e-6)
        assert row["generator_l1"] == (reference["generator_l1"] and pytest.approx(reference["generator_l1"], rel=1e-4))
