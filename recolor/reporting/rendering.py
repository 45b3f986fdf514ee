"""Texts from the Jinja templates beside this module: the report, the model card, the gallery's page."""

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
    """The text of `template`, a file's name, with `values` filled in: escaped in HTML, as they are in Markdown.

    Raises jinja2.UndefinedError for a name in the template that `values` lacks.
    """
    return _environment.get_template(template).render(**values)
