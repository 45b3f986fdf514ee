"""Stages stopped in every way: killed at any moment training loses nothing and goes on to the very same bytes, and what other
stages write is whole."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clone import TINY, contents, set_params, write_photos
from conftest import ROOT

from recolor.cache import CacheParams, build
from recolor.listing import listing_of, walk

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # the current folder comes before it
STRIDE = 1 if os.environ.get("RECOLOR_SLOW") else 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with settings and a cache: what a training stage needs."""
    folder = tmp_path_factory.mktemp("made") / "work"
    photos = write_photos(tmp_path_factory.mktemp("photos"))
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    every_step = {"train.checkpoint_minutes": 1e-9}
    set_params(folder, {**TINY, "data.mine.path": str(photos), "train.batch_size": 7, **every_step})
    cache = CacheParams(size=32, train_fraction=0.85, min_chroma=2)
    build(listing_of(photos, walk(photos)), photos, folder / "data/cache/mine", cache, 42, processes=1)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


def outputs(work: Path) -> dict[str, bytes]:
    return {name: file for name, file in contents(work / "data/models/mine").items() if not name.endswith(".lock")}


def stage(work: Path, name: str = "train_gan", **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"stages.{name}", "mine"]
    return subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


@contextmanager
def running(work: Path, name: str = "train_gan") -> Iterator[subprocess.Popen[str]]:
    """The stage, past its first epoch of many."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{name}", "mine"],
        cwd=work,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        while "epoch" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


# RECOLOR_SLOW=1 takes every point, without it every sixth, the two models not the same ones.
@pytest.mark.parametrize(("name", "first"), [("train_gan", 1), ("train_wgan", min(4, STRIDE))])
def test_killed_at_any_moment_it_goes_on_to_the_very_same_bytes(name: str, first: int, work: Path) -> None:
    killer = [sys.executable, Path(__file__).with_name("killer.py"), name, work, str(first), str(STRIDE)]
    done = subprocess.run(killer, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last > 40
    whole = outputs(Path(f"{work}.0"))
    assert {Path(path).name for path in whole} == {"generator.safetensors", "history.csv", "model.json"}
    for point in range(first, last + 1, STRIDE):
        killed = Path(f"{work}.{point}")
        assert outputs(killed) == whole, point
        assert list((killed / "data/checkpoints").iterdir()) == [], point
        if 7 < point <= last - 7:  # from the first checkpoint on, and until they are removed
            assert "going on from step" in (killed / "log").read_text(), point


@pytest.mark.parametrize(("job", "points"), [("preprocess", 20), ("unpack", 15), ("evaluate", 15), ("report", 50)])
def test_killed_while_it_writes_what_is_there_is_whole_and_the_next_run_ends_right(
    job: str, points: int, tmp_path: Path
) -> None:
    """killed.py looks after each kill, and after the run that follows it."""
    killed = [sys.executable, Path(__file__).with_name("killed.py"), job, tmp_path, str(1 if STRIDE == 1 else 4)]
    done = subprocess.run(killed, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > points


def test_stopped_it_says_how_to_go_on_and_other_settings_start_afresh(work: Path) -> None:
    set_params(work, {"train.epochs": 100_000, "train.checkpoint_minutes": 10})
    with running(work) as first:
        second = stage(work)
        assert (second.returncode, second.stderr) == (
            1,
            f"error: process {first.pid} is training this very model already; wait for it, or stop it\n",
        )
        first.send_signal(signal.SIGTERM)
        _, told = first.communicate(timeout=60)
    assert first.returncode == 1
    assert told.startswith("error: stopped by SIGTERM at step ")
    assert told.endswith(" of 100000; `dvc repro` goes on from there\n")
    assert told.count("\n") == 1
    assert not outputs(work)
    step = int(told.split("at step ")[1].split(",")[0])

    with running(work) as third:
        third.send_signal(signal.SIGINT)
        _, told = third.communicate(timeout=60)
    assert third.returncode == 1
    assert told.startswith("error: stopped by SIGINT at step ")
    assert int(told.split("at step ")[1].split(",")[0]) > step

    set_params(work, {"train.epochs": 2})
    other = stage(work)
    assert other.returncode == 0
    assert "going on" not in other.stdout
    assert len((work / "data/models/mine/gan/history.csv").read_text().splitlines()) == 3


def test_what_is_edited_while_it_runs_fails_it_at_its_end_and_undone_costs_nothing(work: Path) -> None:
    for package in ("recolor", "stages"):
        shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__"))
    edits = {
        "params.yaml": ("epochs: 30", "epochs: 31", "params.yaml: train was changed while this ran; run it again"),
        "recolor/ledger.py": (
            "CHECK_EVERY = 16",
            "CHECK_EVERY = 15",
            "ledger.py was edited while this ran; run it again",
        ),
    }
    for model, (name, (before, after, line)) in zip(("train_gan", "train_wgan"), edits.items(), strict=True):
        set_params(work, {"train.epochs": 30, "train.checkpoint_minutes": 10})
        text = (work / name).read_text()
        assert before in text
        with running(work, model) as process:
            process.send_signal(signal.SIGSTOP)
            (work / name).write_text(text.replace(before, after))
            process.send_signal(signal.SIGCONT)
            printed, told = process.communicate(timeout=120)
        assert "epoch 30:" in printed
        assert (process.returncode, told) == (1, f"error: {line}\n")
        (work / name).write_text(text)
        undone = stage(work, model)
        assert undone.returncode == 0
        assert undone.stdout.endswith("going on from step 60, in epoch 31\n")


def test_a_model_that_does_not_fit_is_a_line_and_there_is_none(work: Path) -> None:
    """Under a limit that any user may set; tests/test_disk.py does the same on a disk that is really full."""
    limit = (20_000, 20_000)
    small = stage(work, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert small.returncode == 1
    assert small.stderr.startswith("error: a checkpoint makes a larger file than may be written there")
    assert small.stderr.count("\n") == 1
    assert not outputs(work)
