"""What happens when in a long video: windows slide over it, and what they show is merged into events.

L classes · T frames of a clip
"""

import dataclasses
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.inference.protocols import Protocol
from videomae.video.clips import in_batches, mark_repeated, read_ahead, slide
from videomae.video.damage import Damage, OnError, reading_notes
from videomae.video.reader import TIME_TOLERANCE
from videomae.video.source import is_stream, shown
from videomae.video.stream import FrameStream, stream_frames

if TYPE_CHECKING:
    from videomae.inference.classifier import VideoClassifier

log = logging.getLogger(__name__)


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
        duration: second at which the last frame ends.
        settings: what windows and events were made with: window, hop, threshold, exit_threshold and min_length.
        error: why the source broke off, or None.
        gaps: seconds from and to which there is no picture, because the clock of the source jumps, or the
            connection was lost.
        damage: stretches that did not decode, or that the decoder patched.
        assumed_fps: the rate that times follow from where the source holds none; else None.
        reconnected: the gaps in which the connection was lost.
    """

    windows: tuple[Window, ...]
    events: tuple[Event, ...]
    classes: tuple[str, ...]
    num_frames: int
    duration: float
    settings: dict[str, Any]
    error: str | None = None
    gaps: tuple[tuple[float, float], ...] = ()
    damage: tuple[Damage, ...] = ()
    assumed_fps: float | None = None
    reconnected: tuple[tuple[float, float], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the source was read to its end, all of it decoded, and its connection was never lost."""
        return self.error is None and not self.damage and not self.reconnected

    def notes(self) -> list[str]:
        """Return what a reader should know of the source, in words."""
        about: dict[str, Any] = {"gaps": self.gaps, "reconnected": self.reconnected, "assumed_fps": self.assumed_fps}
        return reading_notes(self.damage, **about)

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
        return {
            "settings": self.settings,
            "events": events,
            "windows": windows,
            "gaps": [{"start": start, "end": end} for start, end in self.gaps],
            "reconnected": [{"start": start, "end": end} for start, end in self.reconnected],
            "damage": [damage._asdict() for damage in self.damage],
            "assumed_fps": self.assumed_fps,
            "error": self.error,
        }


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
    on_error: OnError = "skip",
    fps: float | None = None,
    reconnect: float | None = None,
    follow_playlist: bool = False,
    on_window: Callable[[Window], object] = lambda window: None,
) -> Timeline:
    """Slide a window over a video or stream, and merge what it shows into events.

    Every frame is decoded once; held are the frames of the windows that are not yet complete, so that memory does not
    grow with the length; while the model looks at some windows, a thread decodes the next ones. Windows of one picture
    that stays are looked at once, and none spans a gap. Where a source breaks off, or Ctrl-C ends a stream, what was
    seen so far is returned.

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
        on_error: what to do where the video does not decode: "skip" goes on behind the damage, "truncate" ends before
            it, "raise" raises.
        fps: frames per second of a source that holds no times.
        reconnect: seconds for which a URL that breaks off is connected to again, as for `FrameStream`.
        follow_playlist: the source is one, as for `FrameStream`.
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
    frames = stream_frames(source, on_error=on_error, fps=fps, reconnect=reconnect, follow_playlist=follow_playlist)
    counter = FrameCounter(frames)
    windows: list[Window] = []
    broken: str | None = None
    cut = classifier.view_transform(Protocol("window"))
    about: dict[str, Any] = {"window": window, "hop": hop, "num_frames": classifier.config.num_frames}
    clips = slide(counter, **about, is_gap=frames.is_gap, shrink=cut.shrink)
    processed = ((begin, None if is_repeated else cut(clip)) for begin, clip, is_repeated in mark_repeated(clips))
    try:
        for batch in read_ahead(in_batches(processed, batch_size), stop=counter.stop):
            pixels = [views for _, views in batch if views is not None]
            found = iter(np.asarray(classifier.probabilities(pixels, batch_size=batch_size)) if pixels else ())
            for begin, views in batch:
                scores = windows[-1].scores if views is None else next(found)
                windows.append(Window(begin, begin + window, scores))
                on_window(windows[-1])
    except KeyboardInterrupt:
        if not is_stream(source):
            raise
    except VideoError as error:
        if not windows or (on_error == "raise" and not is_stream(source)):
            raise
        broken = str(error)
        log.warning("%s; what was seen until then is kept", error)
    if not windows:
        raise VideoError(f"{shown(source)} has no frames to look at. Run `videomae check` on it.")
    names = tuple(classifier.config.id2label.values())
    thresholds = {"threshold": threshold, "exit_threshold": exit_threshold, "min_length": min_length}
    gaps = tuple(counter.gaps)
    events = merge_events(windows, names, hop=hop, end=counter.end, gaps=gaps, **thresholds)
    settings = {"window": window, "hop": hop, **thresholds}
    return Timeline(
        tuple(windows),
        tuple(events),
        names,
        counter.frames,
        counter.end,
        settings,
        broken,
        gaps,
        tuple(frames.damage),
        frames.assumed_fps,
        tuple(gap for gap in gaps if gap[1] in frames.reconnected),
    )


def merge_events(
    windows: Sequence[Window],
    classes: Sequence[str],
    *,
    hop: float,
    end: float,
    gaps: Sequence[tuple[float, float]] = (),
    threshold: float = 0.5,
    exit_threshold: float | None = None,
    min_length: float = 0.0,
) -> list[Event]:
    """Merge windows that show the same class, with hysteresis: in at ``threshold``, out below ``exit_threshold``.

    A window speaks for the ``hop`` seconds around its middle, the first and last ones for the ends, too. No event spans
    a gap.

    Args:
        windows: in order.
        classes: L names.
        hop: seconds from one window to the next.
        end: second at which the video ends.
        gaps: seconds from and to which it shows nothing, in order.
        threshold: score at which an event begins, in 0-1.
        exit_threshold: score below which it ends; by default six tenths of the threshold.
        min_length: shorter events are left out, seconds.

    Raises:
        ValueError: if the thresholds do not lie in 0-1, or ``exit_threshold`` above ``threshold``.
    """
    exit_threshold = check_thresholds(threshold, exit_threshold)
    scores = np.stack([window.scores for window in windows])  # (windows, L)
    middles = [(window.start + window.end) / 2 for window in windows]
    events = []
    for stretch, stop in _stretches(windows, gaps, end):
        begins = [windows[stretch[0]].start] + [middles[i] - hop / 2 for i in stretch[1:]]
        ends = [middles[i] + hop / 2 for i in stretch[:-1]] + [max(stop, begins[-1])]
        for label, name in enumerate(classes):
            for first, last in _runs(scores[stretch, label], threshold, exit_threshold):
                score = float(scores[stretch, label][first : last + 1].mean())
                event = Event(name, round(begins[first], 3), round(ends[last], 3), score)
                if event.end - event.start >= min_length:
                    events.append(event)
    return sorted(events, key=lambda event: (event.start, event.label))


def _stretches(
    windows: Sequence[Window], gaps: Sequence[tuple[float, float]], end: float
) -> Iterator[tuple[range, float]]:
    """Yield the numbers of the windows between two gaps, and the second at which their pictures end."""
    starts = [window.start for window in windows]
    edges = [0, *(bisect_left(starts, behind - TIME_TOLERANCE) for _, behind in gaps), len(windows)]
    for (first, last), stop in zip(pairwise(edges), [*(before for before, _ in gaps), end], strict=True):
        if first < last:
            yield range(first, last), stop


def _runs(scores: NDArray[np.float32], threshold: float, exit_threshold: float) -> Iterator[tuple[int, int]]:
    """Yield the first and last of windows that stay at ``exit_threshold`` and reach ``threshold``, (windows,)."""
    is_in = np.concatenate([[False], scores >= exit_threshold, [False]])
    edges = np.flatnonzero(np.diff(is_in))
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if scores[first:stop].max() >= threshold:
            yield first, stop - 1


def check_thresholds(threshold: float, exit_threshold: float | None = None) -> float:
    """Return the score below which an event ends, or raise a ValueError."""
    exit_threshold = 0.6 * threshold if exit_threshold is None else exit_threshold
    if not 0 < exit_threshold <= threshold <= 1:
        raise ValueError(
            "threshold must lie above 0 and up to 1, and exit_threshold not above it, got "
            f"{threshold} and {exit_threshold}."
        )
    return exit_threshold


class FrameCounter:
    """Passes frames on until it is stopped, and keeps how many there were, where they end and the gaps between.

    Args:
        frames: to pass on.

    Attributes:
        frames: how many were passed on.
        end: second after the last of them.
        gaps: seconds from and to which there is no picture.
    """

    def __init__(self, frames: FrameStream) -> None:
        self._source = frames
        self.frames, self.end, self._stopped = 0, 0.0, False
        self.gaps: list[tuple[float, float]] = []

    def stop(self) -> None:
        """Pass on no further frame."""
        self._stopped = True

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        last: float | None = None
        step: float | None = None
        for time, frame in self._source:
            if self._stopped:
                return
            if last is not None and self._source.is_gap(last, time):
                self.gaps.append((self.end, time))
            elif last is not None:
                step = time - last
            # A frame is on show as long as the one before it.
            last, self.frames, self.end = time, self.frames + 1, time + (self._source.step if step is None else step)
            yield time, frame
