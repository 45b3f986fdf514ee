"""Trains the models of the grid: as DVC's queued experiments, or with the stages alone."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from docs.study.grid import ARMS, Run, settings
from recolor.core.errors import UserError
from recolor.core.tables import write_table
from recolor.dataset.shards import CachedPhotos, read_table
from recolor.models.folder import weights_sha256
from stages import paths

ROOT = Path(__file__).parents[2]
SETTINGS = "settings.json"  # of a run that has ended
FULL_MANIFEST = "full-manifest.csv"  # of the cache that a smaller one was made from
LEFT_OUT = "left out"  # a split that nobody reads
DRAW = 42  # seed of a smaller cache


def model_folder(study: Path, run: Run) -> Path:
    return study / "runs" / run.name / paths.model(run.dataset, ARMS[run.arm].model)


def timings_file(study: Path, run: Run) -> Path:
    return study / "runs" / run.name / paths.timings(run.dataset, ARMS[run.arm].model)


def add_cache(study: Path, cache: Path, train: int | None, test: int | None) -> Path:
    """The cache that the study trains and measures on: `cache`, or `train` and `test` photos drawn from its splits.

    A smaller one has a manifest of its own, in which the other photos belong to no split, and the shards of `cache`.
    A study has one cache: raises UserError where it has another already.
    """
    out = study / "cache"
    if out.exists():
        if (out / "shard-000.npy").resolve() != (cache / "shard-000.npy").resolve() or any(
            count not in (None, len(CachedPhotos(out, split))) for split, count in (("train", train), ("test", test))
        ):
            raise UserError(f"{out}: holds other photos than asked for; name another --study")
        return out
    study.mkdir(parents=True, exist_ok=True)
    if train is None and test is None:
        out.symlink_to(cache.resolve(), target_is_directory=True)
        return out
    table = read_table(cache / "manifest.csv")
    for split, count in (("train", train), ("test", test)):
        rows = np.flatnonzero(table["split"] == split)
        table.loc[np.random.default_rng(DRAW).permutation(rows)[len(rows) if count is None else count :], "split"] = (
            LEFT_OUT
        )
    out.mkdir()
    for file in cache.resolve().glob("shard-*.npy"):
        (out / file.name).symlink_to(file)
    shutil.copy(cache / "manifest.csv", out / FULL_MANIFEST)
    write_table(table, out / "manifest.csv")
    return out


def add_model(study: Path, run: Run, folder: Path, timings: Path | None = None) -> None:
    """Adds a copy of a model that was trained elsewhere. Raises UserError for another one of the same name."""
    weights_sha256(folder)  # there is a model
    here = model_folder(study, run)
    if not here.exists():
        shutil.copytree(folder, here)
    elif weights_sha256(here) != weights_sha256(folder):
        raise UserError(f"{here}: is another model than {folder}; name another --study")
    if timings is not None:
        timings_file(study, run).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(timings, timings_file(study, run))
    run.write(study / "runs" / run.name)


def run_direct(study: Path, runs: Sequence[Run], params: Path, start: Path, epochs: int | None) -> None:
    """Trains each run in a folder of its own. What is trained already stays; an interrupted training continues."""
    for run in runs:
        changes = settings(run, params, str(start.resolve()), epochs)
        if _finished(study, run, changes):
            continue
        folder = study / "runs" / run.name
        cache = folder / paths.cache(run.dataset)
        cache.parent.mkdir(parents=True, exist_ok=True)
        if not cache.exists():
            cache.symlink_to((study / "cache").resolve(), target_is_directory=True)
        _write_params(params, folder / "params.yaml", changes)
        for model in ("l1", ARMS[run.arm].model):
            print(f"{run.name}: {model}", flush=True)
            command = [sys.executable, "-m", "stages.train", run.dataset, model]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:  # noqa: S603
                raise UserError(f"{run.name}: training {model} failed; the same command continues")
        shutil.rmtree(folder / "data/checkpoints", ignore_errors=True)
        _finish(study, run, changes)


def run_queued(study: Path, runs: Sequence[Run], params: Path, start: Path, epochs: int | None) -> None:
    """Trains the runs as experiments of the repository in the current folder, and copies the models from DVC's cache.

    An experiment that exists already, or is queued, is not queued again: its name ends with a hash of its settings.
    """
    changes = {run: settings(run, params, os.path.relpath(start), epochs) for run in runs}
    missing = {run: _experiment(run, changes[run]) for run in runs if not _finished(study, run, changes[run])}
    known = {*_dvc("exp", "list", "--name-only").split(), *_waiting()}
    for run, name in missing.items():
        if name not in known:
            options = [word for key, value in changes[run].items() for word in ("-S", f"{key}={value}")]
            _dvc("exp", "run", "--queue", "-n", name, *options, f"train_{ARMS[run.arm].model}@{run.dataset}")
    _dvc("exp", "run", "--run-all", show=True)
    made = _dvc("exp", "list", "--name-only").split()
    for run, name in missing.items():
        if name not in made:
            raise UserError(f"{name} has failed: `dvc queue logs {name}` shows why; the same command queues it again")
        for out in (model_folder(study, run), timings_file(study, run)):
            source = out.relative_to(study / "runs" / run.name)
            out.parent.mkdir(parents=True, exist_ok=True)
            _dvc("get", ".", str(source), "--rev", name, "--force", "-o", str(out))
        _finish(study, run, changes[run])


def _experiment(run: Run, changes: dict[str, Any]) -> str:
    return f"study-{run.name}-{hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:6]}"


def _finished(study: Path, run: Run, changes: dict[str, Any]) -> bool:
    """Whether the model is trained. Raises UserError where it was trained with other settings."""
    file = study / "runs" / run.name / SETTINGS
    if not file.exists():
        return False
    if json.loads(file.read_text()) != changes:
        raise UserError(f"{file.parent}: was trained with other settings; delete the folder, or name another --study")
    return True


def _finish(study: Path, run: Run, changes: dict[str, Any]) -> None:
    folder = study / "runs" / run.name
    run.write(folder)
    (folder / SETTINGS).write_text(json.dumps(changes) + "\n")


def _write_params(source: Path, out: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    tree = yaml.load(source)
    for name, value in changes.items():
        *sections, key = name.split(".")
        target = tree
        for section in sections:
            target = target[section]
        target[key] = value
    yaml.dump(tree, out)


def _waiting() -> list[str]:
    """The experiments in DVC's queue that have not ended."""
    lines = (line.split() for line in _dvc("queue", "status").splitlines())
    return [words[1] for words in lines if words and words[-1] in ("Queued", "Running")]


def _dvc(*arguments: str, show: bool = False) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, stdout=None if show else subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments[:2])} failed; see its message above")
    return done.stdout or ""
