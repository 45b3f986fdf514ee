"""Films that are damaged, odd, or cannot be used: one line, or the right picture."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import BT709, LIMITED, STEP, TIME_BASE, as_frame, luma, moving, read, write_film

from recolor.core.storage import DiskFull
from recolor.images.opening import PhotoError
from recolor.inference.colorizer import Colorizer
from recolor.inference.options import Options
from recolor.video.film import colorize_film
from recolor.video.reading import FilmError, frames, probe
from recolor.video.writing import SegmentEncoder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"not a film" * 100, "not a film"),
        (None, "no such file"),
    ],
)
def test_what_is_no_film_is_reported(run: Callable, tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((FilmError, PhotoError), match=words):
        run(path)


def test_a_film_without_its_index_or_without_pictures_is_reported(
    run: Callable, short_film: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(short_film.read_bytes()[:-2000])  # its index is at the end
    with pytest.raises(FilmError):
        run(cut)
    sound = tmp_path / "sound.mp4"
    with av.open(str(short_film)) as film, av.open(str(sound), "w") as out:
        copy = out.add_stream_from_template(film.streams.audio[0])
        for packet in film.demux(film.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    with pytest.raises(FilmError):
        run(sound)
    with pytest.raises(FilmError):
        run(short_film, start=10)
    assert not list(tmp_path.rglob(".*"))


def test_a_film_that_is_cut_short_is_coloured_as_far_as_it_goes(run: Any, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", moving(37), codec="ffv1")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = run(cut)
    assert 5 < len(list(read(result))) < 37
    assert any("cut short" in note for note in run.notes)


def test_a_film_that_starts_late_is_not_cut_short(run: Any, tmp_path: Path) -> None:
    times = [STEP * (200 + number) for number in range(20)]
    result = run(write_film(tmp_path / "film.mkv", moving(20), codec="ffv1", times=times))
    assert not run.notes
    assert [round(frame.time, 2) for frame in read(result)] == [round(8 + number / 25, 2) for number in range(20)]


def test_odd_sides_get_a_line_more(run: Callable, tmp_path: Path) -> None:
    pictures = moving(5, (45, 63))
    path = write_film(tmp_path / "film.mkv", pictures, codec="ffv1")
    for frame, picture in zip(read(run(path)), pictures, strict=True):
        assert luma(frame).shape == (46, 64)
        np.testing.assert_array_equal(luma(frame)[:45, :63], picture)
    with av.open(str(run(path, side_by_side=True))) as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (128, 46)


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p", "yuv444p", "gray", "gray10le", "yuv420p12le", "yuva420p"])
def test_other_pixel_formats_keep_their_luma(run: Callable, tmp_path: Path, pixels: str) -> None:
    pictures = moving(5)
    path = write_film(tmp_path / "film.mkv", pictures, codec="ffv1", pixels=pixels)
    for frame, picture in zip(read(run(path)), pictures, strict=True):
        assert np.abs(luma(frame) - picture).max() <= 1


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_its_name(run: Callable, tmp_path: Path, transfer: int, name: str) -> None:
    with pytest.raises(FilmError, match=f"{name}.*: ffmpeg .*tonemap"):
        run(write_film(tmp_path / "film.mp4", moving(5), transfer=transfer))


def test_a_size_that_changes_becomes_the_first_one(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:  # H.264 with its header in each key frame
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        for part, (height, width) in enumerate([(48, 64), (96, 128)]):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuv420p", TIME_BASE
            encoder.options = {"crf": "0", "bf": "0"}
            packets = []
            for number, picture in enumerate(moving(10, (height, width))):
                frame = as_frame(picture, "yuv420p")
                frame.pts, frame.time_base = (10 * part + number) * STEP, TIME_BASE
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream, packet.dts = stream, packet.pts
                out.mux(packet)
    assert {frame.width for frame in read(path)} == {64, 128}
    assert [(frame.width, frame.height) for frame in read(run(path))] == [(64, 48)] * 20


def test_a_full_disk_is_reported_and_the_same_command_continues(
    colorizer: Colorizer, tmp_path: Path, small_disk: Path
) -> None:
    noise = np.random.default_rng(0).integers(16, 235, (60, 96, 128), dtype=np.uint8)
    path = write_film(tmp_path / "film.mp4", list(noise), matrix=BT709, color_range=LIMITED)
    with pytest.raises(DiskFull):
        colorize_film(colorizer, path, small_disk / "film.mp4", Options(quality=100))
    assert not (small_disk / "film.mp4").exists()
    assert not list(small_disk.rglob("*.part"))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root's encoder gets real-time priority"
)
def test_av1_leaves_other_programs_their_time(short_film: Path) -> None:
    film = probe(short_film)
    encoder = SegmentEncoder(film, Options(codec="av1"))
    encoder.add(next(frames(film)))
    assert {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()} == {os.SCHED_OTHER}
    encoder.finish()


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="only Linux has it")
def test_a_sandbox_that_forbids_changes_of_priority_is_no_obstacle(
    run: Callable, short_film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert run(short_film).is_file()


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="only Linux has it")
def test_an_encoder_that_cannot_be_opened_leaves_the_priority(
    short_film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies, changed = iter([os.SCHED_OTHER, os.SCHED_RR]), []
    monkeypatch.setattr(os, "sched_getscheduler", lambda thread: next(policies))
    monkeypatch.setattr(os, "sched_setscheduler", lambda thread, policy, priority: changed.append((thread, policy)))
    film = probe(short_film)
    with pytest.raises(av.FFmpegError):
        SegmentEncoder(film._replace(width=0), Options())
    assert changed == [(0, os.SCHED_OTHER)]
