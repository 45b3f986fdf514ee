"""`recolor train`: any folder's name reaches params.yaml unharmed, and DVC runs where the repository is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import recolor
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.app import train as training
from recolor.core.errors import UserError
from recolor.core.params import Params, ParamsError

ODD_NAMES = [
    "Fotos für Änne",
    "R&B (1999)",
    "it's",
    'a "b"',
    "k=v, w",
    "~tilde",
    "#1: x",
    "- a",
    "1e5",
    "${HOME}",
    "日本",
]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, list[str]]]:
    """What DVC is asked for, and where; it does nothing."""
    asked: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr(training, "_dvc", lambda root, arguments: asked.append((root.resolve(), arguments)) or 0)
    return asked


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_any_name_is_trained_on(repository: Path, runs: list, name: str) -> None:
    (repository / "pictures" / name).mkdir(parents=True)
    result = recolor("train", f"pictures/{name}")
    assert result.exit_code == 0, result.output
    params = Params(repository / "params.yaml", "mine")
    assert params.section("data.mine.path", str) == str(repository / "pictures" / name)
    assert params.section("datasets", list[str]) == ["mine"]
    assert runs == [(repository, ["repro", "--force", "download@mine"]), (repository, ["repro"])]


def test_options_are_settings_of_the_recipe_in_use(repository: Path, runs: list, monkeypatch) -> None:
    (repository / "photos").mkdir()
    (repository / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    options = [
        "--recipe",
        "modern",
        "--epochs",
        7,
        "--pretrain-epochs",
        2,
        "--loss",
        "wgan",
        "--set",
        "evaluate.inception=off",
    ]
    result = recolor("train", "../photos", *options)
    assert result.exit_code == 0, result.output
    tree = YAML(typ="safe").load(repository / "params.yaml")
    assert (tree["recipe"], tree["loss"], tree["evaluate"]["inception"]) == ("modern", "wgan", "off")
    assert (tree["modern"]["train"]["epochs"], tree["modern"]["pretrain"]["epochs"]) == (7, 2)
    assert tree["paper"]["train"]["epochs"] == YAML(typ="safe").load(ROOT / "params.yaml")["paper"]["train"]["epochs"]
    assert Path(tree["data"]["mine"]["path"]).samefile(repository / "photos")


def test_the_advised_way_back_works(repository: Path, runs: list, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], check=True)
    before = (repository / "params.yaml").read_text()
    (repository / "photos").mkdir()
    monkeypatch.chdir("photos")
    [advice] = [line for line in recolor("train", ".", "--epochs", 7).stdout.splitlines() if "to go back: " in line]
    assert (repository / "params.yaml").read_text() != before
    subprocess.run(advice.partition("to go back: ")[2], shell=True, check=True)
    assert (repository / "params.yaml").read_text() == before


def test_an_override_is_set_where_it_wins(params_file: Path, set_param) -> None:
    set_param("overrides.mine", {"paper.train.epochs": 3})
    assert training.write_settings(params_file, {"RECIPE.train.epochs": 5}) == {"paper.train.epochs": (3, 5)}
    assert Params(params_file, "mine").section("train.epochs", int) == 5


def test_only_what_changes_is_written(params_file: Path) -> None:
    before = params_file.read_text()
    changed = training.write_settings(params_file, {"datasets": ["mine"], "loss": "gan", "data.mine.path": "a: b"})
    assert set(changed) == {"datasets", "data.mine.path"}
    lines = [(old, new) for old, new in zip(before.splitlines(), params_file.read_text().splitlines(), strict=True)]
    assert [new for old, new in lines if old != new] == ["- mine", "    path: 'a: b'"]
    assert training.write_settings(params_file, {"datasets": ["mine"]}) == {}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("paper.train.epoch=3", "paper.train.epoch"),
        ("paper.train.epochs=0", "paper.train.epochs"),
        ("paper.train.epochs=many", "paper.train.epochs"),
        ("paper.train.epochs", "--set"),
    ],
)
def test_a_wrong_setting_changes_nothing(repository: Path, runs: list, setting: str, key: str) -> None:
    (repository / "photos").mkdir()
    before = (repository / "params.yaml").read_text()
    result = recolor("train", "photos", "--set", setting)
    assert (result.exit_code, runs) == (1, [])
    [line] = result.stderr.splitlines()
    assert key in line
    assert ".recolor-" not in line
    assert (repository / "params.yaml").read_text() == before
    assert not list(repository.glob(".recolor-*"))


@pytest.mark.parametrize("content", ["", "a", "recipe: [", "loss: gan"])
@pytest.mark.parametrize("recipe", [{"recipe": "modern"}, {}])
def test_a_damaged_file_is_an_error_and_stays(params_file: Path, content: str, recipe: dict[str, str]) -> None:
    params_file.write_text(content)
    with pytest.raises(ParamsError):
        training.write_settings(params_file, {"RECIPE.train.epochs": 3, **recipe})
    assert params_file.read_text() == content


@pytest.mark.parametrize(("name", "value"), [("overrides", ["mine"]), ("overrides.mine", 3), ("data", None)])
def test_damaged_overrides_are_an_error(params_file: Path, set_param: Callable, name: str, value: object) -> None:
    set_param(name, value)
    with pytest.raises(ParamsError, match=name):
        training.write_settings(params_file, {"RECIPE.train.epochs": 3})


def test_a_file_keeps_its_permissions(params_file: Path) -> None:
    params_file.chmod(0o640)
    training.write_settings(params_file, {"datasets": ["mine"]})
    assert params_file.stat().st_mode & 0o777 == 0o640


def test_no_folder_is_an_error_before_anything_is_written(repository: Path, runs: list) -> None:
    result = recolor("train", "nowhere")
    assert (result.exit_code, runs) == (1, [])
    assert "nowhere" in result.stderr


def test_dvc_runs_in_the_repository_with_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    class Process(subprocess.Popen):
        def __init__(self, command: list[str], **settings: object) -> None:
            seen.update(command=command, **settings)
            super().__init__([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(UserError, match="3"):
        training.run_pipeline(tmp_path)
    assert seen["command"] == [sys.executable, "-m", "dvc", "repro", "--force", "download@mine"]
    assert seen["cwd"] == tmp_path
    assert seen["env"]["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
