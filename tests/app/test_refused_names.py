"""Paths that the system refuses, and home folders of nobody: one line that names them, from every command."""

from pathlib import Path

import pytest
from commands import error, recolor

from recolor.app import train as training
from recolor.core.errors import UserError
from recolor.core.params import Params
from stages import paths

LONG = "x" * 300
NOBODY = "~nobody-of-this-name"


@pytest.fixture(params=[LONG, "loop", NOBODY])
def name(request: pytest.FixtureRequest, repository: Path) -> str:
    Path("loop").symlink_to("loop")
    return str(request.param)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "NAME"],
        ["colorize", "photo.jpg", "--model", "NAME"],
        ["export", "NAME", "-o", "out"],
        ["average", "mine/gan", "NAME", "-o", "out"],
        ["demo", "--model", "NAME"],
        ["gallery", "NAME"],
    ],
)
def test_what_is_read_is_named_where_it_is_refused(name: str, arguments: list[str]) -> None:
    assert name in error(recolor(*(name if argument == "NAME" else argument for argument in arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["colorize", "photo.jpg", "-o", "NAME"],
        ["colorize", "photo.jpg", "-o", "NAME/out.png"],
        ["export", "mine/gan", "--force", "-o", "NAME"],
        ["export", "mine/gan", "--force", "--onnx", "-o", "NAME"],
        ["average", "mine/gan", "mine/gan", "--force", "-o", "NAME"],
    ],
)
@pytest.mark.parametrize("name", [LONG, "loop"], indirect=True)
def test_what_is_written_is_named_where_it_is_refused(name: str, arguments: list[str]) -> None:
    result = recolor(*(argument.replace("NAME", name) for argument in arguments))
    if name == "loop" and result.exit_code == 0:  # replaced by a file
        assert Path(name).is_file()
        return
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert name in result.stderr


def test_a_photo_of_a_refused_name_fails_alone(name: str) -> None:
    result = recolor("colorize", name, "photo.jpg")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {name}: ")
    assert Path("photo-recolor.jpg").is_file()


AWKWARD = 'dq" \\ \n\t\x1b[1m\u202e \N{GRINNING FACE} \udcff '
SHOWN = 'dq" \\ %0A%09%1B[1m%E2%80%AE \N{GRINNING FACE} %FF '


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "NAME/nowhere"],
        ["colorize", "photo.jpg", "-o", "NAME/photo.jpg"],  # exists already
        ["colorize", "NAME/photo.jpg", "--model", "NAME"],
        ["export", "mine/gan", "-o", "NAME"],
        ["average", "mine/gan", "mine/gan", "-o", "NAME"],
        ["gallery", "NAME"],
    ],
)
def test_an_error_about_any_name_is_one_line(repository: Path, arguments: list[str]) -> None:
    Path(AWKWARD).mkdir()
    Path("photo.jpg").rename(Path(AWKWARD) / "photo.jpg")
    Path("photo.jpg").symlink_to(Path(AWKWARD) / "photo.jpg")
    assert SHOWN in error(recolor(*(argument.replace("NAME", AWKWARD) for argument in arguments)))


def test_characters_that_no_encoding_has_are_shown() -> None:
    assert str(UserError("a \ud800 \udcff")) == "a %ED%A0%80 %FF"  # JSON and Windows' names may hold the first


def test_a_result_of_any_name_is_named(repository: Path) -> None:
    for arguments in (["colorize", "photo.jpg"], ["export", "mine/gan"], ["average", "mine/gan", "mine/gan"]):
        result = recolor(*arguments, "-o", AWKWARD + arguments[0])
        assert result.exit_code == 0, result.output
        assert SHOWN in result.stdout
        assert Path(AWKWARD + arguments[0]).is_dir()


def test_a_folder_whose_name_begins_with_a_tilde_is_trained_on(repository: Path, monkeypatch) -> None:
    Path(NOBODY).mkdir()
    monkeypatch.setattr(training, "_dvc", lambda root, arguments: 0)
    result = recolor("train", NOBODY)
    assert result.exit_code == 0, result.output
    assert Params(paths.PARAMS, "mine").section("data.mine.path", str) == str(repository / NOBODY)


@pytest.mark.parametrize(
    "arguments", [["export", "mine/gan"], ["export", "mine/gan", "--onnx"], ["average", "mine/gan", "mine/gan"]]
)
def test_nothing_is_written_below_a_file(repository: Path, arguments: list[str]) -> None:
    result = recolor(*arguments, "--force", "-o", "photo.jpg/new")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "photo.jpg/new" in result.stderr
