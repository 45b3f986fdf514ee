"""Two processes train what one process trains. The sweeps have them launched by torchrun, as a user would."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from distributed_runs import CPU, EVALUATION, OBJECTIVES, SCORED, STILL, after_batch_norm, train_in
from distributed_worker import work_in
from forks import Fork
from surroundings import ROOT, free_port
from training_runs import AUGMENT, DISCRIMINATOR, GAN, PRETRAIN, settings, stopped_in_step

from benchmarks.ours import make_photos
from recolor.core.errors import UserError
from recolor.evaluation.evaluate import evaluate
from recolor.models.folder import save_generator
from recolor.models.unet import UNetGenerator
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.context import RuntimeParams
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Interrupted, derived_seed
from stages import evaluate as evaluate_stage
from stages import paths
from stages.launching import launch


def write_node(folder: Path, work: Path) -> None:
    """A stage's inputs: settings, a cache and a model to start from, in a folder of each node."""
    sections = {"generator": STILL, "discriminator": DISCRIMINATOR, "augment": AUGMENT, "train": settings(), "gan": GAN}
    sections["pretrain"] = PRETRAIN.model_copy(update={"epochs": 0})
    params = {
        "recipe": "paper",
        "data": {"mine": {}},
        "overrides": {"mine": {}},
        "paper": {name: section.model_dump() for name, section in sections.items()},
        "runtime": CPU.model_dump() | {"processes": 2},
    }
    shutil.copytree(work / "cache", folder / "data" / "cache" / "mine")
    shutil.copytree(work / "model", folder / "data" / "models" / "mine" / "l1")
    (folder / "params.yaml").write_text(json.dumps(params))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, and an untrained model."""
    folder = tmp_path_factory.mktemp("processes")
    listing = make_photos(folder / "photos", 16, (40, 30))
    params = CacheParams(seed=1, size=32, train_fraction=0.75, min_chroma=0)
    build(listing, folder / "photos", folder / "cache", params, processes=1)
    save_generator(folder / "model", UNetGenerator(STILL), {})
    return folder


@pytest.fixture(scope="module")
def seen(work: Path) -> list[dict[str, Any]]:
    """What each of two processes returns (distributed_worker.py)."""
    for rank in (0, 1):
        write_node(work / f"node{rank}", work)
    with pytest.raises(Interrupted):
        train_in(work / "one", OBJECTIVES["gan"], wrap=lambda method: stopped_in_step(3, method))
    port = free_port()
    with Fork(work_in, work, 0, port, cwd=work) as main, Fork(work_in, work, 1, port, cwd=work) as other:
        for process in (other, main):
            _, error = process.communicate()
            assert process.returncode == 0, error
    return [json.loads((work / f"{rank}.json").read_text()) for rank in (0, 1)]


def same_losses(history: list[dict[str, Any]], reference: list[dict[str, Any]]) -> None:
    for row, expected in zip(history, reference, strict=True):
        assert row.keys() == expected.keys()
        for piece, value in expected.items():
            assert row[piece] == (value and pytest.approx(value, rel=1e-4, abs=1e-6)), piece


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(
    name: str, seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = train_in(tmp_path, OBJECTIVES[name])
    same_losses(seen[0][name]["history"], alone.history)
    norms = [tensor.float().norm().item() for tensor in alone.generator.state_dict().values()]
    assert seen[0][name]["norms"] == pytest.approx(norms, rel=1e-3, abs=1e-4)
    assert seen[0][name]["machine"] == "cpu, fp32, 2 processes"


def test_batch_norm_sees_the_whole_batch_and_leaves_its_statistics(seen: list[dict[str, Any]]) -> None:
    alone = after_batch_norm(DistributedContext())
    shares = [of_one["batch norm"] for of_one in seen]
    for name in ("results", "gradients"):
        for number, whole in enumerate(alone.pop(name)):
            parts = torch.cat([torch.tensor(share[name][number]) for share in shares])
            torch.testing.assert_close(parts, torch.tensor(whole), rtol=1e-4, atol=1e-5)
    # 16 values a channel: without Bessel's correction the variance would be 6% less.
    for name, expected in alone.items():
        for share in shares:
            torch.testing.assert_close(torch.tensor(share[name]), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_two_processes_in_bf16_stay_near_one(seen: list[dict[str, Any]], tmp_path: Path) -> None:
    alone, full = (train_in(tmp_path / name, GAN, name).history for name in ("bf16", "fp32"))
    assert seen[0]["bf16"] == seen[1]["bf16"] != seen[0]["gan"]["history"]
    for row, reference, exact in zip(seen[0]["bf16"], alone, full, strict=True):
        for piece in ("critic_loss", "generator_l1"):
            assert row[piece] == pytest.approx(reference[piece], rel=2e-3), piece
            assert row[piece] == pytest.approx(exact[piece], rel=2e-2), piece


@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_processes_end_with_the_same_model(name: str, seen: list[dict[str, Any]]) -> None:
    assert seen[0][name] == seen[1][name]


def test_a_signal_to_one_process_stops_all_and_they_continue_to_the_same_losses(seen: list[dict[str, Any]]) -> None:
    assert all("at step 3, in epoch 1" in of_one["interrupted"] for of_one in seen)
    assert ["SIGTERM" in of_one["interrupted"] for of_one in seen] == [False, True]
    assert seen[0]["resumed"] == seen[1]["resumed"] == seen[0]["gan"]["history"]


def test_two_processes_continue_where_one_was_stopped(seen: list[dict[str, Any]]) -> None:
    assert "step 3 " in seen[0]["log"][0]
    same_losses(seen[0]["from one"], seen[0]["gan"]["history"])


def test_the_newest_checkpoint_is_found_on_whichever_machine_it_is(seen: list[dict[str, Any]]) -> None:
    """The main process had the first disk when it was stopped, and has the second one, which is empty, when it continues."""
    assert seen[0]["moved"] == seen[1]["moved"] == seen[0]["gan"]["history"]


def test_other_settings_on_one_machine_are_refused(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["differs"] == seen[1]["differs"]
    assert seen[0]["differs"].startswith("params.yaml: ")


def test_one_process_writes_the_checkpoints(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["checkpoints"] == seen[1]["checkpoints"] == Checkpoints.KEPT


def test_one_process_writes_the_stages_outputs(seen: list[dict[str, Any]]) -> None:
    written = [{file for file in of_one["written"] if not {"cache", "l1"} & set(Path(file).parts)} for of_one in seen]
    assert {file for file in written[0] if not ("checkpoints" in file or file.endswith(".lock"))} == {
        *(f"data/models/mine/gan/{name}" for name in ("generator.safetensors", "history.csv", "model.json")),
        *(f"data/metrics/{name}" for name in SCORED),
        "data/timings/mine/gan.csv",
        "data/live/mine/gan.csv",
        "data/samples/mine/gan/epoch-002.png",
    }
    assert written[1] == set()


def test_two_processes_score_what_one_scores(seen: list[dict[str, Any]], work: Path) -> None:
    evaluate(work / "cache", {"gan": work / "model"}, work / "alone", EVALUATION, CPU, 1)
    together = work / "node0" / "data" / "metrics"
    for name in set(SCORED) - {"scores.csv"}:
        assert (work / "alone" / name).read_bytes() == (together / name).read_bytes(), name
    # Scores of sets add up features in another order.
    scores = [pd.read_csv(folder / "scores.csv") for folder in (work / "alone", together)]
    pd.testing.assert_frame_equal(*scores, rtol=1e-4)


def test_weights_that_one_process_lacks_are_used_by_none(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["missing"] == "none on the second machine"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have replaced this process."""
    commands: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda program, arguments: commands.append(arguments))
    for name in ("LOCAL_RANK", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # to be restored
        monkeypatch.delenv(name)
    return commands


@pytest.mark.parametrize("words", [("train", "gan"), ("evaluate",)])
def test_the_setting_starts_the_processes_unless_a_launcher_did(
    words: tuple[str, ...], started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(RuntimeParams(), words[0], "mine", *words[1:])
    assert not started
    launch(RuntimeParams(device="cpu", processes=2), words[0], "mine", *words[1:])
    (command,) = started
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert command[3:] == ["--standalone", "--nproc-per-node=2", "-m", f"stages.{words[0]}", "mine", *words[1:]]
    assert os.environ["OMP_NUM_THREADS"] == str(max(1, torch.get_num_threads() // 2))
    monkeypatch.setenv("LOCAL_RANK", "0")
    launch(RuntimeParams(device="cpu", processes=2), words[0], "mine", *words[1:])
    assert len(started) == 1


@pytest.mark.parametrize(("processes", "threads"), [(2, "4"), (3, "2"), (16, "1")])
def test_the_processes_share_the_threads_of_one_unless_the_user_has_set_a_number(
    processes: int, threads: str, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    launch(RuntimeParams(device="cpu", processes=processes), "train", "mine", "gan")
    assert os.environ["OMP_NUM_THREADS"] == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    launch(RuntimeParams(device="cpu", processes=processes), "train", "mine", "gan")
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_there_are_no_more_processes_than_gpus_but_on_cpus(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"runtime\.processes: got 2"):
        launch(RuntimeParams(processes=2), "evaluate", "mine")
    assert not started
    launch(RuntimeParams(device="cpu", processes=2), "train", "mine", "gan")
    assert len(started) == 1


@pytest.mark.sweep
def test_the_stage_with_two_processes_trains_a_model(work: Path) -> None:
    folder = work / "launched"
    write_node(folder, work)
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", "mine", "gan"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr  # torchrun prints it where it sets that itself
    card = json.loads((folder / "data/models/mine/gan/model.json").read_text())
    assert card["machine"] == "cpu, fp32, 2 processes"


def test_the_evaluate_stage_asks_for_its_processes(
    monkeypatch: pytest.MonkeyPatch, params_file: Path, set_param
) -> None:
    set_param("runtime.processes", 2)
    set_param("runtime.device", "cpu")
    started: list[list[str]] = []

    def started_instead(program: str, arguments: list[str]) -> None:
        started.append(arguments)
        raise SystemExit

    monkeypatch.setattr("os.execv", started_instead)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(paths, "PARAMS", params_file)
    with pytest.raises(SystemExit):
        evaluate_stage.main("sample")
    assert started[0][-4:] == ["--nproc-per-node=2", "-m", "stages.evaluate", "sample"]


def test_a_batch_that_the_processes_cannot_share_is_refused(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["odd"] == "train.batch_size: got 3; must be a multiple of the 2 processes"


def test_each_process_draws_its_own_noise_and_the_main_one_what_a_single_process_draws(
    seen: list[dict[str, Any]],
) -> None:
    torch.manual_seed(derived_seed(1, 0))
    assert seen[0]["noise"] == torch.rand(3).tolist()
    assert seen[1]["noise"] != seen[0]["noise"]


def test_shared_batch_norm_keeps_the_activation_that_timms_layers_hold() -> None:
    network = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    photos = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = network(photos)
    DistributedContext(0, 2).sync_batch_norm([network])
    assert not any(type(layer) is torch.nn.BatchNorm2d for layer in network.modules())
    for features, reference in zip(network(photos), before, strict=True):
        torch.testing.assert_close(features, reference, rtol=1e-3, atol=1e-5)
