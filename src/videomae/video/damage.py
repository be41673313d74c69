"""Where a video does not decode, and how decoding goes on behind it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple, get_args

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videomae.video.clock import Clock

OnError = Literal["raise", "skip", "truncate"]
ON_ERROR = get_args(OnError)
MOST_FAILURES = 16  # in a row, before a file is taken to have ended
PATCHED, INCOMPLETE = "patched by the decoder", "packets are missing"
NEAR_SEAM = 4  # packets around the one with which a recording begins


def check_on_error(on_error: str) -> None:
    """Raise a ValueError for what is none of `ON_ERROR`."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}.")


class Damage(NamedTuple):
    """A stretch of a video that did not decode, or not cleanly.

    Attributes:
        start: its first second.
        end: the second after it.
        reason: what the decoder says.
    """

    start: float
    end: float
    reason: str


def reading_notes(
    damage: Sequence[Damage],
    *,
    gaps: Sequence[tuple[float, float]] = (),
    reconnected: Sequence[tuple[float, float]] = (),
    assumed_fps: float | None = None,
) -> list[str]:
    """Say what is odd about the time of a video, each as the rest of a sentence that begins with its name."""
    found = [f"did not decode from {d.start:.2f} s to {d.end:.2f} s ({d.reason})" for d in damage]
    jumps = [gap for gap in gaps if gap not in reconnected]
    found += [f"shows nothing from {start:.2f} s to {end:.2f} s, where its clock jumps" for start, end in jumps]
    found += [f"was not connected from {start:.2f} s to {end:.2f} s" for start, end in reconnected]
    if assumed_fps is not None:
        found.append(f"holds no times: {assumed_fps:g} frames per second are assumed, --fps sets another rate")
    return found


class DamageLog:
    """Collects what was lost of a video, or patched, as stretches of time.

    Args:
        clock: of its container.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._step = clock, 1 / clock.fps
        self._spots: list[tuple[float, float, str]] = []
        self._open: list[tuple[float, str]] = []  # what was lost since the last frame

    def lost(self, reason: str, stamp: int | None, *, after: tuple[int | None, float]) -> None:
        """Note that the frame of a stamp did not come; ``after`` it came one of this stamp at this second."""
        last, time = after
        is_known = stamp is not None and last is not None
        ahead = float((stamp - last) * self._clock.tick) if is_known else self._step  # type: ignore[operator]
        self._open.append((max(time + ahead, 0.0), reason))

    def patched(self, time: float) -> None:
        """Note that the frame of this second had to be patched."""
        self._spots.append((time, time + self._step, PATCHED))

    def shown(self, time: float) -> None:
        """Note that a frame came at this second: what was lost before it ends there, unless there is a gap between."""
        if not self._open:
            return
        for spot, reason in self._open:
            is_gap = time - spot > float(self._clock.longest_step * self._clock.tick)
            self._spots.append((spot, spot + self._step if is_gap else max(time, spot + self._step), reason))
        self._open = []

    @property
    def found(self) -> list[Damage]:
        """The stretches, in order."""
        found: list[Damage] = []
        for time, end, reason in sorted([*self._spots, *((time, time + self._step, why) for time, why in self._open)]):
            if found and time <= found[-1].end + self._step / 2:
                start, before, reasons = found.pop()
                reason = reasons if reason in reasons.split(", ") else f"{reasons}, {reason}"
                found.append(Damage(start, max(before, end), reason))
            else:
                found.append(Damage(time, end, reason))
        return found


def packets_past_damage(demux: Callable[[], Any], lost: Callable[[str], object]) -> Iterator[Packet]:
    """Yield packets; where the file is damaged between them, go on with the next one that can be found.

    Args:
        demux: returns PyAV's generator of packets, from where the file stands.
        lost: called with the reason.
    """
    failures = 0
    while failures < MOST_FAILURES:
        try:
            with closing(demux()) as packets:
                for packet in packets:
                    failures = 0
                    yield packet
        except av.error.InvalidDataError as error:
            failures += 1
            lost(str(error.strerror))
        else:
            return


class PastDamage:
    """Decodes packets of one stream, one after the other; where one does not decode, says so and goes on.

    In formats and codecs of which a recording may begin anywhere, what comes before the first key frame is not damaged:
    nobody can decode it, it may be missing without a word. Nor is what FFmpeg takes for an incomplete packet where one
    recording ends and another begins.

    Args:
        lost: called with the reason and the packet.
        clock: of the container.
        stream: what the packets belong to.
        raises: raise FFmpeg's error where a packet does not decode.
    """

    def __init__(
        self, lost: Callable[[str, Packet], object], *, clock: Clock, stream: VideoStream, raises: bool = False
    ) -> None:
        self._lost, self._longest_step, self._raises = lost, clock.longest_step, raises
        # The decoders of these are silent about frames whose references are missing: what they refuse is damaged.
        self._has_begun = not clock.may_be_cut and stream.codec_context.codec.canonical_name in ("h264", "hevc")
        self._last: int | None = None  # when the last packet is to be decoded
        self._since_seam = NEAR_SEAM
        self._incomplete: deque[Packet | None] = deque([None] * NEAR_SEAM)  # of the last packets, those that are

    def __call__(self, packet: Packet) -> Iterator[VideoFrame]:
        """Yield the frames that come out after a packet; those that are left, after the one that marks the end."""
        is_end = packet.size == 0 and packet.pts is None
        self._has_begun |= packet.is_keyframe or is_end
        self._look(packet, is_end)
        for _ in range(MOST_FAILURES if is_end else 1):
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                if self._has_begun and self._raises:
                    raise
                if self._has_begun:
                    self._lost(str(error.strerror), packet)
            else:
                return

    def _look(self, packet: Packet, is_end: bool) -> None:
        """Tell of a packet that is incomplete once it is known that no recording begins near it."""
        step = 0 if packet.dts is None or self._last is None else packet.dts - self._last
        self._last = self._last if packet.dts is None else packet.dts
        self._since_seam += 1
        if step < 0 or step > self._longest_step:
            self._since_seam = 0
            self._incomplete = deque([None] * NEAR_SEAM)
        is_incomplete = packet.is_corrupt and self._has_begun and self._since_seam >= NEAR_SEAM
        self._incomplete.append(packet if is_incomplete else None)
        for _ in range(len(self._incomplete) if is_end else 1):
            if (found := self._incomplete.popleft()) is not None:
                self._lost(INCOMPLETE, found)
