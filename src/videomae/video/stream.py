"""Frames of files, cameras and network streams, one after the other, each decoded once."""

import logging
import math
import os
import time
from collections.abc import Generator, Iterator
from typing import Any

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
from videomae.video.reader import VideoReader, check_fps
from videomae.video.source import is_stream, protocol_of, shown

Frame = NDArray[np.uint8]

log = logging.getLogger(__name__)

OPEN_TIMEOUT, READ_TIMEOUT = 30.0, 60.0  # seconds without an answer, or without data
RECONNECT_PAUSE = 0.5  # seconds from a try to connect again to the next


class FrameStream(Iterator[tuple[float, Frame]]):
    """The frames of a file, camera or network stream as they come: second and upright frame, (H, W, 3) uint8.

    Seconds are those of the one clock, see `videomae.video.clock`. Only one frame is held at a time. Where a
    live source sends no times, those count at which its packets come.

    Args:
        source: a file, a URL such as ``rtsp://...``, a device such as ``/dev/video0``, or a pipe.
        on_error: what to do where the video does not decode: ``"skip"`` goes on behind the damage, ``"truncate"`` ends
            before it, ``"raise"`` raises. `damage` tells where it was.
        fps: frames per second of a source that holds no times.
        reconnect: seconds for which a URL that breaks off, or sends nothing for as long, is connected to again. Its
            seconds go on by the clock on the wall, and the time between is a gap.
        follow_playlist: the source is a playlist (.m3u8, .mpd, .ffconcat), and what it names may be opened: a URL may
            name addresses, a file other files.

    Attributes:
        assumed_fps: the rate that times follow from, where the source holds none; else None.
        reconnected: the second of the first frame after each loss of the connection.

    Raises:
        VideoError: when the next frame is asked for, if the source cannot be opened, holds no video, sends nothing for
            a minute, or breaks off.
        ValueError: if it is no URL, and is to be connected to again.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        on_error: OnError = "skip",
        fps: float | None = None,
        reconnect: float | None = None,
        follow_playlist: bool = False,
    ) -> None:
        check_on_error(on_error)
        check_fps(fps)
        if reconnect is not None and not (protocol_of(source) and 0 < reconnect < math.inf):
            raise ValueError(
                f"reconnect must be seconds above 0, for a URL, got {reconnect:g} for {shown(source)}. Leave it out."
            )
        self._source, self._on_error, self._fps = os.fspath(source), on_error, fps
        self._name, self._reconnect, self._follow_playlist = shown(source), reconnect, follow_playlist
        self.assumed_fps: float | None = None
        self.reconnected: list[float] = []
        self._longest_step, self._step = math.inf, 1 / USUAL_RATE
        self._damage: list[Damage] = []
        self._log: DamageLog | None = None  # of a stream
        self._last: tuple[float, float] | None = None  # second of its last frame, and when that came
        self._lost_at: float | None = None  # when its connection was found to be lost
        self._frames = self._of_stream() if is_stream(source) or follow_playlist else self._of_file()

    def __next__(self) -> tuple[float, Frame]:
        return next(self._frames)

    @property
    def damage(self) -> list[Damage]:
        """The stretches that did not decode, or that the decoder patched, so far."""
        return self._damage if self._log is None else [*self._damage, *self._log.found]

    @property
    def step(self) -> float:
        """Seconds from frame to frame by the header."""
        return self._step

    def is_gap(self, before: float, after: float) -> bool:
        """Tell whether there is a gap between the times of a frame and the next."""
        return after - before > self._longest_step or any(before < second <= after for second in self.reconnected)

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
        """Read a stream; where it breaks off, connect again if that is wanted."""
        wait = OPEN_TIMEOUT
        while True:
            reason = "it ended"
            try:
                if (yield from self._of_connection(wait)) or self._reconnect is None:
                    return
            except VideoError as error:
                if self._last is None or self._reconnect is None:
                    raise
                reason = str(error)
            if self._last is None:
                return
            wait = self._wait_to_reconnect(self._last[0], reason)

    def _wait_to_reconnect(self, second: float, reason: str) -> float:
        """Wait before a further try, or raise a VideoError where it is too late; return the seconds that are left."""
        reconnect = self._reconnect or 0.0
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("%s broke off after %.2f s: connecting again for %g s", self._name, second, reconnect)
        left = self._lost_at + reconnect - time.monotonic()
        if left <= 0:
            raise VideoError(
                f"{self._name} broke off after {second:.2f} s and did not come back within {reconnect:g} s: {reason}"
            )
        time.sleep(min(RECONNECT_PAUSE, left))
        return max(left, RECONNECT_PAUSE)

    def _of_connection(self, wait: float) -> Generator[tuple[float, Frame], None, bool]:
        """Yield frames until the connection ends; return whether all of it was sent, as far as one can know."""
        limits, silence = ReadLimits.from_environment(), min(READ_TIMEOUT, self._reconnect or READ_TIMEOUT)
        about: dict[str, Any] = {
            "limits": limits,
            "reconnect": self._reconnect,
            "follow_playlist": self._follow_playlist,
        }
        with library_errors(self._name, doing="be read"):
            try:
                with open_stream(self._source, timeout=(min(wait, OPEN_TIMEOUT), silence), **about) as container:
                    stream = choose_stream(container)
                    if stream is None or stream.codec_context is None:
                        raise VideoError(f"{self._name} holds no video that can be decoded. Name another source.")
                    stream.thread_type = "AUTO"
                    stream.codec_context.options = {"max_pixels": str(limits.decoder_pixels)}
                    aspect = float(stream.sample_aspect_ratio or 1)
                    convert = FrameConverter(self._name, pixel_aspect=aspect, max_pixels=limits.max_pixels)
                    try:
                        for second, frame in self._decode(container, stream):
                            yield second, convert(frame).copy()
                    except VideoError:
                        self._check_index(container)
                        raise
                    self._check_index(container)
                    return container.size > 0  # of a live source it is not known
            except (av.error.ExitError, TimeoutError) as error:
                raise VideoError(
                    f"{self._name} gave no answer for {OPEN_TIMEOUT:g} s, or sent nothing for {silence:g} s. Check the "
                    "address, and that it sends."
                ) from error
            except av.FFmpegError as error:
                raise VideoError(
                    f"cannot read {self._name}: {error.strerror}. Check the address, and that it sends."
                ) from error

    def _check_index(self, container: InputContainer) -> None:
        """Raise a VideoError where no frame came of an MP4: its index lies behind them, and nobody can go back."""
        if self._last is None and "mp4" in container.format.name:
            raise VideoError(
                f"{self._name} is an MP4 whose index comes after its frames, so that it cannot be read forwards. Read "
                "it as a file, or send it with its index first: ffmpeg -i IN -c copy -movflags +faststart OUT."
            )

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
        """Yield frames with their seconds, and log what does not decode."""
        clock = Clock.of(container, stream, fps=self._fps)
        self._longest_step, self._step = float(clock.longest_step * clock.tick), 1 / clock.fps
        self._damage = self.damage  # of connections before
        damage = self._log = DamageLog(clock)
        second_of = ArrivalClock() if not clock.is_stamped and self._fps is None else Unwrapper(clock)
        last: tuple[int | None, float] = clock.start, 0.0  # stamp and second of the last frame
        later: float | None = None  # seconds to add after a connection that was lost

        def lose(reason: str, packet: Packet | None = None) -> None:
            if self._on_error == "raise" and reason != INCOMPLETE:
                raise VideoError(
                    f"{self._name} is damaged after {last[1]:.2f} s ({reason}): every frame must decode. Go "
                    "on behind it with on_error='skip'."
                )
            damage.lost(reason, None if packet is None else packet.pts, after=last)

        decode = PastDamage(lose, clock=clock, stream=stream)
        for packet in packets_past_damage(lambda: container.demux(stream), lose):
            second_of.arrived()
            for frame in decode(packet):
                second = second_of(frame.pts)
                later = self._resumed_at(second) - second if later is None else later
                last = frame.pts, second + later
                damage.shown(last[1])
                if frame.is_corrupt:
                    damage.patched(last[1])
                self._last = last[1], time.monotonic()
                yield last[1], frame
            if self._on_error == "truncate" and damage.found:
                return

    def _resumed_at(self, second: float) -> float:
        """Return the second of the first frame of a connection, which by its own clock is ``second``."""
        if self._last is None:
            return second
        self._lost_at, (before, came) = None, self._last
        resumed = before + max(time.monotonic() - came, self._step)
        self.reconnected.append(resumed)
        log.warning("%s was connected again after %.1f s", self._name, resumed - before)
        return resumed


def stream_frames(source: str | os.PathLike[str], **options: Any) -> FrameStream:
    """Return the frames of a source; arguments and errors as for `FrameStream`."""
    return FrameStream(source, **options)
