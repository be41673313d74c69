"""What happens when in a long video: windows slide over it, and what they show is merged into events.

L classes · T frames of a clip
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.inference.protocols import Protocol
from videomae.video.clips import read_ahead, slide
from videomae.video.reader import VideoReader
from videomae.video.stream import is_stream, stream_frames

if TYPE_CHECKING:
    from videomae.inference.classifier import VideoClassifier

log = logging.getLogger(__name__)
SINGLE_FRAME = 0.04  # seconds that the only frame of a stream is on show


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a video and the probability of every class in it.

    Attributes:
        start: its first second.
        end: the second after it; the last windows may reach past the video's end.
        scores: (L,) float32.
    """

    start: float
    end: float
    scores: NDArray[np.float32]

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return its times and its best class, ready for JSON."""
        best = int(self.scores.argmax())
        return {
            "start": self.start,
            "end": self.end,
            "label": classes[best],
            "score": round(float(self.scores[best]), 5),
        }


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that a video shows for a while.

    Attributes:
        label: name of the class.
        start: second at which it begins.
        end: second at which it ends.
        score: mean probability of the class over its windows, in 0-1.
    """

    label: str
    start: float
    end: float
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """The windows of a video and the events in it.

    Attributes:
        windows: in order.
        events: by their start.
        classes: the names.
        num_frames: how many frames were decoded, each once.
        duration: seconds from the start of the first frame to the end of the last.
        settings: what windows and events were made with: window, hop, threshold, exit_threshold and min_length.
        error: why a stream broke off, or None.
    """

    windows: tuple[Window, ...]
    events: tuple[Event, ...]
    classes: tuple[str, ...]
    num_frames: int
    duration: float
    settings: dict[str, Any]
    error: str | None = None

    def to_dict(self, *, top_k: int = 1) -> dict[str, Any]:
        """Return settings, events and windows, ready for JSON.

        Args:
            top_k: of each window its best class (1), or a list ``top`` of its best ones, too.
        """
        windows = [window.to_dict(self.classes) for window in self.windows]
        if top_k > 1:
            for content, window in zip(windows, self.windows, strict=True):
                best = np.argsort(-window.scores, kind="stable")[:top_k]
                content["top"] = [{"label": self.classes[i], "score": round(float(window.scores[i]), 5)} for i in best]
        events = [dataclasses.asdict(event) for event in self.events]
        return {"settings": self.settings, "events": events, "windows": windows, "error": self.error}


def read_timeline(
    classifier: "VideoClassifier",
    source: str | Path,
    *,
    window: float = 2.0,
    hop: float = 1.0,
    threshold: float = 0.5,
    exit_threshold: float | None = None,
    min_length: float = 0.0,
    batch_size: int = 8,
    on_window: Callable[[Window], object] = lambda window: None,
) -> Timeline:
    """Slide a window over a video or stream, and merge what it shows into events.

    Every frame is decoded once; held are the frames of the windows that are not yet complete, so that memory does not
    grow with the length; while the model looks at some windows, a thread decodes the next ones. Where a stream breaks
    off, or Ctrl-C ends it, what was seen so far is returned.

        >>> from videomae import VideoClassifier
        >>> classify = VideoClassifier.from_pretrained("run/model")
        >>> timeline = read_timeline(classify, "long.mp4", window=2, hop=1)
        >>> [(event.label, event.start, event.end) for event in timeline.events]
        [('moving_up', 0.0, 4.0)]

    Args:
        classifier: model and processor.
        source: file, URL, device or pipe.
        window: seconds that a clip spans; its T frames are spread evenly over them.
        hop: seconds from one window to the next.
        threshold: an event of a class begins when its score reaches this, in 0-1.
        exit_threshold: and ends when it falls below this; by default six tenths of the threshold.
        min_length: events shorter than so many seconds are left out.
        batch_size: windows that go through the model at once.
        on_window: called with each window as it is scored.

    Raises:
        VideoError: if the source cannot be read, or shows nothing.
        ValueError: for a setting that makes no sense.
    """
    if min(window, hop) <= 0 or batch_size < 1:
        raise ValueError(f"window, hop and batch_size must be above 0, got {window}, {hop} and {batch_size}.")
    if hop > window:
        raise ValueError(f"a hop of {hop} s leaves gaps between windows of {window} s: make it at most as long.")
    exit_threshold = check_thresholds(threshold, exit_threshold)
    counter = _Counter(stream_frames(source))
    windows: list[Window] = []
    broken: str | None = None
    clips = slide(counter, window=window, hop=hop, num_frames=classifier.config.num_frames)
    cut = classifier.view_transform(Protocol("window"))
    processed = ((begin, cut(clip)) for begin, clip in clips)
    batches = iter(lambda: list(islice(processed, batch_size)), [])
    try:
        for batch in read_ahead(batches, stop=counter.stop):
            begins, pixels = zip(*batch, strict=True)
            probabilities = np.asarray(classifier.probabilities(list(pixels), batch_size=batch_size))
            for begin, scores in zip(begins, probabilities, strict=True):
                windows.append(Window(begin, begin + window, scores))
                on_window(windows[-1])
    except KeyboardInterrupt:
        if not is_stream(source):
            raise
    except VideoError as error:
        if not (windows and is_stream(source)):
            raise
        broken = str(error)
        log.warning("%s; what was seen until then is kept", error)
    if not windows:
        raise VideoError(f"{source} has no frames to look at. Run `videomae check` on it.")
    duration = counter.time if counter.frames > 1 else _duration_of_one_frame(source)
    names = tuple(classifier.config.id2label.values())
    thresholds = {"threshold": threshold, "exit_threshold": exit_threshold, "min_length": min_length}
    events = merge_events(windows, names, hop=hop, end=duration, **thresholds)
    settings = {"window": window, "hop": hop, **thresholds}
    return Timeline(tuple(windows), tuple(events), names, counter.frames, duration, settings, broken)


def merge_events(
    windows: Sequence[Window],
    classes: Sequence[str],
    *,
    hop: float,
    end: float,
    threshold: float = 0.5,
    exit_threshold: float | None = None,
    min_length: float = 0.0,
) -> list[Event]:
    """Merge windows that show the same class, with hysteresis: in at ``threshold``, out below ``exit_threshold``.

    A window speaks for the ``hop`` seconds around its middle, the first and last ones for the ends, too.

    Args:
        windows: in order.
        classes: L names.
        hop: seconds from one window to the next.
        end: length of the video in seconds.
        threshold: score at which an event begins, in 0-1.
        exit_threshold: score below which it ends; by default six tenths of the threshold.
        min_length: shorter events are left out, seconds.

    Raises:
        ValueError: if the thresholds do not lie in 0-1, or ``exit_threshold`` above ``threshold``.
    """
    exit_threshold = check_thresholds(threshold, exit_threshold)
    scores = np.stack([window.scores for window in windows])  # (windows, L)
    middles = [(window.start + window.end) / 2 for window in windows]
    begins = [0.0] + [middle - hop / 2 for middle in middles[1:]]
    ends = [middle + hop / 2 for middle in middles[:-1]] + [max(end, begins[-1])]
    events = []
    for label, name in enumerate(classes):
        first: int | None = None
        for i in range(len(windows) + 1):
            score = scores[i, label] if i < len(windows) else 0.0
            if first is None and score >= threshold:
                first = i
                while first > 0 and scores[first - 1, label] >= exit_threshold:
                    first -= 1
            elif first is not None and score < exit_threshold:
                event = Event(
                    name, round(begins[first], 3), round(ends[i - 1], 3), float(scores[first:i, label].mean())
                )
                if event.end - event.start >= min_length:
                    events.append(event)
                first = None
    return sorted(events, key=lambda event: (event.start, event.label))


def check_thresholds(threshold: float, exit_threshold: float | None = None) -> float:
    """Return the score below which an event ends, or raise a ValueError."""
    exit_threshold = 0.6 * threshold if exit_threshold is None else exit_threshold
    if not 0 < exit_threshold <= threshold <= 1:
        raise ValueError(
            "threshold must lie above 0 and up to 1, and exit_threshold not above it, got "
            f"{threshold} and {exit_threshold}."
        )
    return exit_threshold


class _Counter:
    """Passes frames on until it is stopped, and keeps how many there were and the time of the last one."""

    def __init__(self, frames: Iterable[tuple[float, Any]]) -> None:
        self._source = frames
        self.frames, self.time, self._stopped = 0, 0.0, False

    def stop(self) -> None:
        self._stopped = True

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        for time, frame in self._source:
            if self._stopped:
                return
            step = time - self.time
            self.frames, self.time = self.frames + 1, time
            yield time, frame
        self.time += step if self.frames > 1 else 0.0  # the last frame is on show as long as the one before it


def _duration_of_one_frame(source: str | Path) -> float:
    if is_stream(source):
        return SINGLE_FRAME
    with VideoReader(source) as reader:
        return reader.duration or SINGLE_FRAME
