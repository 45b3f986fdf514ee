"""Two processes, launched by torchrun as a user would, train what one process trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import DISCRIMINATOR, GAN, GENERATOR, WGAN, MadePhotos, settings

from recolor.checkpoint import Checkpoints
from recolor.objectives import Recipe
from recolor.training import Trained, _seed, train
from stages.training import _launch

# Both have batch norm in the generator and in the critic. Dropout draws differently in each process: without it.
RECIPES: dict[str, Recipe] = {"gan": GAN, "wgan": WGAN}
STILL = GENERATOR.model_copy(update={"dropout": 0.0})


def train_in(folder: Path, recipe: Recipe) -> Trained:
    return train(
        MadePhotos(12), settings(epochs=3), STILL, DISCRIMINATOR, recipe, 1, Checkpoints(folder), lambda line: None
    )


def write_node(folder: Path) -> None:
    """What a stage needs: settings and a cache."""
    sections = {"generator": STILL, "discriminator": DISCRIMINATOR, "train": settings(processes=2)}
    params = {name: section.model_dump() for name, section in sections.items()}
    cache = folder / "data" / "cache" / "mine"
    cache.mkdir(parents=True)
    (folder / "params.yaml").write_text(json.dumps({"seed": 1, "data": {"mine": {"overrides": {}}}, **params}))
    (cache / "manifest.csv").write_text("split,row\n" + "".join(f"train,{row}\n" for row in range(12)))
    np.save(cache / "train-000.npy", MadePhotos(12).lab.half().numpy())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes tells (crew_member.py)."""
    folder = tmp_path_factory.mktemp("crew")
    for rank in (0, 1):
        write_node(folder / f"node{rank}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("crew_member.py")
    done = subprocess.run([*launch, script, folder], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(
    name: str, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = train_in(tmp_path, RECIPES[name])
    for row, reference in zip(told[0][name]["history"], alone.history, strict=True):
        assert row.keys() == reference.keys()
        for piece, value in reference.items():
            assert row[piece] == (value and pytest.approx(value, rel=1e-4, abs=1e-6)), piece
    norms = [tensor.float().norm().item() for tensor in alone.generator.state_dict().values()]
    assert told[0][name]["norms"] == pytest.approx(norms, rel=1e-3, abs=1e-4)
    assert told[0][name]["machine"] == "cpu, fp32, 2 processes"


@pytest.mark.parametrize("name", RECIPES)
def test_all_processes_end_with_the_same_model(name: str, told: list[dict[str, Any]]) -> None:
    assert told[0][name] == told[1][name]


def test_a_signal_to_one_process_stops_all_and_they_go_on_to_the_same_losses(told: list[dict[str, Any]]) -> None:
    assert told[0]["interrupted"].startswith("stopped by a signal to another process at step 3, in epoch 1")
    assert told[1]["interrupted"].startswith("stopped by SIGTERM at step 3, in epoch 1")
    assert told[0]["resumed"] == told[1]["resumed"] == told[0]["gan"]["history"]


def test_one_process_writes_the_checkpoints(told: list[dict[str, Any]]) -> None:
    assert told[0]["checkpoints"] == told[1]["checkpoints"] == Checkpoints.KEPT


def test_one_process_writes_the_stages_outputs(told: list[dict[str, Any]]) -> None:
    model = [f"data/models/mine/gan/{name}" for name in ("generator.safetensors", "history.csv", "model.json")]
    cache = ["data/cache/mine/manifest.csv", "data/cache/mine/train-000.npy"]
    assert [file for file in told[0]["written"] if "checkpoints" not in file] == [
        *cache,
        *model,
        "data/timings/mine/gan.csv",
    ]
    assert told[1]["written"] == cache


def test_the_setting_starts_the_processes_unless_a_launcher_did(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda program, arguments: started.append(arguments))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    _launch(1, "gan", "mine")
    assert not started
    _launch(2, "gan", "mine")
    (command,) = started
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert command[-4:] == ["--nproc-per-node=2", "-m", "stages.train_gan", "mine"]
    monkeypatch.setenv("LOCAL_RANK", "0")
    _launch(2, "gan", "mine")
    assert len(started) == 1


def test_a_batch_that_the_processes_cannot_share_is_refused(told: list[dict[str, Any]]) -> None:
    assert told[0]["odd"] == "train.batch_size: got 3, takes a multiple of the 2 processes"


def test_each_process_draws_its_own_noise_and_the_main_one_what_a_single_process_draws(
    told: list[dict[str, Any]],
) -> None:
    torch.manual_seed(_seed(1, 0))
    assert told[0]["noise"] == torch.rand(3).tolist()
    assert told[1]["noise"] != told[0]["noise"]
