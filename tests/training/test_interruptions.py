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

import psutil
import pytest
from clone import TINY, contents, set_params, stopped_at, write_photos
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.images.folders import walk
from recolor.preprocessing.build import CacheParams, build
from recolor.sources.listing import listing_of, write_listing

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # the current folder comes before it
STRIDES = [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.sweep)]  # of the moments to kill at


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with settings and a cache: what a training stage needs."""
    folder = tmp_path_factory.mktemp("made") / "work"
    photos = write_photos(tmp_path_factory.mktemp("photos"))
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    every_step = {"runtime.checkpoint_minutes": 1e-9}
    set_params(folder, {**TINY, "data.mine.path": str(photos), "paper.train.batch_size": 7, **every_step})
    cache = CacheParams(size=32, train_fraction=0.85, min_chroma=2)
    build(listing_of(photos, walk(photos)), photos, folder / "data/cache/mine", cache, 42, processes=1)
    assert stage(folder, "train mine l1").returncode == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


def checkpoints(work: Path, name: str = "gan") -> list[str]:
    """The steps of the checkpoints that lie there, for each training in turn."""
    return [path.stem for path in sorted((work / "data/checkpoints").glob(f"mine-{name}-*/*.json"))]


def outputs(work: Path, models: tuple[str, ...] = ("gan", "wgan")) -> dict[str, bytes]:
    made = contents(work / "data/models/mine").items()
    return {name: file for name, file in made if not name.endswith(".lock") and name.startswith(models)}


def stage(work: Path, name: str = "train mine gan", **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *f"stages.{name}".split()]
    return subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


@contextmanager
def running(work: Path, name: str = "train mine gan") -> Iterator[subprocess.Popen[str]]:
    """The stage, past its first epoch of many."""
    process = subprocess.Popen(
        [sys.executable, "-m", *f"stages.{name}".split()],
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


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("name", "first"), [("gan", 1), ("wgan", 4), ("l1", 7)])
def test_killed_at_any_moment_it_goes_on_to_the_very_same_bytes(name: str, first: int, stride: int, work: Path) -> None:
    if name == "l1":
        set_params(work, {"paper.pretrain.epochs": 2})
    first = min(first, stride)
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


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("job", "points"), [("preprocess", 15), ("unpack", 15), ("evaluate", 15), ("report", 50)])
def test_killed_while_it_writes_what_is_there_is_whole_and_the_next_run_ends_right(
    job: str, points: int, stride: int, tmp_path: Path
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


def test_stopped_it_says_how_to_go_on_and_other_settings_start_afresh(work: Path) -> None:
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


@pytest.mark.parametrize("at", [".gan.unfinished", "made.part"])  # it writes the model, and comes to the very end
def test_a_second_trainer_is_refused_until_the_stage_has_ended(work: Path, at: str) -> None:
    event = "os.mkdir" if at == ".gan.unfinished" else "open"
    command = stopped_at("train mine gan", event, at, signal.SIGSTOP)
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
        ("train mine gan", "open", "shard-000.npy", signal.SIGINT),
        ("train mine gan", "os.mkdir", ".gan.unfinished", signal.SIGTERM),
        ("download mine", "import", "recolor.sources.fetch", signal.SIGINT),
        ("preprocess mine", "open", "shard-000.npy", signal.SIGTERM),  # workers are at work
        ("preprocess mine", "open", "rejected.csv", signal.SIGINT),
        ("evaluate mine", "import", "torch", signal.SIGHUP),
    ],
)
def test_a_stage_that_is_stopped_says_so_in_one_line_and_leaves_nothing_half(
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


def test_a_damaged_cache_is_not_trained_on(work: Path) -> None:
    with (work / "data/cache/mine/shard-000.npy").open("r+b") as file:
        file.seek(10_000)
        file.write(bytes(6_000))
    damaged = stage(work)
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("error: data/cache/mine, train: the tensor in row ")
    assert damaged.stderr.endswith("; delete the folder and run preprocess again\n")
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
    """Under a limit that any user may set; tests/test_disk.py does the same on a disk that is really full."""
    limit = (20_000, 20_000)
    small = stage(work, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert small.returncode == 1
    assert small.stderr.startswith("error: a checkpoint: ")
    assert small.stderr.count("\n") == 1
    assert not outputs(work)
