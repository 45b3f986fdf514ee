"""A film that was stopped continues, with the same result."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from films import moving, write_film
from surroundings import ROOT
from typer.testing import CliRunner

from recolor.app.cli import app
from recolor.app.colorize import INTERRUPTED
from recolor.inference.colorizer import BATCH, Colorizer
from recolor.inference.options import Options
from recolor.inference.plan import plan
from recolor.video import film
from recolor.video.film import colorize_film

# `recolor colorize` in segments of 16 frames, after each of which it waits.
# Waits for a signal after WAIT_AFTER segments.
WAITING = """
import os, signal, time
from recolor.app.cli import app
from recolor.video import film
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
film.SEGMENT = 16
add, left = film.Segments.add, int(os.environ["WAIT_AFTER"])
def wait(*arguments):
    global left
    add(*arguments)
    left -= 1
    if not left:
        time.sleep(600)
film.Segments.add = wait
app()
"""


class Stopped(Exception):
    pass


@pytest.mark.parametrize("frames", [3, 16, 20, 36])
def test_it_continues_after_the_last_complete_segment(
    run: Callable, colorizer: Colorizer, short_film: Path, tmp_path: Path, frames: int
) -> None:
    whole = run(short_film, "whole.mp4").read_bytes()
    begun: list[int] = []

    def stopping(done: int, total: int) -> None:
        if done == frames:
            raise Stopped

    target, settings = tmp_path / "stopped.mp4", Options(quality=100)
    with pytest.raises(Stopped):
        colorize_film(colorizer, short_film, target, settings, progress=stopping)
    assert not target.exists()
    colorize_film(colorizer, short_film, target, settings, progress=lambda done, total: begun.append(done))
    assert begun[0] == frames // 16 * 16 - (16 if frames == 16 else 0)  # stopped before the segment was written
    assert target.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"film.mp4", "whole.mp4", "stopped.mp4"}


@pytest.mark.parametrize(
    ("name", "harm", "begun"),
    [
        ("000000.npz", lambda content: content[:100], 0),
        ("000001.npz", lambda content: content.replace(b"PK\1\2", b"PK\0\2"), 16),
        ("000001.npz", lambda content: None, 16),
        ("key", lambda content: b"\xff" + content[1:], 0),
    ],
    ids=["cut", "damaged", "missing", "key"],
)
def test_damaged_segments_are_made_again(
    run: Callable, colorizer: Colorizer, short_film: Path, tmp_path: Path, name: str, harm: Callable, begun: int
) -> None:
    def stopped(*arguments: object) -> None:
        raise Stopped

    whole = run(short_film, "whole.mp4").read_bytes()
    target, settings, reached = tmp_path / "stopped.mp4", Options(quality=100), list[int]()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(film, "assemble", stopped)
        colorize_film(colorizer, short_film, target, settings)
    file = tmp_path / ".stopped.mp4.unfinished" / name
    content = harm(file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    colorize_film(colorizer, short_film, target, settings, progress=lambda done, total: reached.append(done))
    assert reached[0] == begun
    assert target.read_bytes() == whole


def test_other_settings_start_afresh(
    run: Callable, colorizer: Colorizer, short_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object) -> None:
        raise Stopped

    target = tmp_path / "stopped.mp4"
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(film, "assemble", stopped)
        colorize_film(colorizer, short_film, target, Options(quality=100))
    weaker = run(short_film, "weaker.mp4", strength=0.5).read_bytes()
    assert run(short_film, "stopped.mp4", strength=0.5).read_bytes() == weaker


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [*((library, "__version__", "0") for library in (av, cv2, torch)), (film, "PACKAGE", film.PACKAGE / "video")],
    ids=["av", "cv2", "torch", "recolor"],
)
def test_other_code_starts_afresh(
    colorizer: Colorizer,
    short_film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    value: Any,
) -> None:
    def stopping(done: int, total: int) -> None:
        begun.append(done)
        if done > begun[0]:
            raise Stopped

    monkeypatch.setattr(film, "assemble", lambda *arguments: stopping(1, 0))
    begun = [0]
    with pytest.raises(Stopped):
        colorize_film(colorizer, short_film, tmp_path / "stopped.mp4")
    monkeypatch.setattr(module, name, value)
    begun = []
    with pytest.raises(Stopped):
        colorize_film(colorizer, short_film, tmp_path / "stopped.mp4", progress=stopping)
    assert begun[0] == 0


def test_a_killed_run_continues(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_film(tmp_path / "film.mp4", moving(60), sound=True)
    arguments = ["colorize", str(source), "--model", str(tiny_model), "-o"]
    waiting = [sys.executable, "-c", WAITING, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(
        [*waiting, str(tmp_path / "killed.mp4")], env={**environment, "WAIT_AFTER": "2"}, stderr=subprocess.PIPE
    )
    segments = tmp_path / ".killed.mp4.unfinished"
    while len(list(segments.glob("*.npz"))) < 2:
        assert killed.poll() is None, killed.stderr and killed.stderr.read()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    before = {path: path.stat().st_mtime_ns for path in segments.glob("*.npz")}
    assert not (tmp_path / "killed.mp4").exists()

    interrupted = subprocess.Popen(
        [*waiting, str(tmp_path / "killed.mp4")],
        env={**environment, "WAIT_AFTER": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(segments.glob("*.npz"))) < 3:
        assert interrupted.poll() is None
        time.sleep(0.05)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    interrupted.send_signal(signal.SIGINT)
    _, words = interrupted.communicate()
    assert interrupted.returncode == INTERRUPTED
    [line] = words.splitlines()
    assert "48 of 60 frames" in line

    monkeypatch.setattr(film, "SEGMENT", 16)
    for name in ("killed", "whole"):
        assert CliRunner().invoke(app, [*arguments, str(tmp_path / f"{name}.mp4")]).exit_code == 0
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_result_that_exists_is_kept_or_skipped(run: Callable, colorizer: Colorizer, short_film: Path) -> None:
    result = run(short_film)
    [job] = plan([short_film])
    assert (job.target, bool(job.problem), job.skipped) == (result, True, False)
    assert plan([short_film], skip_existing=True)[0].skipped
    result.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        colorize_film(colorizer, short_film, result, Options())
    assert result.read_bytes() == b"mine"


def test_colours_are_carried_over_the_border_of_segments(run: Callable, short_film: Path) -> None:
    from films import read

    chroma = [frame.to_ndarray()[48:].astype(int) for frame in read(run(short_film))]
    alone = [frame.to_ndarray()[48:].astype(int) for frame in read(run(short_film, "alone.mp4", steady=0))]
    changes = [np.abs(np.diff(np.stack(frames), axis=0)).mean((1, 2)) for frames in (chroma, alone)]
    assert changes[0][15] < 2 * np.median(changes[0])
    assert changes[0][5:].mean() < 0.7 * changes[1][5:].mean()


def test_frames_are_read_as_they_are_needed(
    colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "film.mp4", moving(300, (16, 16)))
    frames, read, waiting = film.frames, [0], [0]

    def counted(*arguments: object) -> Iterator[object]:
        for frame in frames(*arguments):
            read[0] += 1
            yield frame

    monkeypatch.setattr(film, "frames", counted)
    colorize_film(
        colorizer, path, tmp_path / "new.mp4", Options(), progress=lambda done, _: waiting.append(read[0] - done)
    )
    assert read == [300]
    assert max(waiting) <= 3 * 2 * BATCH + 3 * (torch.get_num_threads() + 2)
