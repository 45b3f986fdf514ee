"""Two processes, launched by torchrun as a user would, train what one process trains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import DISCRIMINATOR, GAN, GENERATOR, WGAN, MadePhotos, settings

from benchmarks.ours import make_photos
from recolor.cache import CacheParams, build
from recolor.checkpoint import Checkpoints, save_generator
from recolor.evaluation import EvaluateParams, evaluate
from recolor.networks import UNetGenerator
from recolor.objectives import Recipe
from recolor.training import Trained, _seed, train
from stages.training import _launch

# Both have batch norm in the generator and in the critic. Dropout draws differently in each process: without it.
RECIPES: dict[str, Recipe] = {"gan": GAN, "wgan": WGAN}
EVALUATION = EvaluateParams(
    batch_size=4, inception="off", inception_weights=None, bootstrap=100, examples=2, device="cpu"
)
SCORED = ("scores.csv", "photos.csv", "examples.csv", "examples.npz", "notes.json")
STILL = GENERATOR.model_copy(update={"dropout": 0.0})


def train_in(folder: Path, recipe: Recipe) -> Trained:
    return train(
        MadePhotos(12), settings(epochs=3), STILL, DISCRIMINATOR, recipe, 1, Checkpoints(folder), lambda line: None
    )


def write_node(folder: Path, cache: Path) -> None:
    """What a stage needs: settings and a cache, on a disk of its own."""
    sections = {"generator": STILL, "discriminator": DISCRIMINATOR, "train": settings(processes=2)}
    params = {name: section.model_dump() for name, section in sections.items()}
    shutil.copytree(cache, folder / "data" / "cache" / "mine")
    (folder / "params.yaml").write_text(json.dumps({"seed": 1, "data": {"mine": {"overrides": {}}}, **params}))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, and a model that never learnt anything."""
    folder = tmp_path_factory.mktemp("crew")
    listing = make_photos(folder / "photos", 16, (40, 30))
    build(listing, folder / "photos", folder / "cache", CacheParams(size=32, train_fraction=0.75, min_chroma=0), 1, 1)
    save_generator(folder / "model", UNetGenerator(STILL), {})
    return folder


@pytest.fixture(scope="module")
def told(work: Path) -> list[dict[str, Any]]:
    """What each of two processes tells (crew_member.py)."""
    for rank in (0, 1):
        write_node(work / f"node{rank}", work / "cache")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).with_name("crew_member.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent.parent)}
    done = subprocess.run([*launch, script, work], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads((work / f"{rank}.json").read_text()) for rank in (0, 1)]


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
    written = [{file for file in of_one["written"] if "cache" not in Path(file).parts} for of_one in told]
    assert {file for file in written[0] if not ("checkpoints" in file or file.endswith(".lock"))} == {
        *(f"data/models/mine/gan/{name}" for name in ("generator.safetensors", "history.csv", "model.json")),
        *(f"data/metrics/{name}" for name in SCORED),
        "data/timings/mine/gan.csv",
    }
    assert written[1] == set()


def test_two_processes_score_what_one_scores_byte_for_byte(told: list[dict[str, Any]], work: Path) -> None:
    evaluate(work / "cache", {"gan": work / "model"}, work / "alone", EVALUATION, 1)
    for name in SCORED:
        assert (work / "alone" / name).read_bytes() == (work / "node0" / "data" / "metrics" / name).read_bytes(), name


def test_weights_that_one_process_lacks_are_used_by_none(told: list[dict[str, Any]]) -> None:
    assert told[0]["missing"] == "none on the second machine"


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
