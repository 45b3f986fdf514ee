"""dvc.yaml matches the code: a stage's `deps` are the packages that it imports, its `params` the settings that it reads.

DVC follows neither imports nor reads. A module missing from `deps` would leave old results standing after an edit; one too many
would run ten hours of training again for nothing.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from surroundings import ROOT
from typer.testing import CliRunner

from recolor.core.params import COMMON
from recolor.models.objectives import ADVERSARIAL
from recolor.preprocessing.build import CacheParams
from stages import paths
from stages.training import _adversarial, _pretraining

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
DEFINITIONS = {name: stage.get("do", stage) for name, stage in STAGES.items()}


def module_file(name: str) -> Path | None:
    """The file of one of the project's own modules, relative to the root; None for anybody else's."""
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if path.parts[0] in ("recolor", "stages") and (ROOT / candidate).is_file():
            return candidate
    return None


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which this walk does not follow"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_closure(module: str) -> set[str]:
    """Files of the project that run when `module` does, importing inside functions too, its packages' __init__ included."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        for file in filter(None, map(module_file, [name, *parents])):
            if file not in found:
                found.add(file)
                waiting.extend(imported_names(file))
    return {str(file) for file in found}


def settings_read(stage: str) -> set[str]:
    """What the stage's own files ask `Params` for, as dvc.yaml names it.

    A section named by the variable `model` is that of the model in the stage's command, or of every adversarial one.
    """
    files = import_closure(command_module(stage))
    command = DEFINITIONS[stage]["cmd"].split()
    models = command[4:] or list(ADVERSARIAL)
    # A training calls one of two functions.
    other = _adversarial.__name__ if models == ["l1"] else _pretraining.__name__
    names: set[str] = set()
    for file in files:
        if not file.startswith("stages/"):
            continue
        for node in _nodes(ast.parse((ROOT / file).read_text()), without=other):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr == "source":
                names.add("data.${item}")
            elif node.func.attr == "section":
                if isinstance(node.args[0], ast.Name) and node.args[0].id == "model":
                    names |= {f"${{recipe}}.{model}" for model in models if model != "l1"}
                    continue
                assert isinstance(node.args[0], ast.Constant), f"{file}: a setting whose name is not written out"
                name = node.args[0].value
                if name == "data":
                    names |= {f"data.{key}" for key in CacheParams.model_fields}
                elif name != "runtime":  # no result depends on the machine
                    names.add(name if name.split(".")[0] in COMMON else f"${{recipe}}.{name}")
    return names


def _nodes(tree: ast.AST, without: str) -> Iterator[ast.AST]:
    """The nodes of the tree, except those of the function with that name."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.FunctionDef) and node.name == without):
            yield node
            yield from _nodes(node, without)


def command_module(stage: str) -> str:
    words = DEFINITIONS[stage]["cmd"].split()
    assert words[:2] == ["python", "-m"]
    return words[2]


def package(file: str) -> str:
    """The dependency that holds a module: its package's folder, or a module of `stages` by itself."""
    folder = str(Path(file).parent)
    return file if folder in ("stages", "recolor") else folder


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_packages_imported(stage: str) -> None:
    listed = [dep for dep in DEFINITIONS[stage]["deps"] if dep.startswith(("recolor", "stages"))]
    imported = {package(file) for file in import_closure(command_module(stage)) if file != "recolor/__init__.py"}
    assert sorted(listed) == sorted(imported)


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_settings_read(stage: str) -> None:
    if "params.yaml" in DEFINITIONS[stage]["deps"]:
        return  # the whole file is a dependency
    read = settings_read(stage)
    if any(name.startswith(("evaluate", "${recipe}")) for name in read):
        read.add("overrides.${item}")
    if "foreach" not in STAGES[stage]:
        read = {name.split(".")[0] for name in read}  # for every dataset in turn
    assert sorted(DEFINITIONS[stage].get("params", [])) == sorted(read)


def test_the_closure_sees_an_import_inside_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "stages/__init__.py": "",
        "stages/a.py": "def f():\n    from recolor.b import c\n",
        "recolor/__init__.py": "",
        "recolor/b.py": "import os\nfrom recolor import d\n",
        "recolor/d.py": "import recolor.b\n",
        "recolor/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert import_closure("stages.a") == set(files) - {"recolor/unused.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_help_needs_no_heavy_imports(stage: str) -> None:
    import importlib

    import typer

    module = importlib.import_module(command_module(stage))
    app = typer.Typer()
    app.command()(module.main)
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    top_level = {name.split(".")[0] for name in _top_level_imports(Path(module.__file__))}
    assert top_level <= {"stages", "recolor", "typer", "typing"}


def _top_level_imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_the_report_writes_files_for_git() -> None:
    # `cache: false` turns the run-cache off for a stage: training must not lose it.
    for stage, definition in DEFINITIONS.items():
        uncached = [out for out in definition.get("outs", []) if isinstance(out, dict)]
        assert not uncached or stage == "report"


def test_the_headline_is_read_by_the_report_alone() -> None:
    assert [stage for stage, definition in DEFINITIONS.items() if "loss" in definition.get("params", [])] == ["report"]


def test_every_model_is_an_artifact() -> None:
    content = YAML(typ="safe").load(ROOT / "dvc.yaml")
    data = YAML(typ="safe").load(ROOT / "params.yaml")["data"]
    datasets = [name for name, entry in data.items() if isinstance(entry, dict)]
    expected = {f"{dataset}-{model}": str(paths.model(dataset, model)) for dataset in datasets for model in ADVERSARIAL}
    assert {name: artifact["path"] for name, artifact in content["artifacts"].items()} == expected


@pytest.mark.parametrize("model", ADVERSARIAL)
def test_every_objective_has_a_stage_scores_and_a_section_in_each_recipe(model: str) -> None:
    assert DEFINITIONS[f"train_{model}"]["cmd"] == f"python -m stages.train ${{item}} {model}"
    assert f"data/models/${{item}}/{model}" in DEFINITIONS["evaluate"]["deps"]
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert all(model in params[recipe] for recipe in ("paper", "modern"))
