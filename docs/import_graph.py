"""Draws which package imports which into docs/architecture.md: `python docs/import_graph.py`, after an import has changed."""

import re
from pathlib import Path

import grimp
import networkx

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


def package_imports(imports: Edges) -> Edges:
    """Which package imports which."""
    return {(package(above), package(below)) for above, below in imports if package(above) != package(below)}


def diagram(imports: Edges) -> str:
    """Mermaid: an arrow for each package that imports another, unless it follows from two or more others."""
    arrows = networkx.transitive_reduction(networkx.DiGraph(package_imports(imports))).edges
    return "\n".join(
        ["```mermaid", "flowchart TD", *(f"    {above} --> {below}" for above, below in sorted(arrows)), "```", ""]
    )


if __name__ == "__main__":
    DOCUMENT.write_text(BLOCK.sub(diagram(module_imports()), DOCUMENT.read_text()))
