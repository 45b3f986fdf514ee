"""`python -m recolor`: the command `recolor`."""

from recolor.app.cli import app

app(prog_name="recolor")
