"""Training stages: what goes on from a checkpoint, what is refused, and what fails with one line."""

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
from clone import set_params
from surroundings import ROOT
from working_folder import outputs, running, stage


def test_settings_of_the_machine_and_more_epochs_go_on_from_the_same_step(work: Path) -> None:
    """Eight trainings with other settings of `runtime`, and each goes on where the one before ended."""
    changes = {"precision": "bf16", "compile": True, "checkpoint_minutes": 5, "deterministic": True, "device": "cpu"}
    changes["data_on_device"] = True
    assert stage(work).returncode == 0
    whole = outputs(work)
    for key, value in changes.items():
        set_params(work, {f"runtime.{key}": value})
        again = stage(work)
        assert (again.returncode, again.stdout) == (0, "going on from step 4, in epoch 3\n"), key
    assert {name: file for name, file in outputs(work).items() if "json" not in name} == {
        name: file for name, file in whole.items() if "json" not in name
    }
    set_params(work, {"paper.train.epochs": 3, "runtime.compile": False, "runtime.processes": 1})
    assert stage(work).stdout.startswith("going on from step 4, in epoch 3\nepoch 3:")
    set_params(work, {"paper.train.epochs": 1})
    assert stage(work).stdout == "going on from step 6, in epoch 4\n"
    assert json.loads((work / "data/models/mine/gan/model.json").read_text())["epochs"] == 3


@pytest.mark.parametrize(
    ("values", "key"),
    [({"paper.train.batch_size": 100}, "train.batch_size"), ({"paper.wgan.n_critic": 5}, "wgan.n_critic")],
)
def test_settings_that_would_train_nothing_are_refused_before_a_model_is_removed(
    values: dict[str, object], key: str, work: Path
) -> None:
    set_params(work, values)
    refused = stage(work, "check_batch_size mine")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: params.yaml: paper.{key}: got ")


def test_a_damaged_cache_is_not_trained_on(work: Path) -> None:
    with (work / "data/cache/mine/shard-000.npy").open("r+b") as file:
        file.seek(10_000)
        file.write(bytes(6_000))
    damaged = stage(work)
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("error: data/cache/mine, train: the tensor in row ")
    assert damaged.stderr.endswith("; `dvc repro` makes it again\n")
    assert not outputs(work)


def test_what_is_edited_while_it_runs_fails_it_at_its_end_and_undone_costs_nothing(work: Path) -> None:
    for package in ("recolor", "stages"):
        shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__"))
    edits = {
        "params.yaml": (
            "epochs: 30",
            "epochs: 31",
            "params.yaml: paper.train was changed while this ran; run it again",
        ),
        "recolor/training/history.py": (
            "READ_EVERY = 16",
            "READ_EVERY = 15",
            "history.py was edited while this ran; run it again",
        ),
    }
    for model, (name, (before, after, line)) in zip(("train mine gan", "train mine wgan"), edits.items(), strict=True):
        set_params(work, {"paper.train.epochs": 30, "runtime.checkpoint_minutes": 10})
        text = (work / name).read_text()
        assert before in text
        with running(work, model) as process:
            process.send_signal(signal.SIGSTOP)
            (work / name).write_text(text.replace(before, after))
            process.send_signal(signal.SIGCONT)
            printed, error = process.communicate(timeout=300)
        assert "epoch 30:" in printed
        assert (process.returncode, error) == (1, f"error: {line}\n")
        (work / name).write_text(text)
        undone = stage(work, model)
        assert undone.returncode == 0
        assert undone.stdout.endswith("going on from step 60, in epoch 31\n")


def test_a_model_that_does_not_fit_is_a_line_and_there_is_none(work: Path) -> None:
    """Under a limit that any user may set; tests/core/test_storage.py fills a disk."""
    limit = (20_000, 20_000)
    small = stage(work, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert small.returncode == 1
    assert small.stderr.startswith("error: a checkpoint: ")
    assert small.stderr.count("\n") == 1
    assert not outputs(work)
