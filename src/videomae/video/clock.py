"""The one clock of a video: seconds as a player shows them, 0 being the start of its container.

A container starts with the first of its streams, often the sound. Where a recording was restarted, or several were
joined, stamps begin anew: time goes on from the frame before. Where stamps jump ahead, nothing is known of the time
between: it is a gap. A picture that merely stays, as in recordings of a screen, is none.

N frames · G gaps
"""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Seconds from frame to frame; more is a gap. Formats made for broadcasting let their clock be set anew (FFmpeg's
# command takes the same 10 s there); in others a picture may well stay for a while.
LONGEST_STEP, LONGEST_STILL = 10.0, 60.0
# Frames by which stamps may be out of order without a restart: 16 where they may be those of decoding (H.264, A.3.1),
# elsewhere a few, as damage leaves them.
REORDERED, DISORDERED = 16, 4
MICROSECOND = Fraction(1, 1_000_000)
USUAL_RATE = 25
NO_TIMESTAMPS, TS_DISCONT = 0x80, 0x200  # flags of FFmpeg's formats

Times = NDArray[np.float64]


class Clock(NamedTuple):
    """What a container says about time.

    Attributes:
        tick: the unit of stamps, in seconds.
        start: of the container, in ticks; None if it does not say.
        step: ticks from frame to frame where stamps do not tell.
        longest_step: ticks from frame to frame; more is a gap.
        reordered: frames by which stamps may be out of order; one before all of so many has begun anew.
        fps: frames per second by the header.
        is_stamped: whether there are stamps at all; raw pictures and elementary streams have none.
        may_be_cut: whether a recording may begin and end anywhere, as broadcasts and elementary streams do.
    """

    tick: Fraction
    start: int | None
    step: int
    longest_step: int
    reordered: int
    fps: float
    is_stamped: bool
    may_be_cut: bool = False

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, *, fps: float | None = None) -> Self:
        """Read the clock of a container; ``fps`` counts where it has no stamps."""
        flags, tick = container.format.flags, stream.time_base or Fraction(1)
        is_stamped = not (flags & NO_TIMESTAMPS or container.format.name.endswith("_pipe"))
        fps = (None if is_stamped else fps) or float(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        step = max(round(1 / (fps * tick)), 1)
        may_jump = bool(flags & TS_DISCONT)
        longest = max(round((LONGEST_STEP if may_jump else LONGEST_STILL) / tick), 2 * step)
        start = None if container.start_time is None else round(container.start_time * MICROSECOND / tick)
        reordered = DISORDERED if may_jump else REORDERED
        return cls(tick, start, step, longest, reordered, fps, is_stamped, may_be_cut=may_jump or not is_stamped)

    def seconds(self, ticks: "Sequence[int] | NDArray[np.int64]") -> Times:
        """Return numbers of ticks as seconds."""
        return np.asarray(ticks, np.float64) * self.tick.numerator / self.tick.denominator

    def times(self, stamps: Sequence[int | None]) -> Times:
        """Return the times of frames, (N,) and never decreasing, from their stamps in the order of showing."""
        if not self.is_stamped:
            return np.arange(len(stamps)) / self.fps
        known = [stamp for stamp in stamps if stamp is not None]
        is_complete = len(known) == len(stamps)
        if is_complete and (np.diff(rising := np.asarray(known, np.int64)) >= 0).all():
            return self.seconds(rising - (rising[:1] if self.start is None else self.start))
        unwrap = Unwrapper(self)
        return np.array([unwrap(stamp) for stamp in (_in_order(known, self.reordered) if is_complete else stamps)])


class Unwrapper:
    """Turns the stamps of frames, one after the other, into seconds that never go back.

    Args:
        clock: of their container.

    Attributes:
        restarted: whether the last stamp began anew.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._step = clock, clock.step
        self._last: int | None = None  # tick of the last frame
        self._offset = None if clock.start is None else -clock.start
        self._recent: deque[int] = deque(maxlen=clock.reordered)  # stamps
        self._num_behind = 0  # frames in a row whose stamps are behind one that was shown
        self.restarted = False

    def __call__(self, stamp: int | None) -> float:
        """Return the time of the next frame; one without a stamp follows at the usual distance."""
        following = 0 if self._last is None else self._last + self._step
        tick = following if stamp is None or not self._clock.is_stamped else self._tick(stamp, following)
        last = tick if self._last is None else self._last
        tick = max(tick, last)
        if 0 < tick - last <= self._clock.longest_step:
            self._step = tick - last
        self._last = tick
        return float(self._clock.seconds([tick])[0])

    def arrived(self) -> None:
        """Note that a packet came, which here tells nothing."""

    def _tick(self, stamp: int, following: int) -> int:
        if self._offset is None:
            self._offset = following - stamp
        is_behind = self._last is not None and stamp + self._offset < self._last
        self._num_behind = self._num_behind + 1 if is_behind else 0
        self.restarted = _begins_anew(stamp, self._recent) or self._num_behind >= self._clock.reordered
        if self.restarted:
            self._recent.clear()
            self._num_behind, self._offset = 0, following - stamp
        self._recent.append(stamp)
        return stamp + self._offset


class ArrivalClock:
    """Seconds of the frames of a live source that sends no times: when their packets came, by the clock on the wall."""

    def __init__(self) -> None:
        self._begin: float | None = None
        self._arrivals: deque[float] = deque(maxlen=REORDERED)
        self._last = 0.0

    def arrived(self) -> None:
        """Note that a packet came."""
        now = time.monotonic()
        self._begin = now if self._begin is None else self._begin
        self._arrivals.append(now - self._begin)

    def __call__(self, stamp: int | None) -> float:
        """Return the time of the next frame, whatever its stamp."""
        if self._arrivals:
            self._last = max(self._last, self._arrivals.popleft())
        return self._last


def gaps_between(times: Times, longest_step: float) -> NDArray[np.int64]:
    """Return the numbers of the frames, (G,), after which there is a gap.

    Args:
        times: of all frames, (N,) seconds.
        longest_step: seconds from frame to frame; more is a gap.
    """
    return np.flatnonzero(np.diff(times) > longest_step)


def _begins_anew(stamp: int, before: Collection[int]) -> bool:
    return bool(before) and stamp <= min(before)


def _in_order(stamps: Sequence[int], reordered: int) -> Iterator[int]:
    """Yield the stamps of each recording sorted."""
    part: list[int] = []
    for stamp in stamps:
        if _begins_anew(stamp, part[-reordered:]):
            yield from sorted(part)
            part = []
        part.append(stamp)
    yield from sorted(part)
