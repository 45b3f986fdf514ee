"""`recolor` as people type it."""

from typer.testing import CliRunner, Result

from recolor.app.cli import app


def recolor(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error(result: Result) -> str:
    """The one line that a command ended with."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
