"""Stages that are killed and stopped: training goes on to the same bytes, and the files of other stages are complete."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from clone import contents, set_params, stopped_at
from ruamel.yaml import YAML
from working_folder import ENVIRONMENT, checkpoints, outputs, running, stage

from recolor.images.folders import walk
from recolor.sources.listing import listing_of, write_listing


def sweep(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.sweep)


@pytest.mark.parametrize(
    ("name", "first", "stride"),  # of the moments to kill at
    [("gan", 4, 9), sweep("gan", 1, 1), sweep("wgan", 1, 2), sweep("l1", 2, 2)],
)
def test_killed_at_any_moment_it_goes_on_to_the_very_same_bytes(name: str, first: int, stride: int, work: Path) -> None:
    if name == "l1":
        set_params(work, {"paper.pretrain.epochs": 2})
    killer = [sys.executable, Path(__file__).parents[1] / "helpers" / "killer.py", name, work, str(first), str(stride)]
    done = subprocess.run(killer, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last > 40
    whole = outputs(Path(f"{work}.0"), (name,))
    assert {Path(path).name for path in whole} == {"generator.safetensors", "history.csv", "model.json"}
    for point in range(first, last + 1, stride):
        killed = Path(f"{work}.{point}")
        assert outputs(killed, (name,)) == whole, point
        assert checkpoints(killed, name) == ["000000004"], point  # the last one
        if point > 12:  # from the first checkpoint on
            assert "going on from step" in (killed / "log").read_text(), point


@pytest.mark.parametrize(
    ("job", "stride", "points"),
    [
        *(("preprocess", 9, 15), ("unpack", 9, 15), ("report", 18, 50)),
        *(sweep("preprocess", 1, 15), sweep("unpack", 1, 15), sweep("evaluate", 1, 15), sweep("report", 2, 50)),
    ],
)
def test_killed_while_it_writes_the_outputs_are_complete_and_the_next_run_ends_right(
    job: str, stride: int, points: int, tmp_path: Path
) -> None:
    """killed.py looks after each kill, and after the run that follows it."""
    killed = [
        sys.executable,
        Path(__file__).parents[1] / "helpers" / "killed.py",
        job,
        tmp_path,
        str(stride),
    ]
    done = subprocess.run(killed, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > points


def test_stopped_it_reports_how_to_continue_and_other_settings_start_afresh(work: Path) -> None:
    set_params(work, {"paper.train.epochs": 100_000, "runtime.checkpoint_minutes": 10})
    with running(work) as first:
        second = stage(work)
        assert (second.returncode, second.stderr) == (
            1,
            f"error: process {first.pid} is training this very model already; wait for it, or stop it\n",
        )
        first.send_signal(signal.SIGTERM)
        _, error = first.communicate(timeout=300)
    assert first.returncode == 1
    assert error.startswith("error: stopped by SIGTERM at step ")
    assert error.endswith(" of 100000; `dvc repro` goes on from there\n")
    assert error.count("\n") == 1
    assert not outputs(work)
    step = int(error.split("at step ")[1].split(",")[0])

    with running(work) as third:
        third.send_signal(signal.SIGINT)
        _, error = third.communicate(timeout=300)
    assert third.returncode == 1
    assert error.startswith("error: stopped by SIGINT at step ")
    assert int(error.split("at step ")[1].split(",")[0]) > step

    set_params(work, {"paper.train.epochs": 2, "paper.gan.lr": 0.1})
    other = stage(work)
    assert other.returncode == 0
    assert "going on" not in other.stdout
    assert len((work / "data/models/mine/gan/history.csv").read_text().splitlines()) == 3
    stopped = {path.name for path in (work / "data/checkpoints").glob("mine-gan-*")}
    assert len(stopped) == 2  # what a run has not ended with stays,
    set_params(work, {"paper.gan.lr": 0.2})
    assert stage(work).returncode == 0
    kept = {path.name for path in (work / "data/checkpoints").glob("mine-gan-*")}
    assert len(kept) == 2  # and what one of other settings has ended with goes
    assert len(stopped & kept) == 1


def test_a_second_trainer_is_refused_until_the_stage_has_ended(work: Path) -> None:
    command = stopped_at("train mine gan", "open", "made.part", signal.SIGSTOP)  # at the very end
    first = subprocess.Popen(command, cwd=work, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        second = stage(work)
        line = f"error: process {first.pid} is training this very model already; wait for it, or stop it\n"
        assert (second.returncode, second.stderr) == (1, line)
    finally:
        first.send_signal(signal.SIGCONT)
        _, error = first.communicate(timeout=300)
    assert (first.returncode, error) == (0, b"")
    assert outputs(work)


def test_in_a_queued_experiment_the_second_trainer_waits_and_ends_with_the_same_bytes(work: Path) -> None:
    experiment = Path(shutil.copytree(work, work / ".dvc/tmp/exps/tmpabc"))
    command = stopped_at("train mine gan", "os.mkdir", ".gan.unfinished", signal.SIGSTOP)
    first = subprocess.Popen(command, cwd=work, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    os.waitpid(first.pid, os.WUNTRACED)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "mine", "gan"],
        cwd=experiment,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiting.stdout is not None
        line = waiting.stdout.readline()
        assert line == f"process {first.pid} is training this very model already: waiting for it to end\n"
    finally:
        first.send_signal(signal.SIGCONT)
        printed, _ = waiting.communicate(timeout=300)
    assert first.wait(timeout=300) == waiting.returncode == 0
    assert printed.endswith("going on from step 4, in epoch 3\n")
    assert outputs(experiment) == outputs(work)
    assert checkpoints(work) == ["000000004"]


def _heed_signals() -> None:
    """As from a terminal: a shell's background job ignores Ctrl-C, and what nohup has started a hangup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("name", "event", "what", "number"),
    [
        ("train mine gan", "import", "torch", signal.SIGTERM),
        sweep("train mine gan", "open", "shard-000.npy", signal.SIGINT),
        ("train mine gan", "os.mkdir", ".gan.unfinished", signal.SIGINT),
        ("download mine", "import", "recolor.sources.fetch", signal.SIGHUP),
        ("preprocess mine", "open", "shard-000.npy", signal.SIGTERM),  # workers are at work
        sweep("preprocess mine", "open", "rejected.csv", signal.SIGINT),
        sweep("evaluate mine", "import", "torch", signal.SIGHUP),
    ],
)
def test_a_stage_that_is_stopped_reports_it_in_one_line_and_leaves_no_partial_output(
    work: Path, name: str, event: str, what: str, number: signal.Signals
) -> None:
    photos = Path(YAML(typ="safe").load(work / "params.yaml")["data"]["mine"]["path"])
    (work / "data/raw/mine").mkdir(parents=True)
    write_listing(listing_of(photos, walk(photos)), work / "data/raw/mine/listing.csv")
    before = set(contents(work / "data"))
    with subprocess.Popen(
        stopped_at(name, event, what, number),
        cwd=work,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    ) as process:
        _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (1, f"error: stopped by {number.name}; `dvc repro` goes on\n")
    left = {name for name in set(contents(work / "data")) - before if not name.endswith(".lock")}
    assert all(name.startswith(("checkpoints/", "live/", "samples/")) for name in left)
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(work)]
