"""Films in `recolor colorize`."""

import importlib.util
from pathlib import Path

import battery
import pytest
from films import moving, read, write_film
from typer.testing import CliRunner, Result

pytest.importorskip("av", reason="the extra `video` is not installed")
pytest.importorskip("cv2", reason="the extra `video` is not installed")

import av

from recolor.app import colorize
from recolor.app.cli import app
from recolor.core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo, a film, a film that is none, and a text."""
    place = tmp_path / "album"
    write_film(place / "sub/film.mp4", moving(10), sound=True)
    battery.picture(0).save(place / "photo.png")
    (place / "broken.mkv").write_bytes(b"nothing")
    (place / "notes.txt").write_text("words")
    return place


def recolor(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["colorize", "--model", str(model), *map(str, arguments)])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_photos_and_films(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = recolor(tiny_model, folder, "-o", out)
    assert result.exit_code == 1
    assert files(out) == {"photo-recolor.png", "sub/film-recolor.mp4"}
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "broken.mkv" in line
    assert result.stdout.splitlines()[-1] == "2 coloured, 1 failed, 1 skipped"

    (folder / "broken.mkv").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert recolor(tiny_model, folder, "-o", out).exit_code == 1
    assert recolor(tiny_model, folder, "-o", out, "--skip-existing").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert recolor(tiny_model, folder, "-o", out, "--force").exit_code == 0
    assert all(path.stat().st_mtime_ns > time for path, time in before.items() if path.suffix == ".mp4")


def test_a_folder_that_is_a_file_is_named_as_such(tiny_model: Path, folder: Path) -> None:
    result = recolor(tiny_model, folder / "sub/film.mp4", "-o", folder / "notes.txt/film.mp4")
    assert result.exit_code == 1
    assert "notes.txt/film.mp4" in result.stderr
    assert "--force" not in result.stderr


def test_a_transport_stream_is_a_film_and_typescript_is_none(tiny_model: Path, tmp_path: Path) -> None:
    write_film(tmp_path / "album/film.ts", moving(10), crf=1)
    (tmp_path / "album/code.ts").write_text("G" + "export const colour = 1;\n" * 40)
    result = recolor(tiny_model, tmp_path / "album", "-o", tmp_path / "out")
    assert result.stdout.splitlines()[-1] == "1 coloured, 1 skipped"
    assert len(list(read(tmp_path / "out/film-recolor.mkv"))) == 10


@pytest.mark.parametrize(
    ("codec", "suffix", "name"),
    [
        ("h264", "mov", "h264"),
        ("h265", "mp4", "hevc"),
        ("av1", "webm", "libdav1d"),
        ("vp9", "webm", "libvpx-vp9"),
        ("ffv1", "mkv", "ffv1"),
    ],
)
def test_codecs(tiny_model: Path, tmp_path: Path, codec: str, suffix: str, name: str) -> None:
    path, target = write_film(tmp_path / "film.mkv", moving(20, (96, 128)), codec="ffv1"), tmp_path / f"new.{suffix}"
    done = recolor(tiny_model, path, "-o", target, "--codec", codec, "--quality", 90)
    assert done.exit_code == 0, done.output
    with av.open(str(target)) as film:
        assert film.streams.video[0].codec_context.codec.canonical_name == av.Codec(name, "r").canonical_name
    assert [round(frame.time * 25) for frame in read(target)] == list(range(20))


def test_what_a_container_cannot_hold_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", moving(10), sound=True)
    done = recolor(tiny_model, path, "-o", tmp_path / "film.webm")
    assert done.exit_code == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "h264" in line
    assert files(tmp_path) == {"film.mp4"}
    done = recolor(tiny_model, path, "-o", tmp_path / "film.webm", "--codec", "vp9")
    assert done.exit_code == 0
    assert "audio" in done.stdout
    with av.open(str(tmp_path / "film.webm")) as film:
        assert not film.streams.audio


@pytest.mark.parametrize("missing", ["av", "cv2"])
def test_without_the_extra_one_line_names_it(
    tiny_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(colorize, "find_spec", lambda name: None if name == missing else find(name))
    done = recolor(tiny_model, folder / "sub", "-o", tmp_path)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "pip install 'recolor[video]'" in line


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("1:01:30.5", 3690.5), (None, None), ("0", 0)])
def test_times(text: str | None, seconds: float | None) -> None:
    assert colorize.seconds("--end", text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:-2", "1:2:3:4", "inf", "nan", "1::2"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(UserError, match="--end"):
        colorize.seconds("--end", text)
