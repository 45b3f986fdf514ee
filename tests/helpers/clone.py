"""A repository to run DVC in, with the files of the working tree, tiny models and a folder of tiny photos."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML
from surroundings import ROOT

UNET = {"kind": "unet", "filters": 2, "downs": 5, "dropout": 0.5}
TINY = {
    "datasets": ["mine"],
    "data.size": 32,
    **{f"{recipe}.generator": UNET for recipe in ("paper", "modern")},
    **{f"{recipe}.discriminator": {"filters": 2, "downs": 2, "scale": 1} for recipe in ("paper", "modern")},
    **{f"{recipe}.train.epochs": 2 for recipe in ("paper", "modern")},
    **{f"{recipe}.train.batch_size": 4 for recipe in ("paper", "modern")},
    "paper.wgan.n_critic": 2,
    "evaluate.inception": "off",
    "evaluate.examples": 2,
}


def write_photos(folder: Path) -> Path:
    """Sixteen coloured photos, one of them twice, a grey one, and a text file with the name of a photo."""
    rng = np.random.default_rng(0)
    for number in range(16):
        colours = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    shutil.copy(folder / "03.png", folder / "copy.png")
    Image.fromarray(colours).convert("L").save(folder / "grey.png")
    (folder / "text.jpg").write_text("not a photo")
    return folder


def make_clone(folder: Path, photos: Path) -> Path:
    """A repository with the working tree's files, set to train tiny models on `photos`."""
    tree = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tree.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("docs/", "reports/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    set_params(folder, {**TINY, "data.mine.path": str(photos)})
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Somebody")
    git(folder, "config", "user.email", "somebody@example.com")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=The tiny pipeline")
    return folder


def set_params(folder: Path, values: dict[str, object]) -> None:
    yaml, path = YAML(), folder / "params.yaml"
    tree = yaml.load(path)
    for name, value in values.items():
        *sections, key = name.split(".")
        target = tree
        for section in sections:
            target = target[section]
        target[key] = value
    yaml.dump(tree, path)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def dvc(folder: Path, *arguments: str, fails: bool = False) -> str:
    """What `dvc` printed; the stages' `python` is the one that runs the tests."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert (done.returncode != 0) is fails, printed
    return printed


def stages_run(printed: str) -> list[str]:
    return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]


def stopped_at(command: str, event: str, what: str, number: int) -> list[str]:
    """Runs a stage (such as "train mine gan"), which sends itself a signal at an audit event: stopped.py."""
    script = str(Path(__file__).with_name("stopped.py"))
    return [sys.executable, script, event, what, str(int(number)), *command.split()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
