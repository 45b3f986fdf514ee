"""DVC itself killed, run twice at once, and run from its queue. The tests share a clone and depend on their order."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clone import contents, dvc, environment, git, make_clone, set_params, stages_run, stopped_at, write_photos
from made_up_results import write_results
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.runtime.context import RuntimeParams
from recolor.training.state import RESUMED


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_clone(tmp_path_factory.mktemp("clone"), Path("photos"))  # which git ignores
    (folder / "photos").mkdir()
    write_photos(folder / "photos")
    set_params(folder, {"paper.train.epochs": 100_000})
    return folder


@contextmanager
def repro(clone: Path, until: str, shell: str = "/bin/sh") -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`dvc repro train_gan`, as from a terminal of its own, and its lines up to the first that matches `until`.

    DVC runs a stage through $SHELL: bash replaces itself by it, and the /bin/sh of Debian stays between the two.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train_gan"],
        cwd=clone,
        env={**environment(), "SHELL": shell},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    lines: list[str] = []
    try:
        while not lines or not re.search(until, lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield process, lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def step(line: str) -> int:
    return int(re.findall(r"step (\d+)", line)[0])


def test_a_second_repro_waits_its_turn_and_a_killed_one_continues_from_its_checkpoint(clone: Path) -> None:
    with repro(clone, until="photos/s", shell=shutil.which("bash") or "/bin/sh") as (first, _):
        assert f"(PID {first.pid})" in dvc(clone, "repro", "train_gan", fails=True)
        first.kill()
        rest = first.stdout.read()  # until the trainer, which writes there too, has ended by itself
    (stopped,) = (line for line in rest.splitlines() if line.startswith("error: "))
    assert "SIGTERM" in stopped
    assert not (clone / "data/models/mine/gan").exists()

    with repro(clone, until=RESUMED) as (second, lines):
        assert step(lines[-1]) == step(stopped)
        assert stages_run("".join(lines)) == ["train_gan@mine"]
        os.killpg(second.pid, signal.SIGINT)  # Ctrl-C reaches all that the terminal runs
        printed = second.communicate(timeout=60)[0]
        assert second.returncode != 0
    (stopped_again,) = (line for line in printed.splitlines() if line.startswith("error: "))
    assert "SIGINT" in stopped_again
    assert step(stopped_again) >= step(stopped)
    assert not (clone / "data/models/mine/gan").exists()


@pytest.mark.sweep
def test_a_setting_of_the_runtime_neither_restarts_a_stopped_run_nor_repeats_a_finished_one(clone: Path) -> None:
    before: dict[str, object] = {**RuntimeParams().model_dump(), "device": "cpu", "precision": "fp32", "compile": False}
    changes: dict[str, object] = {
        "device": "auto",
        "precision": "bf16",
        "compile": True,
        "processes": 2,
        "checkpoint_minutes": 5.0,
        "data_on_device": True,
        "deterministic": True,
    }
    assert {name for name, value in before.items() if changes[name] != value} == set(RuntimeParams.model_fields)

    def set_runtime(values: dict[str, object]) -> None:
        set_params(clone, {f"runtime.{name}": value for name, value in values.items()})

    def stopped_after(line: str) -> tuple[str, int]:
        """The first line that has `line`, and the step at which Ctrl-C has stopped training after it."""
        with repro(clone, until=line) as (process, lines):
            os.killpg(process.pid, signal.SIGINT)
            printed = process.communicate(timeout=60)[0]
        return lines[-1], step(next(line for line in printed.splitlines() if line.startswith("error: ")))

    set_runtime(before)
    _, stopped_at = stopped_after("photos/s")
    for name, value in changes.items():
        set_runtime({**before, name: value})
        resumed, stopped_again = stopped_after(f"{RESUMED}|photos/s")
        assert f"{RESUMED} {stopped_at} " in resumed, name
        stopped_at = stopped_again
    set_runtime(before)
    set_params(clone, {"paper.train.epochs": 1})
    assert f"{RESUMED} {stopped_at} " in dvc(clone, "repro", "train_gan")
    set_runtime(changes)
    assert stages_run(dvc(clone, "repro", "train_gan")) == ["check"]
    set_params(clone, {"paper.train.epochs": 100_000})


@pytest.mark.sweep
def test_a_killed_repro_ends_its_stage_through_a_shell_and_a_launcher(clone: Path) -> None:
    set_params(clone, {"runtime.processes": 2})
    with repro(clone, until="photos/s") as (process, _):
        process.kill()
        rest = process.stdout.read()
    assert rest.count("error: stopped by ") == 2


def work_through_queue(clone: Path, look: Callable[[], None]) -> str:
    """Two experiments at a time until none is left, with a `look` now and then; returns the queue's last status.

    DVC's workers may stop while experiments still wait (treeverse/dvc#10562): then they are started again, as a user would.
    """
    for _ in range(200):
        look()
        status = dvc(clone, "queue", "status")
        if "Queued" not in status and "Running" not in status:
            return status
        if "Worker status: 0 active, 0 idle" in status:
            # Workers go on after `queue start` and would hold a pipe open.
            start = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", "2"]
            with (clone.parent / "queue.log").open("a") as log:
                subprocess.run(start, cwd=clone, env=environment(), stdout=log, stderr=log, check=True)
            time.sleep(10)  # they need some seconds to be counted
        time.sleep(3)  # a status costs more than a second of a processor
    raise AssertionError(status)


def recorded(clone: Path, experiment: str, name: str) -> dict[str, Path]:
    """The files of a model that an experiment recorded, in DVC's cache."""
    (ref,) = (
        ref for ref in git(clone, "for-each-ref", "--format=%(refname)").split() if ref.endswith(f"/{experiment}")
    )
    stages = YAML(typ="safe").load(git(clone, "show", f"{ref}:dvc.lock"))["stages"]
    outs = stages[f"train_{name}@mine"]["outs"]
    (folder,) = (out["md5"] for out in outs if out["path"] == f"data/models/mine/{name}")
    cache = clone / ".dvc/cache/files/md5"
    files = json.loads((cache / folder[:2] / folder[2:]).read_text())
    return {file["relpath"]: cache / file["md5"][:2] / file["md5"][2:] for file in files}


@pytest.mark.sweep
def test_queued_experiments_two_at_a_time_share_their_gan_and_all_succeed(clone: Path) -> None:
    set_params(clone, {"paper.train.epochs": 2, "runtime.processes": 1})
    dvc(clone, "repro", "pretrain")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message=Two epochs")
    # Another seed draws other photos, which an experiment finds too: the folder `photos` is the repository's.
    asked = {"slow": ("paper.wgan.lr", 0.00001), "fast": ("paper.wgan.lr", 0.00002), "other": ("data.seed", 7)}
    for name, (key, value) in asked.items():
        dvc(clone, "exp", "run", "--queue", "--name", name, "-S", f"{key}={value}", "train_gan", "train_wgan")
    # The GAN that `slow` and `fast` share is held by another process until both have met there.
    command = stopped_at("train mine gan", "os.mkdir", ".gan.unfinished", signal.SIGSTOP)
    trainer = subprocess.Popen(command, cwd=clone, env={**environment(), "PYTHONPATH": str(clone)})
    os.waitpid(trainer.pid, os.WUNTRACED)
    before = {path for path in (clone / "data").rglob("*") if "checkpoints" not in path.parts}
    line = f"process {trainer.pid} "
    met: set[Path] = set()

    def look() -> None:
        met.update(log for log in (clone / ".dvc/tmp/exps/run").rglob("*.out") if line in log.read_text())
        if len(met) == 2:
            trainer.kill()

    try:
        printed = work_through_queue(clone, look)
    finally:
        trainer.kill()
        trainer.wait()
    assert printed.count("Success") == 3, printed + "".join(dvc(clone, "queue", "logs", name) for name in asked)
    assert len(met) == 2

    models = {name: recorded(clone, name, "wgan") for name in asked}
    assert len({model["generator.safetensors"].read_bytes() for model in models.values()}) == 3
    for name in asked:
        assert len(models[name]["history.csv"].read_text().splitlines()) == 3
    for name in ("slow", "fast"):
        params = json.loads(models[name]["model.json"].read_text())["params"]
        assert params["wgan"]["lr"] == asked[name][1]
    gans = [recorded(clone, name, "gan")["generator.safetensors"].read_bytes() for name in asked]
    assert gans[0] == gans[1] != gans[2]
    assert {path for path in (clone / "data").rglob("*") if "checkpoints" not in path.parts} == before


@pytest.mark.sweep
def test_a_model_that_dvc_could_not_record_is_not_trained_again(clone: Path, small_disk: Path) -> None:
    dvc(clone, "config", "--local", "cache.dir", str(small_disk))
    set_params(clone, {"paper.train.epochs": 3})
    dvc(clone, "repro", "pretrain")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8_000))  # the model's file is larger
    assert "No space left on device" in dvc(clone, "repro", "train_gan", fails=True)
    made = contents(clone / "data/models/mine/gan")
    filler.unlink()
    printed = dvc(clone, "repro", "train_gan")
    assert f"{RESUMED} 9 " in printed
    assert "epoch 1:" not in printed
    assert contents(clone / "data/models/mine/gan") == made


KILLER = """
import os, signal, sys
def audit(event, arguments):
    if event == "os.rename" and str(arguments[1]) == "reports/results.json":
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
"""


@pytest.mark.sweep
def test_a_report_of_which_half_was_replaced_is_not_taken_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are replaced one by one. DVC removes the old ones, and records the new ones when the stage succeeds."""
    work = make_clone(tmp_path / "clone", Path("photos"))
    write_results(work, "mine", inception=False, source={"source": "folder", "path": "photos", "limit": None})
    dvc(work, "repro", "--single-item", "report")
    old = contents(work / "reports")
    set_params(work, {"loss": "wgan"})
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        dvc(work, "repro", "--single-item", "report", fails=True)
    half = contents(work / "reports")
    assert half["metrics.json"] != old["metrics.json"]
    assert "results.json" not in half  # DVC had removed the old ones
    assert stages_run(dvc(work, "repro", "--single-item", "report")) == ["report"]
    new = contents(work / "reports")
    assert json.loads(new["results.json"])["loss"] == "wgan"
    assert new["metrics.json"] == half["metrics.json"]
    assert stages_run(dvc(work, "repro", "--single-item", "report")) == []


def test_what_outlives_a_run_lies_in_the_repository_itself(tmp_path: Path) -> None:
    for below in ("", ".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc"):
        (tmp_path / below).mkdir(parents=True, exist_ok=True)
        code = "from stages import paths; print(paths.CHECKPOINTS.absolute(), paths.DOWNLOADS.absolute())"
        printed = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path / below,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.split() == [str(tmp_path / "data" / name) for name in ("checkpoints", "downloads")]
