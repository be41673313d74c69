"""What happens when in a long video: windows slide over it, and what they show is merged into events.

L classes · T frames of a clip
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.files import write_csv, write_json
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
        settings: what windows and events were made with: window, stride, threshold, leave and min_length.
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

    def save(self, path: str | Path) -> None:
        """Write everything as .json, or the events as .csv.

        In the .json each window has the scores of all ``classes``, so that `merge_events` can be asked again.

        Raises:
            ValueError: if the file's name ends in neither.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".json"):
            raise ValueError(f"a timeline is written as .csv or .json, got {path}")
        if path.suffix == ".json":
            content = self.to_dict() | {"classes": list(self.classes), "duration": self.duration}
            for stored, window in zip(content["windows"], self.windows, strict=True):
                stored["scores"] = [round(float(score), 7) for score in window.scores]
            write_json(path, content)
        else:
            write_csv(path, ("label", "start", "end", "score"), map(dataclasses.astuple, self.events))


def read_timeline(
    classifier: "VideoClassifier",
    source: str | Path,
    *,
    window: float = 2.0,
    stride: float = 1.0,
    threshold: float = 0.5,
    leave: float | None = None,
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
        >>> timeline = read_timeline(classify, "long.mp4", window=2, stride=1)
        >>> [(event.label, event.start, event.end) for event in timeline.events]
        [('moving_up', 0.0, 4.0)]

    Args:
        classifier: model and processor.
        source: file, URL, device or pipe.
        window: seconds that a clip spans; its T frames are spread evenly over them.
        stride: seconds from one window to the next.
        threshold: a class begins when its score reaches this, in 0-1.
        leave: and ends when it falls below this; by default six tenths of the threshold.
        min_length: events shorter than so many seconds are left out.
        batch_size: windows that go through the model at once.
        on_window: called with each window as it is scored.

    Raises:
        VideoError: if the source cannot be read, or shows nothing.
        ValueError: for a setting that makes no sense.
    """
    if min(window, stride) <= 0 or batch_size < 1:
        raise ValueError(f"window, stride and batch_size must be above 0, got {window}, {stride} and {batch_size}")
    if stride > window:
        raise ValueError(f"a stride of {stride} s leaves gaps between windows of {window} s: make it at most as long")
    leave = check_threshold(threshold, leave)
    counter = _Counter(stream_frames(source))
    windows: list[Window] = []
    broken: str | None = None
    clips = slide(counter, window=window, stride=stride, num_frames=classifier.model.config.num_frames)
    try:
        for batch in read_ahead(_batched(_processed(clips, classifier), batch_size), stop=counter.stop):
            for begin, scores in zip([begin for begin, _ in batch], _score(batch, classifier), strict=True):
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
        raise VideoError(f"{source} has no frames to look at")
    duration = counter.time if counter.frames > 1 else _duration_of_one_frame(source)
    names = tuple(classifier.model.config.id2label.values())
    settings = {"window": window, "stride": stride, "threshold": threshold, "leave": leave, "min_length": min_length}
    events = merge_events(
        windows,
        names,
        stride=stride,
        end=duration,
        threshold=threshold,
        leave=leave,
        min_length=min_length,
    )
    return Timeline(tuple(windows), tuple(events), names, counter.frames, duration, settings, broken)


def merge_events(
    windows: Sequence[Window],
    classes: Sequence[str],
    *,
    stride: float,
    end: float,
    threshold: float = 0.5,
    leave: float | None = None,
    min_length: float = 0.0,
) -> list[Event]:
    """Merge windows that show the same class, with hysteresis: in at ``threshold``, out below ``leave``.

    A window speaks for the ``stride`` seconds around its middle, the first and last ones for the ends, too.

    Args:
        windows: in order.
        classes: L names.
        stride: seconds from one window to the next.
        end: length of the video in seconds.
        threshold: score at which an event begins, in 0-1.
        leave: score below which it ends; by default six tenths of the threshold.
        min_length: shorter events are left out, seconds.

    Raises:
        ValueError: if the scores do not lie in 0-1, or ``leave`` above ``threshold``.
    """
    leave = check_threshold(threshold, leave)
    scores = np.stack([window.scores for window in windows])  # (windows, L)
    middles = [(window.start + window.end) / 2 for window in windows]
    begins = [0.0] + [middle - stride / 2 for middle in middles[1:]]
    ends = [middle + stride / 2 for middle in middles[:-1]] + [max(end, begins[-1])]
    events = []
    for label, name in enumerate(classes):
        first: int | None = None
        for i in range(len(windows) + 1):
            score = scores[i, label] if i < len(windows) else 0.0
            if first is None and score >= threshold:
                first = i
                while first > 0 and scores[first - 1, label] >= leave:
                    first -= 1
            elif first is not None and score < leave:
                event = Event(
                    name, round(begins[first], 3), round(ends[i - 1], 3), float(scores[first:i, label].mean())
                )
                if event.end - event.start >= min_length:
                    events.append(event)
                first = None
    return sorted(events, key=lambda event: (event.start, event.label))


def check_threshold(threshold: float, leave: float | None = None) -> float:
    """Return the score below which an event ends, or raise a ValueError."""
    leave = 0.6 * threshold if leave is None else leave
    if not 0 < leave <= threshold <= 1:
        raise ValueError(
            f"the threshold must lie above 0 and up to 1, and leave not above it, got {threshold}, {leave}"
        )
    return leave


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


def _processed(clips: Iterable[tuple[float, list[Any]]], classifier: "VideoClassifier") -> Iterator[tuple[float, Any]]:
    for begin, clip in clips:
        yield begin, next(classifier.crops_of(clip, 1))


def _batched(items: Iterable[tuple[float, Any]], size: int) -> Iterator[list[tuple[float, Any]]]:
    batch: list[tuple[float, Any]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _score(batch: Sequence[tuple[float, Any]], classifier: "VideoClassifier") -> NDArray[np.float32]:
    import torch

    from videomae.inference.classifier import check_finite

    model = classifier.model
    pixels = torch.cat([pixel_values for _, pixel_values in batch])
    with torch.inference_mode():
        logits = model(pixels.to(model.device, model.dtype), return_dict=True).logits
    return check_finite(logits.float().softmax(-1)).cpu().numpy()
