"""The import graph in docs/architecture.md is the real one, and no test file imports another."""

import ast
import runpy

import pytest
from surroundings import ROOT

FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py"))


def test_the_drawn_import_graph_is_the_real_one() -> None:
    script = runpy.run_path(str(ROOT / "docs/import_graph.py"))
    (drawn,) = script["BLOCK"].findall(script["DOCUMENT"].read_text())
    assert drawn == script["diagram"](script["module_imports"]()), "run: python docs/import_graph.py"


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
