"""Small films, written with PyAV."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = (48, 64)  # height, width
TIME_BASE = Fraction(1, 12800)
STEP = 512  # 25 frames a second
LIMITED, FULL = 1, 2
BT709, BT601 = 1, 6


def moving(count: int, size: tuple[int, int] = SIZE, seed: int = 0, step: int = 1) -> list[np.ndarray]:
    """Luma planes, 16 to 235: a picture that moves to the left by `step` pixels a frame."""
    picture = gaussian_filter(np.random.default_rng(seed).normal(size=(size[0], size[1] + step * count)), 2)
    picture = np.interp(picture, (picture.min(), picture.max()), (16, 235)).round().astype(np.uint8)
    return [picture[:, step * number : step * number + size[1]] for number in range(count)]


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    crf: int = 0,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    matrix: int = BT601,
    color_range: int = LIMITED,
    transfer: int = 2,
    aspect: Fraction = Fraction(1),
    rotation: int = 0,
    sound: bool = False,
    subtitles: str = "",
    chapters: Sequence[tuple[float, float, str]] = (),
    title: str = "",
    cover: bool = False,
) -> Path:
    """A film of these luma planes, in grey; no loss where `crf` is 0; `times` in TIME_BASE; `sound`: a second for each 25."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": str(crf)} if codec == "libx264" else {})
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = stream.time_base = TIME_BASE
        context.colorspace, context.color_range, context.color_trc = matrix, color_range, transfer
        context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        audio = out.add_stream("aac", rate=48000, layout="mono") if sound else None
        text = out.add_mux_stream("mov_text" if path.suffix == ".mp4" else "subrip") if subtitles else None
        small = out.add_stream("mjpeg", rate=1) if cover else None
        if small is not None:
            small.width, small.height, small.pix_fmt = 16, 16, "yuvj420p"
            small.disposition = av.stream.Disposition.attached_pic
        out.metadata["title"] = title
        out.set_chapters([_chapter(number, *chapter) for number, chapter in enumerate(chapters)])
        for number, picture in enumerate(pictures):
            frame = as_frame(picture, pixels)
            frame.pts, frame.time_base = times[number] if times else number * STEP, TIME_BASE
            frame.color_range = color_range
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if small is not None:
            shown = as_frame(np.full((16, 16), 100, np.uint8), "yuvj420p")
            shown.pts = 0
            out.mux(small.encode(shown) + small.encode())
        if audio is not None:
            _add_sound(out, audio, 48000 * len(pictures) // 25)
        if text is not None:
            _add_subtitle(out, text, subtitles.encode())
    return path


def _chapter(number: int, start: float, end: float, name: str) -> dict[str, Any]:
    times = {"start": round(1000 * start), "end": round(1000 * end), "time_base": Fraction(1, 1000)}
    return {"id": number, **times, "metadata": {"title": name}}


def _add_sound(out: Any, stream: Any, samples_in_all: int) -> None:
    wave = np.sin(np.arange(samples_in_all) / 20).astype(np.float32)
    for start in range(0, len(wave), 1024):
        samples = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
        samples.sample_rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
        out.mux(stream.encode(samples))
    out.mux(stream.encode())


def _add_subtitle(out: Any, stream: Any, content: bytes) -> None:
    is_mp4 = out.format.name == "mp4"
    packet = av.Packet(len(content).to_bytes(2, "big") + content if is_mp4 else content)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = 200
    packet.duration = 300
    out.mux(packet)


def as_frame(luma: np.ndarray, pixels: str) -> Any:
    """A frame in grey with this luma, which is shifted to the left for more than 8 bits."""
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pixels)
    deep = frame.format.components[0].bits - 8
    for number, plane in enumerate(frame.planes):
        kind = np.uint16 if deep else np.uint8
        values = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        values[:, : plane.width] = luma.astype(kind) << deep if number == 0 else 128 << deep
        plane.update(values.tobytes())
    return frame


def read(path: Path) -> Iterator[Any]:
    """The frames."""
    with av.open(str(path)) as film:
        yield from film.decode(video=0)


def luma(frame: Any) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].astype(int)


def packets(path: Path, kind: str) -> list[tuple[Any, bytes]]:
    """Times, in seconds, and contents of the packets of all streams of a kind."""
    with av.open(str(path)) as film:
        streams = [stream for stream in film.streams if stream.type == kind]
        found = film.demux(streams) if streams else []
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found if packet.size]
