"""The pipeline's own stages on an NVIDIA GPU, as `dvc repro` runs them. Without a GPU every row stays empty."""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from ruamel.yaml import YAML

from benchmarks import ours
from benchmarks.measuring import NO_TIME, Budget, Sizes
from benchmarks.table import Row
from recolor.core.params import RECIPES

ROOT = Path(__file__).parent.parent
EPOCHS = 3  # of each training; the first holds the compilation
PAPERS_EPOCHS = 100
PREPARING = ("download", "preprocess")  # the same for both recipes


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """The steps alone are rows of the part `step`."""
    if torch.cuda.is_available():
        yield from measured(sizes, seconds)
        return
    for recipe in RECIPES:
        yield Row(f"{recipe} recipe on a GPU", "trainings and evaluation", None, "photos/s", note="no NVIDIA GPU here")


def measured(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """Times the stages in a copy of the repository; the paper's COCO run has 85% of 5,000 photos to train on."""
    budget = Budget(seconds, len(RECIPES))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name in ("recolor", "stages"):
            shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        ours.make_photos(work / "photos", sizes.run, (160, 120))
        for recipe in RECIPES:
            if budget.left() <= 0:
                yield Row(f"{recipe} recipe", "trainings and evaluation", None, "photos/s", note=NO_TIME)
                continue
            _write_params(work, recipe, sizes)
            for stage, command in _commands():
                if stage in PREPARING and recipe != RECIPES[0]:
                    continue
                start = time.perf_counter()
                subprocess.run([sys.executable, *command[1:]], cwd=work, check=True, stdout=subprocess.DEVNULL)
                taken = time.perf_counter() - start
                if stage == "preprocess":
                    yield Row(stage, f"{sizes.run:,} photos, start included", sizes.run / taken, "photos/s")
                elif stage == "evaluate":
                    what = f"evaluate, {sizes.run:,} photos without Inception, start included"
                    yield Row(f"{recipe} recipe", what, sizes.run / taken, "photos/s")
                else:
                    yield from _training(work, recipe, stage)


def _training(work: Path, recipe: str, stage: str) -> Iterator[Row]:
    """The speed of a training stage from its timings; nothing for a stage that has none."""
    part = f"{recipe} recipe"
    for path in (work / "data/timings/mine").glob("*.csv"):
        timings = pd.read_csv(path)
        path.unlink()  # seen
        if len(timings) < 2:  # the paper's recipe has no pretraining
            continue
        later = statistics.median(timings["seconds"][1:])
        yield Row(part, f"{stage}, after its first epoch", timings["photos"].iloc[-1] / later, "photos/s")
        if recipe == "paper":
            minutes = (timings["seconds"].iloc[0] + (PAPERS_EPOCHS - 1) * later) / 60
            what = f"so {stage} with {PAPERS_EPOCHS} epochs of {timings['photos'].iloc[-1]:,} photos takes"
            yield Row(part, what, minutes, "minutes")


def _commands() -> list[tuple[str, list[str]]]:
    """The stages that run for a dataset, and `check`, with their commands, in the order of dvc.yaml."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    commands = {name: stage.get("do", stage)["cmd"] for name, stage in stages.items() if name != "report"}
    return [(name, command.replace("${item}", "mine").split()) for name, command in commands.items()]


def _write_params(work: Path, recipe: str, sizes: Sizes) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["datasets"], params["recipe"] = ["mine"], recipe
    params["data"]["size"] = sizes.size
    params["data"]["mine"]["path"] = str(work / "photos")
    params["evaluate"]["inception"] = "off"
    for name in RECIPES:
        sections = params[name]
        sections["train"] |= {"epochs": EPOCHS, "decay_epochs": 0}
        if sections["generator"]["kind"] == "unet":
            sections["generator"] |= {"filters": sizes.filters, "downs": sizes.downs}
        sections["discriminator"]["filters"] = sizes.filters
        if sections.get("pretrain", {}).get("epochs"):
            sections["pretrain"]["epochs"] = EPOCHS
    yaml.dump(params, work / "params.yaml")
