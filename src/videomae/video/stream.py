"""Frames of files, cameras and network streams, one after the other, each decoded once."""

import math
import os
from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.backends.conversion import FrameConverter
from videomae.video.backends.failures import library_errors
from videomae.video.backends.opening import choose_stream, open_stream
from videomae.video.clock import USUAL_RATE, ArrivalClock, Clock, Unwrapper
from videomae.video.damage import (
    INCOMPLETE,
    Damage,
    DamageLog,
    OnError,
    PastDamage,
    check_on_error,
    packets_past_damage,
)
from videomae.video.limits import ReadLimits
from videomae.video.reader import VideoReader
from videomae.video.source import is_stream, shown

Frame = NDArray[np.uint8]

OPEN_TIMEOUT, READ_TIMEOUT = 30.0, 60.0  # seconds without an answer, or without data


class FrameStream(Iterator[tuple[float, Frame]]):
    """The frames of a file, camera or network stream as they come: second and upright frame, (H, W, 3) uint8.

    Seconds are those of the one clock, see `videomae.video.clock`. Only one frame is held at a time. Where a
    live source sends no times, those count at which its packets come.

    Args:
        source: a file, a URL such as ``rtsp://...``, a device such as ``/dev/video0``, or a pipe.
        on_error: what to do where the video does not decode: ``"skip"`` goes on behind the damage, ``"truncate"`` ends
            before it, ``"raise"`` raises. `damage` tells where it was.
        fps: frames per second of a source that holds no times.

    Attributes:
        assumed_fps: the rate that times follow from, where the source holds none; else None.

    Raises:
        VideoError: when the next frame is asked for, if the source cannot be opened, holds no video, sends nothing for
            a minute, or breaks off.
    """

    def __init__(self, source: str | os.PathLike[str], *, on_error: OnError = "skip", fps: float | None = None) -> None:
        check_on_error(on_error)
        self._source, self._on_error, self._fps = os.fspath(source), on_error, fps
        self.assumed_fps: float | None = None
        self._longest_step, self._step = math.inf, 1 / USUAL_RATE
        self._damage: list[Damage] = []
        self._log: DamageLog | None = None  # of a stream
        self._frames = self._of_stream() if is_stream(source) else self._of_file()

    def __next__(self) -> tuple[float, Frame]:
        return next(self._frames)

    @property
    def damage(self) -> list[Damage]:
        """The stretches that did not decode, or that the decoder patched, so far."""
        return self._damage if self._log is None else self._log.found

    @property
    def step(self) -> float:
        """Seconds from frame to frame by the header."""
        return self._step

    def is_gap(self, seconds: float) -> bool:
        """Tell whether so many seconds from one frame to the next are a gap."""
        return seconds > self._longest_step

    def _of_file(self) -> Iterator[tuple[float, Frame]]:
        """Read a file as a sound one; where that fails, find its damage and go on behind it."""
        number = 0
        try:
            with VideoReader(self._source, fps=self._fps) as reader:
                self._learn(reader)
                for item in reader:
                    number += 1
                    yield item
                self._damage = reader.damage
                return
        except VideoError:
            if self._on_error == "raise":
                raise
        with VideoReader(self._source, fps=self._fps, on_error=self._on_error) as reader:
            self._learn(reader)
            self._damage = reader.damage
            yield from reader.frames(min(number, len(reader)))

    def _learn(self, reader: VideoReader) -> None:
        self._longest_step, self._step = reader.longest_step, 1 / reader.fps
        self.assumed_fps = reader.assumed_fps

    def _of_stream(self) -> Iterator[tuple[float, Frame]]:
        name, limits = shown(self._source), ReadLimits.from_environment()
        with library_errors(name, doing="be read"):
            try:
                with open_stream(self._source, timeout=(OPEN_TIMEOUT, READ_TIMEOUT), limits=limits) as container:
                    stream = choose_stream(container)
                    if stream is None or stream.codec_context is None:
                        raise VideoError(f"{name} holds no video that can be decoded. Name another source.")
                    stream.thread_type = "AUTO"
                    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
                    aspect = float(stream.sample_aspect_ratio or 1)
                    convert = FrameConverter(name, pixel_aspect=aspect, max_pixels=limits.max_pixels)
                    for seconds, frame in self._decode(container, stream):
                        yield seconds, convert(frame).copy()
            except (av.error.ExitError, TimeoutError) as error:
                raise VideoError(
                    f"{name} gave no answer for {OPEN_TIMEOUT:g} s, or sent nothing for {READ_TIMEOUT:g} s. Check the "
                    "address, and that it sends."
                ) from error
            except av.FFmpegError as error:
                raise VideoError(
                    f"cannot read {name}: {error.strerror}. Check the address, and that it sends."
                ) from error

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
        """Yield frames with their seconds, and log what does not decode."""
        clock = Clock.of(container, stream, fps=self._fps)
        self._longest_step, self._step = float(clock.longest_step * clock.tick), 1 / clock.fps
        log = self._log = DamageLog(clock)
        second_of = ArrivalClock() if not clock.is_stamped and self._fps is None else Unwrapper(clock)
        last: tuple[int | None, float] = clock.start, 0.0  # stamp and second of the last frame

        def lose(reason: str, packet: Packet | None = None) -> None:
            if self._on_error == "raise" and reason != INCOMPLETE:
                raise VideoError(
                    f"{shown(self._source)} is damaged after {last[1]:.2f} s ({reason}): every frame must decode. Go "
                    "on behind it with on_error='skip'."
                )
            log.lost(reason, None if packet is None else packet.pts, after=last)

        decode = PastDamage(lose, longest_step=clock.longest_step)
        for packet in packets_past_damage(lambda: container.demux(stream), lose):
            second_of.arrived()
            for frame in decode(packet):
                last = frame.pts, second_of(frame.pts)
                if frame.is_corrupt:
                    log.patched(last[1])
                yield last[1], frame
            if self._on_error == "truncate" and log.found:
                return


def stream_frames(
    source: str | os.PathLike[str], *, on_error: OnError = "skip", fps: float | None = None
) -> FrameStream:
    """Return the frames of a source; arguments and errors as for `FrameStream`."""
    return FrameStream(source, on_error=on_error, fps=fps)
