"""`recolor` as people type it.

In this process: a new one would load torch for each call.
"""

from typer.testing import CliRunner, Result

from recolor.app.cli import app


def recolor(*arguments: object) -> Result:
    """Runs a command. Its result has the exit code, what it printed, and the exception that ended it."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error(result: Result) -> str:
    """The one line that a command ended with, without its "error: "."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
