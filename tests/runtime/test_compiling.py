"""When torch.compile is used; it changes no result and stops no run."""

import functools
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import OBJECTIVES, RUNTIME, MadePhotos, assert_identical, run

from recolor.runtime import context
from recolor.runtime.context import RuntimeContext


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_auto_compiles_on_cuda_only(device: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_compile_failure", lambda device: "")
    network = nn.Conv2d(1, 1, 1)
    RuntimeContext(torch.device(device), bf16=False).compile([network], "auto", log=pytest.fail)
    assert (network._compiled_call_impl is not None) is expected


def test_without_a_compiler_training_runs_eagerly_and_logs_the_reason_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    log: list[str] = []
    compiled = RUNTIME.model_copy(update={"compile": True})
    trained = run(tmp_path / "1", photos=MadePhotos(4), epochs=1, runtime=compiled, log=log.append)
    assert "runtime.compile" in log[0]
    assert "\n" not in log[0]
    assert_identical(trained, run(tmp_path / "2", photos=MadePhotos(4), epochs=1))


@pytest.mark.parametrize("name", ["gan", "wgan gradient_penalty"])
def test_compiled_networks_have_the_losses_of_the_others(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aot_eager captures forward and backward graphs as the default back end does, and generates no code: seconds less.
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(context, "_compile_failure", lambda device: "")
    compiled, eager = (
        run(
            tmp_path / str(wanted),
            OBJECTIVES[name],
            MadePhotos(4),
            RUNTIME.model_copy(update={"compile": wanted}),
            epochs=3,
        ).history
        for wanted in (True, False)
    )
    for row, reference in zip(compiled, eager, strict=True):
        assert row["critic_loss"] == pytest.approx(reference["critic_loss"], rel=1e-4, abs=1e-6)
        assert row["generator_l1"] == (reference["generator_l1"] and pytest.approx(reference["generator_l1"], rel=1e-4))
