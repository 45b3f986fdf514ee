"""Training stages: what continues from a checkpoint, what is refused, and what fails with one line."""

import json
import os
import resource
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

from clone import set_params, stopped_at
from surroundings import ROOT
from working_folder import ENVIRONMENT, outputs, running, stage

from recolor.training.state import RESUMED


def test_settings_of_the_machine_and_more_epochs_continue_from_the_same_step(work: Path) -> None:
    changes = {"precision": "bf16", "compile": False, "checkpoint_minutes": 5, "deterministic": True, "device": "cpu"}
    changes["data_on_device"] = True
    assert stage(work).returncode == 0
    whole = outputs(work)
    set_params(work, {f"runtime.{key}": value for key, value in changes.items()})
    again = stage(work)
    assert again.returncode == 0
    assert f"{RESUMED} 4 " in again.stdout
    assert "epoch 2:" not in again.stdout
    assert {name: file for name, file in outputs(work).items() if "json" not in name} == {
        name: file for name, file in whole.items() if "json" not in name
    }
    set_params(work, {"paper.train.epochs": 3})
    more = stage(work).stdout
    assert f"{RESUMED} 4 " in more
    assert "epoch 3:" in more
    set_params(work, {"paper.train.epochs": 1})
    assert "epoch 1:" not in stage(work).stdout
    assert json.loads((work / "data/models/mine/gan/model.json").read_text())["epochs"] == 3


def test_a_damaged_cache_is_not_trained_on(work: Path) -> None:
    with (work / "data/cache/mine/shard-000.npy").open("r+b") as file:
        file.seek(10_000)
        file.write(bytes(6_000))
    damaged = stage(work)
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("error: data/cache/mine, train: ")
    assert "dvc repro" in damaged.stderr
    assert not outputs(work)


def test_settings_edited_while_it_runs_fail_it_at_its_end_and_undone_cost_nothing(work: Path) -> None:
    set_params(work, {"paper.train.epochs": 30, "runtime.checkpoint_minutes": 10})
    text = (work / "params.yaml").read_text()
    assert "epochs: 30" in text
    with running(work) as process:
        process.send_signal(signal.SIGSTOP)
        (work / "params.yaml").write_text(text.replace("epochs: 30", "epochs: 31"))
        process.send_signal(signal.SIGCONT)
        printed, error = process.communicate()
    assert "epoch 30:" in printed
    assert process.returncode == 1
    assert error.startswith("error: params.yaml: paper.train was changed")
    assert error.count("\n") == 1
    (work / "params.yaml").write_text(text)
    undone = stage(work)
    assert undone.returncode == 0
    assert f"{RESUMED} 60 " in undone.stdout


def test_a_module_edited_while_it_runs_fails_it_at_its_end(work: Path) -> None:
    for package in ("recolor", "stages"):
        shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = stopped_at("download mine", "import", "recolor.sources.fetch", signal.SIGSTOP)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(work)}
    with subprocess.Popen(command, cwd=work, env=environment, stderr=subprocess.PIPE, text=True) as process:
        os.waitpid(process.pid, os.WUNTRACED)
        with (work / "stages/download.py").open("a") as file:
            file.write("# another line\n")
        process.send_signal(signal.SIGCONT)
        error = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert error.startswith("error: download.py was edited")


def test_a_start_that_was_trained_on_other_photos_is_named(work: Path) -> None:
    start = "data/models/mine/l1"
    same = stage(work)
    card = work / start / "model.json"
    content = json.loads(card.read_text())
    content["data"]["manifest_sha256"] = "6" * 64
    card.write_text(json.dumps(content))
    other = stage(work)
    assert [start in run.stdout for run in (same, other)] == [False, True]
    assert same.returncode == other.returncode == 0


def test_a_model_that_does_not_fit_is_a_line_and_there_is_none(work: Path) -> None:
    """Under a limit that any user may set; tests/core/test_storage.py fills a disk."""
    small = stage(work, before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000)))
    assert small.returncode == 1
    assert small.stderr.startswith("error: a checkpoint: ")
    assert small.stderr.count("\n") == 1
    assert not outputs(work)
