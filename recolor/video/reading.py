"""What a film's file holds, and its frames: planes of 4:2:0 in 8 bits, the right way up, with their times."""

import math
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from recolor.core.errors import UserError
from recolor.images.opening import open_file

Plane = NDArray[np.uint8]
Time = Fraction | float  # seconds; infinite for none

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
BT709, BT601, BT2020 = 1, 6, 9  # AVCOL_SPC_*: the matrices that H.273 numbers; 5 is BT.601's as well
HD = 720  # lines from which on players use BT.709's matrix where none is named
TO_SDR = (
    "ffmpeg -i FILM -vf zscale=t=linear:npl=100,tonemap=hable,zscale=p=bt709:t=bt709:m=bt709:r=tv,format=yuv420p "
    "-c:a copy SDR.mp4"
)
HDR = {16: "PQ, HDR10 or Dolby Vision", 18: "HLG"}  # AVCOL_TRC_*


class FilmError(UserError):
    """Why a file cannot be coloured as a film, in a few words."""


class Film(NamedTuple):
    """What the result has in common with the film. Sides in pixels, upright; times in units of `time_base` seconds.

    `matrix`, `range`, `primaries`, `transfer`: FFmpeg's numbers AVCOL_SPC_*, _RANGE_*, _PRI_* and _TRC_*.
    """

    path: Path
    width: int
    height: int
    time_base: Fraction
    rate: Fraction  # frames a second, on average
    start: int  # of the first frame
    seconds: float  # of the film by the file's header; 0 where it has no length
    turns: int  # quarter turns counter-clockwise that bring the stored picture upright
    aspect: Fraction  # of a pixel, upright
    matrix: int
    range: int
    primaries: int
    transfer: int
    notes: tuple[str, ...] = ()

    def time(self, seconds: float) -> Fraction:
        """The file's time, in seconds, that lies `seconds` after the first frame: exact, since 0.4 means 2/5."""
        return self.start * self.time_base + Fraction(seconds).limit_denominator(1_000_000)


class Frame(NamedTuple):
    """A picture of a film or of a result: Y (H, W), and U and V at half of its sides, rounded up."""

    time: int
    duration: int
    planes: tuple[Plane, Plane, Plane]


def open_film(path: Path) -> Any:
    """PyAV's container of the file. Raises FilmError for what FFmpeg cannot read; reads no other file and no network."""
    with open_file(path, sys.maxsize):  # a regular file, not empty
        pass
    try:
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.FFmpegError as error:
        raise FilmError(f"damaged, or not a film of a supported format: {error.strerror or error}") from error


def picture_stream(container: Any) -> Any:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not is_cover(stream):
            return stream
    raise FilmError("no pictures in this file: it has no video stream")


def is_cover(stream: Any) -> bool:
    """Whether a stream is one picture, shown for the file in lists."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def probe(path: Path) -> Film:
    """What `path` holds, by its header and its first frame. Raises FilmError where there is no frame, and for HDR."""
    with open_film(path) as container:
        stream = picture_stream(container)
        if stream.codec_context is None:
            raise FilmError("its video codec is not known to this FFmpeg")
        first = next(_decoded(container, stream), None)
        if first is None:
            raise FilmError("none of its frames can be decoded: copy the film again, or convert it with ffmpeg")
        if first.color_trc in HDR:
            raise FilmError(f"HDR ({HDR[first.color_trc]}) is not supported: convert it to SDR first: {TO_SDR}")
        turns, width, height = round(first.rotation / 90) % 4, first.width, first.height
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        if turns % 2:
            width, height, aspect = height, width, 1 / aspect
        rgb = first.format.is_rgb or first.format.has_palette
        full = first.format.name.startswith(("yuvj", "gray")) and not first.color_range
        notes = (
            ["the result has 8 bits a channel, the film more"]
            if max(part.bits for part in first.format.components) > 8
            else []
        )
        if sum(not is_cover(other) for other in container.streams.video) > 1:
            notes.append("the first of several video streams")
        if first.interlaced_frame:
            notes.append("interlaced, written as progressive")
        start = first.pts or 0
        matrix = BT709 if rgb or first.height >= HD else BT601  # what players use where none is named
        if not rgb and first.colorspace in (BT709, BT601, 5, BT2020):
            matrix = first.colorspace
        return Film(
            path=path,
            width=width,
            height=height,
            time_base=stream.time_base,
            rate=stream.guessed_rate or stream.average_rate or Fraction(25),
            start=start,
            seconds=_seconds(container, stream, start * stream.time_base),
            turns=turns,
            aspect=aspect,
            matrix=matrix,
            range=FULL if (first.color_range == FULL or full) and not rgb else LIMITED,
            primaries=first.color_primaries,
            transfer=first.color_trc,
            notes=tuple(notes),
        )


def frames(
    film: Film, start: float | None = None, end: float | None = None, after: int | None = None
) -> Generator[Frame, None, None]:
    """The frames whose times lie in [`start`, `end`), in seconds from the first one on, and `after` a time."""
    first = -math.inf if start is None else math.ceil(film.time(start) / film.time_base)
    first = max(first, -math.inf if after is None else after + 1)
    last = math.inf if end is None else film.time(end) / film.time_base
    previous = None
    usual = max(1, round(1 / (film.rate * film.time_base)))
    with open_film(film.path) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        if first > film.start:
            container.seek(int(first), stream=stream)
        for decoded in _decoded(container, stream):
            time = decoded.pts
            if time is None:  # a file without times
                time = film.start if previous is None else previous + usual
            if previous is not None and time <= previous:
                time = previous + 1
            previous = time
            if time >= last:
                return
            if time >= first:
                yield Frame(time, decoded.duration or usual, _planes(decoded, film))


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of the stream; damaged packets have none, and where the container is damaged they end."""
    damaged = av.error.InvalidDataError, av.error.EOFError
    with suppress(*damaged):
        for packet in container.demux(stream):
            with suppress(*damaged):
                yield from packet.decode()


def _planes(frame: Any, film: Film) -> tuple[Plane, Plane, Plane]:
    sides = (film.height, film.width) if film.turns % 2 else (film.width, film.height)
    if frame.format.name not in ("yuv420p", "yuvj420p") or (frame.width, frame.height) != sides:
        rgb, grey = frame.format.is_rgb or frame.format.has_palette, frame.format.name.startswith("gray")
        frame = frame.reformat(
            *sides,
            format="yuv420p",
            src_colorspace=None if rgb else Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=FULL if rgb or grey else film.range,
            dst_color_range=FULL if grey else film.range,  # FFmpeg treats grey as full range: kept as it is
        )
    planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
    y, u, v = (np.rot90(plane[:, : kept.width], film.turns) for plane, kept in zip(planes, frame.planes, strict=True))
    return y, u, v


def _seconds(container: Any, stream: Any, start: Fraction) -> float:
    """How long the pictures last by the file's header; Matroska has that in a tag, H:MM:SS."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, tag.groups())
        return max(0.0, 3600 * hours + 60 * minutes + seconds - float(start))
    return (container.duration or 0) / av.time_base
