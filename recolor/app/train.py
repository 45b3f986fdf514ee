"""`recolor train`: writes settings into params.yaml and lets DVC run the pipeline. No path has to be quoted for a parser."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from recolor.app.repository import need_model, need_repository
from recolor.core.errors import UserError, printable
from recolor.core.params import Params, expanded, find_parent
from recolor.core.storage import is_folder, new_file
from stages import paths

DATASET = "mine"
RECIPE = "RECIPE"  # as the first part of a key: the recipe in use


def train(
    photos: Annotated[Path, typer.Argument(help="A folder of colour photos, with all its subfolders.")],
    recipe: Annotated[Literal["paper", "modern"] | None, typer.Option(help="Default: `recipe` in params.yaml.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the adversarial training (train.epochs). Default: params.yaml's.")
    ] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option(min=0, help="Of the L1 training before it (pretrain.epochs). Default: params.yaml's.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="The model that `recolor colorize` uses, such as gan (loss). Default: params.yaml's."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of params.yaml, in full; any number."),
    ] = None,
) -> None:
    """Trains models on your own photos, from any folder: writes the settings into params.yaml and runs `dvc repro`.

    The photos are read where they are; nothing in their folder is changed. All adversarial models are trained. Ctrl-C stops
    after a checkpoint, and the same command continues from there. Needs recolor[pipeline].
    """
    if find_spec("dvc") is None:
        raise UserError("DVC is not installed: pip install 'recolor[pipeline]'")
    root = need_repository()
    folder = expanded(photos).absolute()
    if not is_folder(folder):
        raise UserError(f"{photos}: no such folder; must be a folder of photos")
    options = {
        "datasets": [DATASET],
        f"data.{DATASET}.path": str(folder),
        "recipe": recipe,
        "loss": loss,
        f"{RECIPE}.train.epochs": epochs,
        f"{RECIPE}.pretrain.epochs": pretrain_epochs,
    }
    values = {key: value for key, value in options.items() if value is not None}
    values |= dict(parse_setting(text) for text in setting or [])
    if changed := write_settings(root / paths.PARAMS, values):
        typer.echo("\n".join(way_back(root, changed)))
    run_pipeline(root)
    typer.echo(printable(f"trained: {need_model(None).folder}"))
    typer.echo("`recolor colorize PHOTO` uses it from now on; with `--model vivid` it uses the model of the package")


def parse_setting(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of --set, VALUE as in YAML. Raises UserError for anything else."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UserError(f"--set {text}: must be KEY=VALUE, for example modern.train.batch_size=8")
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        return key, value


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, as params.yaml has it; ruamel's own leaves it empty."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def write_settings(path: Path, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Sets `values`, full key: value, in params.yaml, and returns the old and the new value of each key that changed.

    Where `overrides.mine` has the key, it is set there. Comments and layout stay. Raises UserError, and then leaves the file.
    """
    recipe = str(Params(path, DATASET, values.get("recipe")).recipe)  # ParamsError for a damaged file
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.Representer = _Representer
    tree = yaml.load(path)
    overrides = tree["overrides"][DATASET] or {}
    changed: dict[str, tuple[Any, Any]] = {}
    for name, value in values.items():
        key = name.replace(RECIPE, recipe, 1)
        holder, last = (overrides, key) if key in overrides else (find_parent(tree, key), key.rpartition(".")[2])
        if holder is None:
            raise UserError(f"{path}: {key}: no such setting; name it in full, like paper.train.epochs")
        old = holder[last]
        if old == value:
            continue
        changed[key] = (list(old) if isinstance(old, list) else old, value)
        if isinstance(old, list) and isinstance(value, list):
            old[:] = value  # the list keeps its style: DVC cannot rewrite one in brackets
        else:
            holder[last] = value
    if changed:
        _replace(path, yaml, tree)
    return changed


def _replace(path: Path, yaml: YAML, tree: Any) -> None:
    from stages.settings import check

    with new_file(path, replace=True) as new:
        shutil.copy(path, new)  # with its permissions
        try:
            yaml.dump(tree, new)
            check(new)
        except UnicodeEncodeError:
            raise UserError("params.yaml cannot hold a path that is not UTF-8: rename the folder") from None
        except UserError as error:
            raise UserError(str(error).replace(printable(str(new)), str(path))) from None


def run_pipeline(root: Path) -> None:
    """Lists the photos again, since DVC does not watch their folder, and runs what follows. UserError if a stage fails."""
    for arguments in (["repro", "--force", f"download@{DATASET}"], ["repro"]):
        if status := _dvc(root, arguments):
            raise UserError(
                f"`dvc {' '.join(arguments)}` ended with exit status {status}: mend what the lines above name, if anything; "
                "the same command continues"
            )


def _dvc(root: Path, arguments: list[str]) -> int:
    """Runs DVC in `root`, with this Python for the stages, and passes on Ctrl-C and SIGTERM, for a checkpoint to be written."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment)  # noqa: S603
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal has sent it to DVC and its stage too
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def way_back(root: Path, changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Lines that name what changed in params.yaml and how to undo it."""
    lines = [f"{root / paths.PARAMS}:"]
    lines += [f"  {key}: {_short(old)} -> {_short(new)}" for key, (old, new) in changed.items()]
    return [*lines, f"  to go back: git -C {shlex.quote(str(root.absolute()))} checkout {paths.PARAMS}"]


def _short(value: Any) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
