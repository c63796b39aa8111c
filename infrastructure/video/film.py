"""Images become H.264 segments, and segments one MP4 with captions, joined without being encoded again."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import OutputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from msgspec import Struct
from PIL import Image

Told: TypeAlias = Callable[[float], None]
"""Told how many seconds are done."""
TICKS = 1000
"""A second; all times are whole ticks, so that segments follow each other without a gap."""
TICK = Fraction(1, TICKS)
FRAME_TICKS = TICKS // 2
"""A still picture needs no more than two frames a second; the last one of a shot lasts for what is left of it."""
KEYFRAMES = 20
"""A player that seeks decodes this many frames at most."""
ENCODER = {
    "preset": "superfast",
    "crf": "18",
    "forced-idr": "1",
    "x264-params": f"keyint={KEYFRAMES}:scenecut=0:bframes=0:rc-lookahead=0:mbtree=0:weightp=0:ipratio=1.1",
}
"""Frames leave the encoder as they come, which keeps no others in memory. Segments of the same size fit together."""
BT709 = 1
STYLES = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Sans,18\n\n"
    b"[Events]\nFormat: Start, End, Style, Text\n"
)


class Shot(Struct, frozen=True):
    """A picture or a segment, and how many ticks it is shown."""

    path: Path
    ticks: int


class Caption(Struct, frozen=True):
    start: int
    end: int
    text: str


class Sample(Struct, frozen=True):
    """A packet of a track, and from when to when it is shown, in ticks."""

    start: int
    end: int
    packet: "av.Packet[Any]"


class DoNotFit(Exception):
    """The segments were not all encoded alike."""


def encode(shots: Sequence[Shot], path: Path, told: Told) -> None:
    """Write the shots as a segment; it begins with a keyframe."""
    with av.open(path, "w", format="mp4") as container:
        with Image.open(shots[0].path) as first:
            wide, high = first.size
        stream = container.add_stream("libx264", rate=TICKS // FRAME_TICKS, options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        context = stream.codec_context
        context.time_base = TICK
        context.thread_count = 1
        context.color_range, context.colorspace = ColorRange.MPEG.value, Colorspace.ITU709.value
        context.color_primaries = context.color_trc = BT709
        for at, frame in _frames(shots):
            container.mux(stream.encode(frame))
            told(at / TICKS)
        container.mux(stream.encode())


def join(segments: Sequence[Shot], captions: Sequence[Caption], title: str, path: Path, told: Told) -> None:
    """Write the segments one after the other, with the index in front, so that it plays while it loads.

    Raises DoNotFit.
    """
    with (
        av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container,
        av.open(segments[0].path) as first,
    ):
        container.metadata["title"] = title
        model = first.streams.video[0]
        video = container.add_stream_from_template(model)
        subtitles = _subtitles(container) if captions else None
        waiting = deque(captions)
        for sample in _samples(segments, model.codec_context.extradata):
            while waiting and waiting[0].start <= sample.start:
                _mux(container, subtitles, _spoken(waiting.popleft()))
            _mux(container, video, sample)
            told(sample.end / TICKS)
        for caption in waiting:
            _mux(container, subtitles, _spoken(caption))


def _samples(segments: Sequence[Shot], extradata: bytes | None) -> Iterator[Sample]:
    """The frames of all segments. Raises DoNotFit when a decoder set up for the first cannot read another."""
    start = 0
    for segment in segments:
        with av.open(segment.path) as container:
            stream = container.streams.video[0]
            if stream.codec_context.extradata != extradata:
                raise DoNotFit(f"{segment.path.name} was encoded in another way than the first segment")
            packets = [packet for packet in container.demux(stream) if packet.size]
        times = [round((packet.pts or 0) * packet.time_base * TICKS) for packet in packets]
        for packet, at, following in zip(packets, times, [*times[1:], segment.ticks], strict=True):
            yield Sample(start + at, start + following, packet)
        start += segment.ticks


def _subtitles(container: OutputContainer) -> SubtitleStream:
    stream = container.add_stream("mov_text")
    assert isinstance(stream, SubtitleStream)
    context = stream.codec_context
    context.subtitle_header = STYLES
    context.time_base = TICK
    context.open(strict=False)
    return stream


def _spoken(caption: Caption) -> Sample:
    """Its text, with the length in front (3GPP TS 26.245, 5.17)."""
    said = caption.text.encode()
    return Sample(caption.start, caption.end, av.Packet(len(said).to_bytes(2, "big") + said))


def _mux(container: OutputContainer, stream: Stream | None, sample: Sample) -> None:
    packet = sample.packet
    packet.stream = stream
    packet.time_base = TICK
    packet.pts = packet.dts = sample.start
    packet.duration = sample.end - sample.start
    container.mux_one(packet)


def _frames(shots: Sequence[Shot]) -> Iterator[tuple[int, av.VideoFrame]]:
    """With the ticks at which they begin."""
    start = 0
    for shot in shots:
        with Image.open(shot.path) as image:
            drawn = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
        frame = drawn.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.time_base = TICK
        for n in range(max(shot.ticks // FRAME_TICKS, 1)):
            frame.pts = start + n * FRAME_TICKS
            frame.pict_type = PictureType.NONE if n else PictureType.I
            yield frame.pts, frame
        start += shot.ticks
