"""What is cut out of a video: clips of its frames, one after the other or some of them, and crops of a frame."""

import operator
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.reader import TIME_TOLERANCE, Shrink, VideoReader
from videomae.video.sampling import ClipSampling

Item = TypeVar("Item")

GRACE = 5.0  # seconds that a thread is waited for that is no longer needed


def read_clips(
    video: str | Path | VideoReader | Any,
    sampling: ClipSampling,
    *,
    clip_frames: int,
    num_clips: int = 1,
    square_pixels: bool = True,
    shrink: Shrink | None = None,
    stretch: range | None = None,
) -> list[Any]:
    """Read the clips of a video that a model is shown in a test.

    Args:
        video: a path or an open reader, of which only the frames that are needed are decoded; or frames in memory, a
            list of them or an array (T, H, W, C) or (T, C, H, W). The rate of the latter is not known, and taken for
            what the sampling asks for.
        sampling: which frames make a clip.
        clip_frames: frames in a clip.
        num_clips: spread over the video's length; a single one is its middle.
        square_pixels: of `VideoReader`, for a path; an open reader keeps its own.
        shrink: what is done to each frame of a file as it is decoded, so that one of full size is in memory at a time.
        stretch: of an open reader's frames, those that count as the video; None is all.

    Returns:
        The clips: each (T, H, W, 3) uint8 of a file, or a list of the frames in memory.

    Raises:
        VideoError: if the file cannot be read.
        ValueError: if an array in memory has not 4 axes.
    """
    if isinstance(video, str | Path):
        with VideoReader(video, square_pixels=square_pixels) as reader:
            return read_clips(reader, sampling, clip_frames=clip_frames, num_clips=num_clips, shrink=shrink)
    if isinstance(video, VideoReader):
        stretch = range(len(video)) if stretch is None else stretch
        chosen = sampling(len(stretch), video_fps=video.fps, clip_frames=clip_frames, num_clips=num_clips)
        rows = stretch.start + chosen
        frames = video.frames_at(rows.ravel(), shrink=shrink)
        return list(frames.reshape(*rows.shape, *frames.shape[1:]))
    shape = getattr(video, "shape", None)
    if shape is not None and len(shape) != 4:
        raise ValueError(f"a video must be a list of frames or an array of 4 axes, got the shape {tuple(shape)}.")
    rows = sampling(len(video), video_fps=sampling.fps or 1.0, clip_frames=clip_frames, num_clips=num_clips)
    return [[video[i] for i in row] for row in rows.tolist()]


def spread_crops(height: int, width: int, size: int, num_crops: int) -> list[tuple[int, int]]:
    """Place square crops in a frame, from one end of its long side to the other, as v1 tests.

    Args:
        height: of the frame, pixels.
        width: of the frame.
        size: of a crop, at most as large as both.
        num_crops: how many; 1 is the centre, 3 are both ends and the middle.

    Returns:
        ``(top, left)`` of each crop; fractions of a pixel are dropped, as in v1.

    Raises:
        ValueError: if a crop does not fit in the frame, or ``num_crops`` is below 1.
    """
    if not 0 < size <= min(height, width) or num_crops < 1:
        raise ValueError(
            f"crops must be at least 1 and fit in the frame, got {num_crops} of {size} pixels in {height} x {width}. "
            "Take a smaller crop, or resize the frame first."
        )
    centre = int((height - size) / 2), int((width - size) / 2)
    if num_crops == 1:
        return [centre]
    places = [int(number * (max(height, width) - size) / (num_crops - 1)) for number in range(num_crops)]
    return [(place, centre[1]) if height >= width else (centre[0], place) for place in places]


def read_ahead(items: Iterable[Item], *, stop: Callable[[], object] = lambda: None) -> Generator[Item, None, None]:
    """Yield items in their order; a thread makes the first one at once, and the next while the caller works with one.

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

    def follow(upcoming: Future[Any], thread: Thread) -> Generator[Item, None, None]:
        try:
            while (item := upcoming.result()) is not end:
                upcoming, thread = start()
                yield item
        finally:
            stop()
            thread.join(GRACE)

    return follow(*start())


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield so many items at a time; at the end, and before an error that the items raise, those that are left."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except VideoError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def slide(
    frames: Iterable[tuple[float, Any]],
    *,
    window: float,
    hop: float,
    num_frames: int,
    is_gap: Callable[[float, float], bool] = lambda before, after: False,
    shrink: Callable[[Any], Any] = lambda frame: frame,
) -> Iterator[tuple[float, list[Any]]]:
    """Cut a stream of frames into overlapping clips.

    Args:
        frames: time in seconds and frame, in order.
        window: seconds that a clip spans.
        hop: seconds from one clip to the next.
        num_frames: of a clip, at the middles of as many equal parts; each is what the video shows at that time.
        is_gap: tells of the times of a frame and the next whether there is a gap between. No clip spans one: after
            it, clips begin anew with the first frame.
        shrink: what is done to each frame of a clip, once, such as resize it, so that few of full size are in memory.

    Yields:
        The start of a window and its frames, as soon as they have all come. The last window before a gap or the end
        may reach past it, by up to a hop; its last frames then repeat.
    """
    if not (0 < window < np.inf and 0 < hop < np.inf):
        raise ValueError(f"window and hop must be above 0 and finite, got {window} and {hop} seconds.")
    offsets = (np.arange(num_frames) + 0.5) * window / num_frames
    for _, stretch in groupby(frames, key=_GapCounter(is_gap)):
        yield from _slide_without_gaps(stretch, window, hop, offsets, shrink)


def _slide_without_gaps(
    frames: Iterable[tuple[float, Any]],
    window: float,
    hop: float,
    offsets: NDArray[np.float64],
    shrink: Callable[[Any], Any],
) -> Iterator[tuple[float, list[Any]]]:
    """Cut frames into clips, the first of which begins with the first frame."""
    open_windows: deque[tuple[float, list[Any]]] = deque()
    number, first, time = 0, 0.0, 0.0
    previous: Callable[[], Any] | None = None
    for time, frame in frames:
        current = cache(partial(shrink, frame))  # shrinks it once, where a clip takes it
        first, shown = (time, current) if previous is None else (first, previous)
        while (begin := first + number * hop) <= time:
            open_windows.append((begin, []))
            number += 1
        for begin, clip in open_windows:
            # What is on show at a moment before this frame is the frame before it.
            while len(clip) < len(offsets) and begin + offsets[len(clip)] < time - TIME_TOLERANCE:
                clip.append(shown())
        while open_windows and len(open_windows[0][1]) == len(offsets):
            yield open_windows.popleft()
        previous = current
    last = [] if previous is None else [previous()]
    for begin, clip in open_windows:
        if begin == first or begin + window <= time + hop:
            yield begin, clip + last * (len(offsets) - len(clip))


def mark_repeated(clips: Iterable[tuple[float, list[Any]]]) -> Iterator[tuple[float, list[Any], bool]]:
    """Add to each clip of `slide` whether it is made of the same frames as the one before: a picture that stays."""
    before: list[Any] = []
    for begin, clip in clips:
        yield begin, clip, len(before) == len(clip) and all(map(operator.is_, before, clip))
        before = clip


class _GapCounter:
    """Tells of a frame after how many gaps it comes."""

    def __init__(self, is_gap: Callable[[float, float], bool]) -> None:
        self._is_gap, self._time, self._gaps = is_gap, np.inf, 0

    def __call__(self, item: tuple[float, Any]) -> int:
        self._gaps += self._is_gap(self._time, item[0])
        self._time = item[0]
        return self._gaps
