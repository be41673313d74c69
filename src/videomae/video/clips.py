"""Clips of a video, one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

import numpy as np

from videomae.video.reader import TIME_TOLERANCE

Item = TypeVar("Item")

GRACE = 5.0  # seconds that a thread is waited for that is no longer needed


def read_ahead(items: Iterable[Item], *, stop: Callable[[], object] = lambda: None) -> Iterator[Item]:
    """Yield items in their order; while the caller works with one, a thread makes the next.

    Args:
        items: what to yield; an error they raise is raised here, in its place.
        stop: called at the end, also an early one, to let ``items`` end soon.
    """
    source, end = iter(items), object()

    def make(place: Future[Any]) -> None:
        try:
            place.set_result(next(source, end))
        except BaseException as error:  # the caller's to handle
            place.set_exception(error)

    def start() -> tuple[Future[Any], Thread]:
        place: Future[Any] = Future()
        thread = Thread(target=make, args=(place,), daemon=True)  # one that waits for a camera must not hold up the end
        thread.start()
        return place, thread

    upcoming, thread = start()
    try:
        while (item := upcoming.result()) is not end:
            upcoming, thread = start()
            yield item
    finally:
        stop()
        thread.join(GRACE)


def slide(
    frames: Iterable[tuple[float, Any]], *, window: float, stride: float, num_frames: int
) -> Iterator[tuple[float, list[Any]]]:
    """Cut a stream of frames into overlapping clips.

    Args:
        frames: time in seconds and frame, in order.
        window: seconds that a clip spans.
        stride: seconds from one clip to the next.
        num_frames: of a clip, at the middles of as many equal parts; each is what the video shows at that time.

    Yields:
        The start of a window and its frames, as soon as they have all come. The last window may reach past the end of
        the video, by up to a stride; its last frames then repeat.
    """
    if not (0 < window < np.inf and 0 < stride < np.inf):
        raise ValueError(f"window and stride must be above 0 and finite, got {window} and {stride} seconds")
    offsets = (np.arange(num_frames) + 0.5) * window / num_frames
    open_windows: deque[tuple[float, list[Any]]] = deque()
    number, previous, time = 0, None, 0.0
    for time, frame in frames:
        shown = frame if previous is None else previous
        while number * stride <= time:
            open_windows.append((number * stride, []))
            number += 1
        for begin, clip in open_windows:
            # What is on show at a moment before this frame is the frame before it.
            while len(clip) < num_frames and begin + offsets[len(clip)] < time - TIME_TOLERANCE:
                clip.append(shown)
        while open_windows and len(open_windows[0][1]) == num_frames:
            yield open_windows.popleft()
        previous = frame
    for begin, clip in open_windows:
        if not begin or begin + window <= time + stride:
            yield begin, clip + [previous] * (num_frames - len(clip))
