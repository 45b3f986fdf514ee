"""Texts from the Jinja templates beside this module: the report, the model card, the gallery's page; Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("recolor.reporting"),  # its folder templates
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """The text of a template with `values` filled in."""
    return _environment.get_template(template).render(**values)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns that hold only numbers are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(not row[i] or row[i][0] in "-0123456789" for row in cells) for i in range(len(header))]
    lines = [header, ["---:" if numbers else "---" for numbers in right], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
