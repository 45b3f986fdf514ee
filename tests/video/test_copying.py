"""What a coloured film has in common with the film that it was made from."""

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from films import BT601, BT709, FULL, LIMITED, luma, moving, packets, read, write_film

from recolor.inference.colorizer import Colorizer
from recolor.inference.options import DEFAULT
from recolor.video.film import predictions
from recolor.video.reading import frames, probe


@pytest.mark.parametrize("matrix", [BT601, BT709])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_luma_matrix_and_range_stay(run: Callable, tmp_path: Path, matrix: int, color_range: int) -> None:
    pictures = moving(20)
    path = write_film(tmp_path / "film.mp4", pictures, matrix=matrix, color_range=color_range)
    for quality, most, mean in ((100, 0, 0), (95, 3, 0.5)):
        coloured = list(read(run(path, quality=quality)))
        differences = np.abs([luma(frame) - picture for frame, picture in zip(coloured, pictures, strict=True)])
        assert differences.max() <= most
        assert differences.mean() <= mean
        assert {(frame.colorspace, frame.color_range) for frame in coloured} == {(matrix, color_range)}
        assert np.abs(coloured[0].to_ndarray()[48:].astype(int) - 128).mean() > 3  # colours


def test_times_that_vary_stay(run: Callable, tmp_path: Path) -> None:
    times = list(accumulate(np.random.default_rng(0).integers(1, 2000, 36).tolist(), initial=0))
    path = write_film(tmp_path / "film.mp4", moving(37), times=times)
    result = run(path)
    assert [frame.time for frame in read(result)] == [frame.time for frame in read(path)]
    with av.open(str(path)) as film, av.open(str(result)) as coloured:
        assert coloured.streams.video[0].frames == 37
        assert coloured.duration == pytest.approx(film.duration, abs=100_000)


def test_sound_subtitles_chapters_and_metadata_are_copied(run: Callable, tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv"):
        more: dict[str, Any] = {
            "subtitles": "words",
            "chapters": [(0, 0.5, "one"), (0.5, 1.4, "two")],
            "title": "A film",
            "cover": suffix == ".mp4",
        }
        path = write_film(tmp_path / f"film{suffix}", moving(37), sound=True, **more)
        result = run(path)
        with av.open(str(result)) as coloured:
            assert len(coloured.streams.video) == 1 + (suffix == ".mp4")
        for kind in ("audio", "subtitle"):
            assert packets(path, kind)
            assert packets(result, kind) == packets(path, kind)
        with av.open(str(path)) as film, av.open(str(result)) as coloured:
            assert coloured.metadata["title"] == "A film"
            assert [tuple(map(chapter.get, ("start", "end", "metadata"))) for chapter in coloured.chapters()] == [
                tuple(map(chapter.get, ("start", "end", "metadata"))) for chapter in film.chapters()
            ]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_the_picture_is_upright_and_its_pixels_have_their_shape(run: Callable, tmp_path: Path, turn: int) -> None:
    pictures = moving(3)
    path = write_film(tmp_path / "film.mp4", pictures, rotation=turn, aspect=Fraction(4, 3))
    assert next(read(path)).rotation % 360 == turn
    result = run(path)
    with av.open(str(result)) as film:
        assert film.streams.video[0].sample_aspect_ratio == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))
    for frame, picture in zip(read(result), pictures, strict=True):
        assert frame.rotation == 0
        np.testing.assert_array_equal(luma(frame), np.rot90(picture, turn // 90))


def test_a_part_has_its_own_frames_and_sound(run: Callable, short_film: Path) -> None:
    part = run(short_film, start=0.4, end=1.0)
    times = [frame.time for frame in read(part)]
    assert times == pytest.approx([number / 25 for number in range(15)])
    np.testing.assert_array_equal(luma(next(read(part))), luma(list(read(short_film))[10]))
    sound = [content for _, content in packets(short_film, "audio")]
    first, *others = packets(part, "audio")
    assert 0 <= first[0] < 0.03
    start = sound.index(first[1])
    assert [first[1]] + [content for _, content in others] == sound[start : start + 1 + len(others)]
    assert 26 <= len(others) + 1 <= 30


def test_a_part_has_the_chapters_within_it(run: Callable, tmp_path: Path) -> None:
    chapters = [(0, 0.4, "one"), (0.4, 0.8, "two"), (0.8, 1.2, "three"), (1.2, 1.4, "four")]
    path = write_film(tmp_path / "film.mkv", moving(37), chapters=chapters)
    with av.open(str(run(path, start=0.6, end=1.0))) as part:
        found = [
            (chapter["metadata"]["title"], *(float(chapter[edge] * chapter["time_base"]) for edge in ("start", "end")))
            for chapter in part.chapters()
        ]
    assert found == [("two", 0, pytest.approx(0.2)), ("three", pytest.approx(0.2), pytest.approx(0.4))]


def test_frames_are_predicted_in_order_and_each_by_itself(colorizer: Colorizer, short_film: Path) -> None:
    film = probe(short_film)
    read = list(frames(film))
    predicted = list(predictions(colorizer, film, DEFAULT, read))
    assert [item.frame.time for item in predicted] == [frame.time for frame in read]
    for item in predicted:
        [alone] = predictions(colorizer, film, DEFAULT, [item.frame])
        torch.testing.assert_close(item.lab, alone.lab)


def test_side_by_side_holds_the_film_and_its_result(run: Callable, short_film: Path) -> None:
    for frame, picture in zip(read(run(short_film, side_by_side=True)), read(short_film), strict=True):
        np.testing.assert_array_equal(luma(frame), np.hstack([luma(picture)] * 2))
        half = frame.to_ndarray()[48:].reshape(2, 24, 64)[..., :32]
        assert (half == 128).all()
