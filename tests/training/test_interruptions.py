"""Stages that are killed and stopped: training continues to the same bytes, and the files of other stages are complete."""

import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import psutil
import pytest
from clone import contents, set_params, stopped_at
from forks import Fork, forked, restore_signals, run_stage
from killed import kill_job
from killer import kill_training
from ruamel.yaml import YAML
from stopped import stop_at
from working_folder import ENVIRONMENT, checkpoints, outputs, running, stage

from recolor.images.folders import walk
from recolor.sources.listing import listing_of, write_listing
from recolor.training.state import RESUMED


def sweep(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.sweep)


@pytest.mark.parametrize(
    ("name", "first", "stride"),  # of the moments to kill at
    [("gan", 4, 9), sweep("gan", 1, 1), sweep("wgan", 1, 2), sweep("l1", 2, 2)],
)
def test_killed_at_any_moment_it_continues_to_the_very_same_bytes(
    name: str, first: int, stride: int, work: Path
) -> None:
    if name == "l1":
        set_params(work, {"paper.pretrain.epochs": 2})
    done = forked(kill_training, name, work, first, stride, cwd=work)
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
            assert RESUMED in (killed / "log").read_text(), point


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
    """killed.py compares the files after each kill, and after the run that follows it."""
    done = forked(kill_job, job, tmp_path, stride, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > points


def test_stopped_it_reports_how_to_continue_and_other_settings_start_afresh(work: Path) -> None:
    set_params(work, {"paper.train.epochs": 100_000, "runtime.checkpoint_minutes": 10})
    steps = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(work) as process:
            process.send_signal(number)
            _, error = process.communicate()
        assert process.returncode == 1
        (line,) = error.splitlines()
        assert all(part in line for part in ("error: ", number.name, "of 100000", "dvc repro")), line
        steps.append(int(error.split("at step ")[1].split(",")[0]))
    assert steps[0] < steps[1]
    assert not outputs(work)

    set_params(work, {"paper.train.epochs": 2, "paper.gan.lr": 0.1})
    other = stage(work)
    assert other.returncode == 0
    assert RESUMED not in other.stdout
    assert len((work / "data/models/mine/gan/history.csv").read_text().splitlines()) == 3
    stopped = {path.name for path in (work / "data/checkpoints").glob("mine-gan-*")}
    assert len(stopped) == 2  # those of an unfinished run stay,
    set_params(work, {"paper.gan.lr": 0.2})
    assert stage(work).returncode == 0
    kept = {path.name for path in (work / "data/checkpoints").glob("mine-gan-*")}
    assert len(kept) == 2  # and those of a finished run with other settings go
    assert len(stopped & kept) == 1


def test_a_second_trainer_is_refused_until_the_stage_has_ended(work: Path) -> None:
    at_the_very_end = partial(stop_at, "open", "finished.part", signal.SIGSTOP)
    with Fork(run_stage, "train mine gan", at_the_very_end, cwd=work) as first:
        first.wait_until_stopped()
        second = stage(work)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert f"process {first.pid} " in second.stderr
        first.send_signal(signal.SIGCONT)
        _, error = first.communicate()
    assert (first.returncode, error) == (0, "")
    assert outputs(work)


def test_in_a_queued_experiment_the_second_trainer_waits_and_ends_with_the_same_bytes(work: Path) -> None:
    experiment = Path(shutil.copytree(work, work / ".dvc/tmp/exps/tmpabc"))
    when_it_writes = partial(stop_at, "os.mkdir", ".gan.unfinished", signal.SIGSTOP)
    with Fork(run_stage, "train mine gan", when_it_writes, cwd=work) as first:
        first.wait_until_stopped()
        with Fork(run_stage, "train mine gan", cwd=experiment) as waiting:
            assert f"process {first.pid} " in waiting.stdout.readline()
            first.send_signal(signal.SIGCONT)
            printed, _ = waiting.communicate()
        first.communicate()
    assert first.returncode == waiting.returncode == 0
    assert f"{RESUMED} 4 " in printed
    assert outputs(experiment) == outputs(work)
    assert checkpoints(work) == ["000000004"]


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
    if event == "import":  # which a fork has done before
        command, pipes = stopped_at(name, event, what, number), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=work, env=ENVIRONMENT, text=True, preexec_fn=restore_signals, **pipes)
    else:
        process = Fork(run_stage, name, partial(stop_at, event, what, number), cwd=work)
    with process:
        _, error = process.communicate()
    (line,) = error.splitlines()
    assert process.returncode == 1
    assert all(part in line for part in ("error: ", number.name, "dvc repro")), line
    left = {name for name in set(contents(work / "data")) - before if not name.endswith(".lock")}
    assert all(name.startswith(("checkpoints/", "live/", "samples/")) for name in left)
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(work)]
