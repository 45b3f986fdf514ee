"""Draws which package imports which into docs/architecture.md: `python docs/import_graph.py`, after an import has changed."""

import re
import tomllib
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).parent / "architecture.md"
BLOCK = re.compile(r"(?<=<!-- import graph: docs/import_graph.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
Edges = set[tuple[str, str]]


def package(module: str) -> str:
    """The part of a module's name that is drawn: recolor.models.unet is in `models`, stages.evaluate in `stages`."""
    top, *rest = module.split(".")
    return rest[0] if top == "recolor" and rest else top


def module_imports() -> Edges:
    """Which module of recolor and stages imports which, imports inside functions included."""
    graph = grimp.build_graph("recolor", "stages", cache_dir=None)
    return {(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)}


def reachable(edges: Edges, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        new = {below for above, below in edges if above == here} - found
        found |= new
        waiting += new
    return found


def reduced(edges: Edges) -> Edges:
    """Without the arrows that follow from two or more others (the transitive reduction of a graph without cycles)."""
    return {(above, below) for above, below in edges if below not in reachable(edges - {(above, below)}, above)}


def exceptions() -> Edges:
    """Pairs of packages that the contracts in pyproject.toml still except."""
    contracts = tomllib.loads((DOCUMENT.parent.parent / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    ignored = [pair.split(" -> ") for contract in contracts for pair in contract.get("ignore_imports", [])]
    return {(package(above), package(below)) for above, below in ignored}


def diagram(imports: Edges) -> str:
    """Mermaid: an arrow for each package that imports another, dotted where the contracts except it."""
    edges = {(package(above), package(below)) for above, below in imports if package(above) != package(below)}
    excepted = edges & exceptions()
    arrows = [f"    {above} --> {below}" for above, below in sorted(reduced(edges - excepted))]
    arrows += [f"    {above} -.-> {below}" for above, below in sorted(excepted)]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```", ""])


if __name__ == "__main__":
    DOCUMENT.write_text(BLOCK.sub(diagram(module_imports()), DOCUMENT.read_text()))
