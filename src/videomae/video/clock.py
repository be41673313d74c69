"""The one clock of a video: seconds as a player shows them, 0 being the start of its container.

A container starts with the first of its streams, often the sound. Where a recording was restarted, or several were
joined, stamps begin anew: time goes on from the frame before. Where stamps jump ahead, nothing is known of the time
between: it is a gap. A picture that merely stays, as in recordings of a screen, is none.

N frames · G gaps
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Seconds from frame to frame; more is a gap. Formats made for broadcasting let their clock be set anew (FFmpeg's
# command takes the same 10 s there); in others a picture may well stay for a while.
LONGEST_STEP, LONGEST_STILL = 10.0, 60.0
REORDERED = 16  # frames by which stamps of decoding may differ from those of showing (H.264, A.3.1)
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
        slack: ticks by which stamps may go back within a recording; more is a restart.
        fps: frames per second by the header.
        is_stamped: whether there are stamps at all; raw pictures and elementary streams have none.
    """

    tick: Fraction
    start: int | None
    step: int
    longest_step: int
    slack: int
    fps: float
    is_stamped: bool

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
        return cls(tick, start, step, longest, 0 if may_jump else REORDERED * step, fps, is_stamped)

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
        return np.array([unwrap(stamp) for stamp in (_in_order(known, self.slack) if is_complete else stamps)])


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
        self.restarted = False

    def __call__(self, stamp: int | None) -> float:
        """Return the time of the next frame; one without a stamp follows at the usual distance."""
        following = 0 if self._last is None else self._last + self._step
        if stamp is not None and self._offset is None:
            self._offset = following - stamp
        tick = following if stamp is None or self._offset is None else stamp + self._offset
        last = tick if self._last is None else self._last
        self.restarted = stamp is not None and tick < last - self._clock.slack
        if stamp is not None and self.restarted:
            tick, self._offset = following, following - stamp
        tick = max(tick, last)
        if 0 < tick - last <= self._clock.longest_step:
            self._step = tick - last
        self._last = tick
        return float(self._clock.seconds([tick])[0])


def gaps_between(times: Times, longest_step: float) -> NDArray[np.int64]:
    """Return the numbers of the frames, (G,), after which there is a gap.

    Args:
        times: of all frames, (N,) seconds.
        longest_step: seconds from frame to frame; more is a gap.
    """
    return np.flatnonzero(np.diff(times) > longest_step)


def _in_order(stamps: Sequence[int], slack: int) -> Iterator[int]:
    """Yield the stamps of each recording sorted: some containers hold those of decoding."""
    part: list[int] = []
    for stamp in stamps:
        if part and stamp < max(part[-REORDERED:]) - slack:
            yield from sorted(part)
            part = []
        part.append(stamp)
    yield from sorted(part)
