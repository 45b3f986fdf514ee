"""Films on disk: pictures encoded a segment at a time, then put together with all else that the film's file holds."""

import contextlib
import heapq
import io
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from recolor.inference.options import Options
from recolor.video.reading import Film, FilmError, Frame, Time, is_cover, open_film, picture_stream
from recolor.video.segments import PACKET, Packets, Segments

QUALITY = 64
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    # Without P blocks under 16x16: 27% less time, a size 1% larger (7% at 176x144) and 0.1 to 0.2 dB less PSNR of luma.
    "h264": ("libx264", {"preset": "veryfast", "partitions": "i8x8,i4x4"}),
    "h265": ("libx265", {"preset": "veryfast", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "8", "svtav1-params": "tune=0"}),
    "vp9": ("libvpx-vp9", {"b": "0", "cpu-used": "5", "row-mt": "1"}),
    "ffv1": ("ffv1", {}),
}
_OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION"}  # metadata
_CRF_RANGE = {"av1": 63, "vp9": 63}  # of the others 51


class SegmentEncoder:
    """Encodes pictures, which refer to none outside the segment."""

    def __init__(self, film: Film, options: Options) -> None:
        self._context: Any = av.CodecContext.create(ENCODERS[options.codec][0], "w")
        _set_up(self._context, film, options)
        self._film = film
        self._packets: list[Any] = []
        self._durations: dict[int, int] = {}

    def add(self, frame: Frame) -> None:
        """Encodes the next picture; its time must be later than that of the last one."""
        planes = np.concatenate([plane.ravel() for plane in frame.planes]).reshape(-1, self._context.width)
        picture: Any = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.pts, picture.time_base = frame.time, self._film.time_base
        picture.color_range, picture.colorspace = self._film.range, self._film.matrix
        self._durations[frame.time] = frame.duration
        self._packets += self._context.encode(picture)

    def finish(self) -> Packets:
        """All packets of the segment, none where no picture was added. The encoder cannot be used afterwards."""
        if self._durations:
            self._packets += self._context.encode(None)
        packets = [packet for packet in self._packets if packet.size]
        rows = [(packet.pts, self._durations[packet.pts], packet.is_keyframe, packet.size) for packet in packets]
        return Packets(np.array(rows, PACKET), np.frombuffer(b"".join(map(bytes, packets)), np.uint8))


def can_hold(kind: str, codec: str) -> bool:
    """Whether the container `kind`, a name of FFmpeg's, can hold pictures of `codec`."""
    with av.open(io.BytesIO(), "w", format=kind) as container:
        return av.Codec(ENCODERS[codec][0], "w").canonical_name in container.supported_codecs


def assemble(segments: Segments, film: Film, options: Options, path: Path, kind: str) -> list[str]:
    """Writes `path` from the segments and what else the film's file holds; returns notes on what `kind` cannot hold."""
    notes: list[str] = []
    shift = film.time(options.start) if options.start else Fraction(0)
    end = math.inf if options.end is None else film.time(options.end)
    flags = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    with open_film(film.path) as source, av.open(str(path), "w", format=kind, options=flags) as out:
        stream = out.add_stream(ENCODERS[options.codec][0], rate=film.rate)
        _set_up(stream.codec_context, film, options)
        stream.time_base = film.time_base
        pictures = picture_stream(source)
        _describe(stream, pictures)
        copies = {}
        for other in source.streams:
            if other.type == "video" and (other.index == pictures.index or kind == "matroska" or not is_cover(other)):
                continue
            if other.type == "attachment" and kind == "matroska":
                out.add_attachment(other.name or "attachment", other.mimetype or "", other.data)
            elif other.codec_context is None or other.codec_context.codec.canonical_name not in out.supported_codecs:
                notes.append(f"left out: {other.type} that {kind} cannot hold")
            else:
                copies[other.index] = out.add_stream_from_template(other)
                _describe(copies[other.index], other)
        out.metadata.update({name: text for name, text in source.metadata.items() if name not in _OF_THE_FILE})
        _copy_chapters(source, out, shift, end)
        merged = heapq.merge(
            _pictures(segments, film, stream, shift),
            _copied(source, copies, shift, end),
            key=lambda packet: packet.dts * packet.time_base,
        )
        for packet in merged:
            try:
                out.mux(packet)
            except (av.ArgumentError, av.InvalidDataError) as error:
                raise FilmError(
                    f"damaged: {kind} refuses a part of it ({error.strerror}); copy the film again"
                ) from error
    return notes


def _set_up(context: Any, film: Film, options: Options) -> None:
    crf = round((100 - (options.quality or QUALITY)) / 100 * _CRF_RANGE.get(options.codec, 51))
    context.options = ENCODERS[options.codec][1] | ({} if options.codec == "ffv1" else {"crf": str(crf)})
    width, height = (side + side % 2 for side in (film.width, film.height))  # H.264 has no odd sides in 4:2:0
    context.width, context.height, context.pix_fmt = width * (1 + options.side_by_side), height, "yuv420p"
    context.time_base, context.framerate = film.time_base, film.rate
    context.sample_aspect_ratio = film.aspect
    context.color_range, context.colorspace = film.range, film.matrix
    context.color_primaries, context.color_trc = film.primaries, film.transfer
    context.flags |= Flags.global_header  # codec headers go into the container, not into each key frame
    with _usual_priority():
        context.open()


@contextlib.contextmanager
def _usual_priority() -> Iterator[None]:
    """On Linux, as root, SVT-AV1 gives its threads and this one real-time priority, which stops other programs: undone here."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():  # not Linux
        yield
        return
    before, policy, priority = set(tasks.iterdir()), os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in [0, *(int(task.name) for task in set(tasks.iterdir()) - before)]:  # 0: this one
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(thread) != policy:  # a sandbox may refuse the call that changes it
                    os.sched_setscheduler(thread, policy, priority)


def _describe(stream: Any, original: Any) -> None:
    stream.metadata.update({name: text for name, text in original.metadata.items() if name not in _OF_THE_FILE})
    stream.disposition = original.disposition


def _copy_chapters(source: Any, out: Any, shift: Fraction, end: Time) -> None:
    """The chapters between the start, which `shift` moves to 0, and `end`."""
    chapters = []
    for chapter in source.chapters():
        base = chapter["time_base"]
        moved = round(shift / base)
        first, last = chapter["start"], round(min(chapter["end"], end / base))
        if max(first, moved) < last:
            chapters.append(chapter | {"start": max(0, first - moved), "end": last - moved})
    out.set_chapters(chapters)


def _pictures(segments: Segments, film: Film, stream: Any, shift: Fraction) -> Iterator[Any]:
    """The packets of all segments. Decoding times are the sorted presentation times, shifted for reordered frames."""
    times = segments.times()
    ordered = np.sort(times)
    delay = int((np.arange(len(times)) - np.searchsorted(ordered, times)).max(initial=0))
    early = ordered[:delay] - (ordered[min(delay, len(ordered) - 1)] - ordered[0])
    decoding = iter(np.concatenate([early, ordered]).tolist())
    moved = round(shift / film.time_base)
    for packets in segments.packets():
        contents = np.split(packets.content, packets.table["size"].cumsum())[:-1]
        for content, (time, duration, is_key, _) in zip(contents, packets.table.tolist(), strict=True):
            packet = av.Packet(content.tobytes())
            packet.stream, packet.time_base, packet.is_keyframe = stream, film.time_base, is_key
            packet.pts, packet.dts, packet.duration = time - moved, next(decoding) - moved, duration
            yield packet


def _copied(source: Any, copies: dict[int, Any], shift: Fraction, end: Time) -> Iterator[Any]:
    """The packets of the other streams between the start, which `shift` moves to 0, and `end`."""
    if not copies:
        return
    begin = shift or -math.inf  # without a start, times below 0 stay
    for packet in source.demux([source.streams[index] for index in copies]):
        times = [time for time in (packet.pts, packet.dts) if time is not None]
        if packet.size and is_cover(packet.stream):  # it has no time
            packet.pts = packet.dts = 0
        elif packet.size and times and begin <= times[0] * packet.time_base < end:
            moved = round(shift / packet.time_base)
            packet.pts, packet.dts = times[0] - moved, times[-1] - moved
        else:
            continue
        packet.stream = copies[packet.stream.index]
        yield packet
