"""The imports are those that docs/architecture.md draws and docstrings name, and no test file imports another."""

import ast
import re
import runpy

import pytest
from surroundings import ROOT

GRAPH = runpy.run_path(str(ROOT / "docs/import_graph.py"))
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py"))


def test_the_drawn_import_graph_is_the_real_one() -> None:
    (drawn,) = GRAPH["BLOCK"].findall(GRAPH["DOCUMENT"].read_text())
    assert drawn == GRAPH["diagram"](GRAPH["module_imports"]()), "run: python docs/import_graph.py"


def test_a_packages_docstring_names_the_packages_that_it_imports() -> None:
    imports = GRAPH["package_imports"](GRAPH["module_imports"]())
    bound = {(above, below) for above, below in imports if above not in ("__main__", "app", "stages")}
    named = set()
    for file in (ROOT / "recolor").glob("*/__init__.py"):
        for others in re.findall(
            r"May import (?!everything)(.+?)\.", ast.get_docstring(ast.parse(file.read_text())) or ""
        ):
            named |= {(file.parent.name, other) for other in re.split(", | and ", others)}
    assert named == bound


@pytest.mark.parametrize("file", FILES)
def test_no_test_file_imports_another(file: str) -> None:
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    imported = {name for name in names if name.split(".")[-1].startswith("test_")}
    assert not imported
