"""Timelines as files: a table, a picture of scores and events, and the video with its events drawn on it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videomae.files import atomic_write, write_csv, write_json
from videomae.inference.timeline import Event, Timeline
from videomae.plots.style import COLOURS, plain
from videomae.video.damage import OnError
from videomae.video.encode import VideoWriter
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = (".csv", ".json")
SHOWN_CLASSES = 6
READABLE_WIDTH = 320
OVERLAY_CLOCK = 90_000  # ticks per second


def write_timeline(timeline: Timeline, path: str | Path) -> None:
    """Write everything as .json, or the events as .csv.

    In the .json each window has the scores of all ``classes``, so that `merge_events` can be asked again.

    Raises:
        ValueError: if the file's name ends in neither.
    """
    path = Path(path)
    if path.suffix not in TABLES:
        raise ValueError(f"a timeline is written as .csv or .json, got {path}.")
    if path.suffix == ".json":
        content = timeline.to_dict() | {"classes": list(timeline.classes), "duration": timeline.duration}
        for stored, window in zip(content["windows"], timeline.windows, strict=True):
            stored["scores"] = [round(float(score), 7) for score in window.scores]
        write_json(path, content)
    else:
        write_csv(path, ("label", "start", "end", "score"), map(dataclasses.astuple, timeline.events))


def draw_timeline(timeline: Timeline, *, title: str = "") -> "Figure":
    """Return a picture of the scores over the time, and of the events below."""
    from matplotlib.figure import Figure

    scores = np.stack([window.scores for window in timeline.windows])
    of_events = {event.label: event.end - event.start for event in timeline.events}
    by_score = scores.max(axis=0)
    order = sorted(range(len(timeline.classes)), key=lambda i: (timeline.classes[i] not in of_events, -by_score[i]))
    shown = order[:SHOWN_CLASSES]
    middles = np.array([(window.start + window.end) / 2 for window in timeline.windows])
    behind_gaps = np.searchsorted(
        [window.start for window in timeline.windows], [end - 1e-6 for _, end in timeline.gaps]
    )
    middles, scores = np.insert(middles, behind_gaps, np.nan), np.insert(scores, behind_gaps, np.nan, axis=0)
    figure = Figure(figsize=(10, 2.6 + 0.28 * len(shown)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.5 + 0.35 * len(shown)])
    for row, label in enumerate(shown):
        name, colour = timeline.classes[label], COLOURS[row % len(COLOURS)]
        above.plot(middles, scores[:, label], color=colour, linewidth=1.4, label=plain(name))
        above.fill_between(middles, scores[:, label], color=colour, alpha=0.12)
        for event in (event for event in timeline.events if event.label == name):
            below.barh(row, event.end - event.start, left=event.start, height=0.6, color=colour)
    above.set_ylim(0, 1.02)
    above.set_ylabel("score")
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    below.set_yticks(range(len(shown)), [plain(timeline.classes[label]) for label in shown], fontsize=8)
    below.set_ylim(len(shown) - 0.5, -0.5)
    below.set_xlim(0, timeline.windows[-1].end)
    left_out = len(of_events.keys() - {timeline.classes[label] for label in shown})
    below.set_xlabel("seconds" + (f" ({left_out} more classes have events)" if left_out else ""))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        above.set_title(plain(title), fontsize=10, loc="left")
    return figure


def write_overlay(
    source: str | Path, timeline: Timeline, path: str | Path, *, on_error: OnError = "skip", fps: float | None = None
) -> None:
    """Write a video again with the labels of its events and a bar of their scores drawn on it (H.264, no sound).

    The video is decoded a second time, as an event is known only at its end; memory does not grow with the length.

    Args:
        source: the file that the timeline is of.
        timeline: what to draw.
        path: of the video to write.
        on_error: as the timeline was made with.
        fps: likewise.

    Raises:
        VideoError: if the source cannot be read, or the video cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    on_error = on_error if timeline.damage else "raise"
    with (
        VideoReader(source, on_error=on_error, fps=fps) as reader,
        atomic_write(Path(path)) as temporary,
    ):
        enlarged = -(-READABLE_WIDTH // reader.width)  # so that a label fits into a small picture
        width, height = (side * enlarged // 2 * 2 for side in (reader.width, reader.height))
        size = max(height // 18, 12)
        font = ImageFont.load_default(size)
        form: dict[str, Any] = {"size": (height, width), "fps": reader.fps, "clock": OVERLAY_CLOCK, "format": "mp4"}
        with VideoWriter(temporary, **form, name=path) as writer:
            for time, frame in reader:
                picture = Image.fromarray(frame)
                if enlarged > 1:
                    picture = picture.resize((picture.width * enlarged, picture.height * enlarged))
                picture = picture.crop((0, 0, width, height))
                pen = ImageDraw.Draw(picture, "RGBA")
                top = 6
                for event in timeline.events:
                    if event.start <= time < event.end:
                        _draw_label(
                            pen, (6, top), event, COLOURS[timeline.classes.index(event.label) % len(COLOURS)], font
                        )
                        top += round(size * 1.9)
                pen.rectangle((0, height - 4, width * time / max(timeline.duration, 1e-9), height), fill="#fff9")
                writer.write(np.asarray(picture), tick=round(time * OVERLAY_CLOCK))


def _draw_label(pen: Any, corner: tuple[int, int], event: Event, colour: str, font: Any) -> None:
    x, y = corner
    text = f"{event.label}  {event.score:.0%}"
    _, _, right, bottom = pen.textbbox((x + 6, y + 3), text, font=font)
    pen.rectangle((x, y, right + 6, bottom + 7), fill="#000a")
    pen.rectangle((x, bottom + 4, x + (right + 6 - x) * event.score, bottom + 7), fill=colour)
    pen.text((x + 6, y + 3), text, font=font, fill="white")
