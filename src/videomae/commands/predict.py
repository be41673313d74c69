"""``videomae predict``: say what videos show, or what happens when in them."""

import dataclasses
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.markup import escape

from videomae.console import notes, output, print_json, progress_bar
from videomae.data.sources import find_videos
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write
from videomae.inference.classifier import VideoClassifier, predict
from videomae.inference.engines.formats import EngineName
from videomae.inference.loading import DEFAULT_MODEL
from videomae.inference.protocols import ProtocolName
from videomae.options import Dtype, Flag, Seconds
from videomae.video.damage import OnError
from videomae.video.reader import past_damage
from videomae.video.source import is_seekable_url, is_stream, protocol_of, shown

if TYPE_CHECKING:
    from videomae.inference.timeline import Timeline, Window

log = logging.getLogger(__name__)
DEFAULT_TOP_K, DEFAULT_THRESHOLD = 5, 0.5
STANDARD_INPUT = "/dev/stdin"
OF_WINDOWS = (
    "hop",
    "threshold",
    "exit_threshold",
    "min_length",
    "timeline",
    "plot",
    "overlay",
    "reconnect",
    "follow_playlist",
)
OF_CLIPS = ("stride", "views", "protocol")


@dataclasses.dataclass
class PredictSettings:
    """Say what videos show: a table of labels, or JSON lines."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Video files, http and https URLs, and folders that are searched for videos; with --window also a live stream
    (rtsp://...), pipe or device, or - for the standard input."""

    model: str = DEFAULT_MODEL
    """Directory, weights file, or id on the Hugging Face Hub of a fine-tuned model."""

    protocol: ProtocolName | None = None
    """What the model sees of a video: by default "center", the middle, its frames chosen as in the model's training; or
    what the published tests of a benchmark show. The scores of all views are averaged."""

    views: str | None = None
    """In place of the protocol's: clips spread over the time x crops spread over the frame, e.g. 5x3."""

    stride: str | None = None
    """In place of the protocol's: frames from one of a clip to the next."""

    window: str | None = None
    """Slide windows of this length over the whole video, e.g. 2s or 64 (frames), and say what happens when. Best is
    about the length of the clips in training, e.g. 64 frames for 16 at a stride of 4."""

    hop: str | None = None
    """With --window: from one window to the next, e.g. 1s or 32 (frames), by default half a window."""

    threshold: float | None = None
    """With --window: an event of a class needs a window that scores this, by default 0.5, and takes in those around it
    that score --exit-threshold."""

    exit_threshold: float | None = None
    """With --window: an event ends where its class scores less than this, by default six tenths of the threshold."""

    min_length: float | None = None
    """With --window: leave out events shorter than so many seconds."""

    timeline: Path | None = None
    """With --window: write the events here, as .csv, or .json (with the scores of all classes in all windows)."""

    plot: Path | None = None
    """With --window: draw scores and events over the time here, as .png."""

    overlay: Path | None = None
    """With --window: write the video with its events drawn on it here, as .mp4."""

    top_k: int | None = None
    """How many classes to show, by default 5; with --window --json, how many of each window, by default 1."""

    on_error: OnError = "skip"
    """Where a video does not decode: skip the damage and name it, truncate the video there, or raise an error."""

    fps: float | None = None
    """Frames per second of sources that hold no times, such as a raw .h264 or .mjpeg; others keep their own."""

    reconnect: Seconds | None = None
    """With --window: connect again to a URL that breaks off, for so many seconds, such as 10s."""

    follow_playlist: Flag = False
    """With --window: the source is a playlist (.m3u8, .mpd, .ffconcat), and what it names is opened: addresses where it
    is a URL, files beside it where it is a file. Do so only where you trust who wrote it."""

    json: Flag = False
    """Print one JSON object per video instead of a table; what could not be read has an "error" in it, and what did not
    decode a list "damage". With --window a
    stream prints one line per window as it comes, {"path", "start", "end", "label", "score"}, and that object, with
    "events", at its end, which Ctrl-C or SIGTERM brings about."""

    engine: EngineName | None = None
    """What runs the model: torch, or openvino or onnx for what `videomae export` wrote; by default what is there."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, or what the engine knows; by default a GPU if there is one, with OpenVINO and ONNX the
    CPU."""

    dtype: Dtype = None


def main(settings: PredictSettings) -> int:
    """Print the results as they come; the exit code is 1 if a file could not be read."""
    if settings.top_k is not None and settings.top_k < 1:
        raise ValueError(f"--top-k must be at least 1, got {settings.top_k}.")
    files = tuple(STANDARD_INPUT if file == "-" else file for file in settings.files)
    settings = dataclasses.replace(settings, files=files)
    failed = _predict_clips(settings) if settings.window is None else _predict_windows(settings)
    return 1 if failed else 0


def _predict_clips(settings: PredictSettings) -> int:
    """Print the labels of each file; return how many could not be read."""
    from rich.table import Column, Table

    s = settings
    if needless := [name for name in OF_WINDOWS if getattr(s, name) is not None and getattr(s, name) is not False]:
        raise ValueError(f"{_option(needless[0])} needs --window, e.g. --window 2s --hop 1s.")
    if streams := [source for source in s.files if is_stream(source) and not is_seekable_url(source)]:
        raise ValueError(f"{shown(streams[0])} is a stream, which needs --window, e.g. --window 2s --hop 1s.")
    files = find_videos(s.files)
    results = predict(
        files,
        model=s.model,
        top_k=DEFAULT_TOP_K if s.top_k is None else s.top_k,
        protocol=s.protocol or "center",
        views=s.views,
        stride=_frames(s.stride),
        engine=s.engine,
        device=s.device,
        dtype=s.dtype,
        on_error=s.on_error,
        fps=s.fps,
    )
    table = Table(Column("video", overflow="fold"), "label", "score")
    failed, total = 0, len(files)
    with progress_bar("classifying", shown=total > 1 and not s.json) as progress:
        for done, result in enumerate(results, start=1):
            failed += not result.is_whole
            if s.json:
                print_json(result.to_dict())
            elif result.error is not None:
                _print_error(result.error)
            else:
                _print_notes(result.path, result.notes())
            for i, best in enumerate(result.predictions):
                table.add_row(escape(result.path) if i == 0 else "", escape(best.label), f"{best.score:.4f}")
            progress(done, total)
    if not s.json and failed < total:
        output().print(table)
    if not s.json and failed:
        notes().print(f"{failed} of {total} videos could not be read")
    return failed


def _predict_windows(settings: PredictSettings) -> int:
    """Print what happens when in each source; return how many could not be read to their end."""
    from videomae.inference.timeline import read_timeline

    s = settings
    sources = _check_windows(s)
    classifier = VideoClassifier.from_pretrained(s.model, engine=s.engine, device=s.device, dtype=s.dtype)
    config, failed = classifier.config, 0
    for source in sources:
        try:
            window = _seconds(s.window or "", source, "window", fps=s.fps, usual=config.num_frames)
            hop = window / 2 if s.hop is None else _seconds(s.hop, source, "hop", fps=s.fps)
            with _terminated_as_interrupted(is_stream(source)), _window_shower(s, source, classifier) as show:
                timeline = read_timeline(
                    classifier,
                    source,
                    window=window,
                    hop=hop,
                    threshold=DEFAULT_THRESHOLD if s.threshold is None else s.threshold,
                    exit_threshold=s.exit_threshold,
                    min_length=s.min_length or 0.0,
                    batch_size=1 if is_stream(source) else 8,
                    on_error=s.on_error,
                    fps=s.fps,
                    reconnect=s.reconnect,
                    follow_playlist=s.follow_playlist,
                    on_window=show,
                )
        except VideoError as error:
            failed += 1
            _print_error(str(error))
            if s.json:
                print_json({"path": shown(source), "events": [], "windows": [], "error": str(error)})
            continue
        timeline = dataclasses.replace(timeline, settings={"model": s.model} | timeline.settings)
        _show_timeline(s, source, timeline)
        try:
            _write_timeline(s, source, timeline)
        except VideoError as error:  # of the overlay; the rest is written
            failed += 1
            _print_error(str(error))
        else:
            failed += not timeline.is_whole
    return failed


def _check_windows(settings: PredictSettings) -> list[str]:
    """Return the sources to look at, or raise a ValueError for options that do not go together."""
    from videomae.inference.timeline import check_thresholds
    from videomae.plots.timeline import TABLES

    s = settings
    if not s.files:
        raise DataError("name at least one video file, folder, URL or device.")
    if s.stride is not None:
        raise ValueError(
            f"--stride is the distance between the frames of a clip, which --window sets; from one window to the next "
            f"it is --hop: write --hop {s.stride}."
        )
    if needless := [name for name in OF_CLIPS if getattr(s, name) is not None]:
        raise ValueError(f"{_option(needless[0])} does not go together with --window, which sees all: leave it out.")
    if s.top_k is not None and not s.json:
        raise ValueError("--top-k with --window needs --json, where each window has its best classes: leave it out.")
    check_thresholds(DEFAULT_THRESHOLD if s.threshold is None else s.threshold, s.exit_threshold)
    sources = [str(f) for source in s.files for f in ([source] if is_stream(source) else find_videos([source]))]
    for name, endings in {"timeline": TABLES, "plot": (".png",), "overlay": (".mp4",)}.items():
        path: Path | None = getattr(s, name)
        if path is None:
            continue
        if len(sources) != 1:
            raise ValueError(f"--{name} is for one video, got {len(sources)}: run it for each.")
        if path.suffix not in endings:
            raise ValueError(f"--{name} must end in {' or '.join(endings)}, got {path}.")
        if path.resolve() == Path(sources[0]).resolve():
            raise ValueError(f"--{name} {path} is the video itself: name another file.")
    if s.reconnect is not None and (other := next((source for source in sources if not protocol_of(source)), None)):
        raise ValueError(f"--reconnect is for URLs, which {shown(other)} is not: leave it out.")
    if s.overlay is not None and is_stream(sources[0]):
        raise ValueError("--overlay reads the video a second time, which a stream does not allow: leave it out.")
    return sources


@contextmanager
def _window_shower(
    settings: PredictSettings, source: str, classifier: VideoClassifier
) -> "Iterator[Callable[[Window], object]]":
    """Yield what shows a window when it was looked at: a line for one of a stream, a file moves a bar."""
    if is_stream(source):
        yield partial(_show_window, settings, source, tuple(classifier.config.id2label.values()))
        return
    seconds = past_damage(source, lambda reader: math.ceil(reader.duration), fps=settings.fps)[0]
    with progress_bar("seconds looked at") as progress:
        yield lambda window: progress(min(math.ceil(window.end), seconds), seconds)


def _show_window(settings: PredictSettings, source: str, classes: Sequence[str], window: "Window") -> None:
    """Print a window of a stream as it comes."""
    best = window.to_dict(classes)
    if settings.json:
        print_json({"path": shown(source)} | best)
    else:
        notes().print(f"{window.start:8.1f} s  {best['label']}  {best['score']:.2f}", markup=False)


def _show_timeline(settings: PredictSettings, source: str, timeline: "Timeline") -> None:
    from rich.table import Column, Table

    _print_notes(shown(source), timeline.notes())
    if settings.json:
        print_json({"path": shown(source)} | timeline.to_dict(top_k=settings.top_k or 1))
    elif timeline.events:
        table = Table(Column(escape(Path(shown(source)).name), overflow="fold"), "from", "to", "score")
        for event in timeline.events:
            table.add_row(escape(event.label), f"{event.start:.1f} s", f"{event.end:.1f} s", f"{event.score:.2f}")
        output().print(table)
    else:
        threshold = timeline.settings["threshold"]
        output().print(f"{shown(source)}: nothing reaches the threshold {threshold:g}", markup=False)


def _write_timeline(settings: PredictSettings, source: str, timeline: "Timeline") -> None:
    from videomae.plots.timeline import draw_timeline, write_overlay, write_timeline

    if settings.timeline is not None:
        write_timeline(timeline, settings.timeline)
    if settings.plot is not None:
        with atomic_write(settings.plot) as temporary:
            draw_timeline(timeline, title=Path(shown(source)).name).savefig(temporary, format="png", dpi=120)
    if settings.overlay is not None:
        write_overlay(source, timeline, settings.overlay, on_error=settings.on_error, fps=settings.fps)


def _frames(stride: str | None) -> float | None:
    """Return the number of frames that --stride stands for."""
    try:
        return None if stride is None else float(stride)
    except ValueError:
        raise ValueError(
            f"--stride must be a number of frames, got {stride!r}. From one window to the next it is --hop {stride}, "
            "which needs --window."
        ) from None


def _seconds(given: str, source: str, name: str, *, fps: float | None, usual: int = 1) -> float:
    """Return the seconds that "2s" stands for, or a number of frames at the file's own rate; warn below the usual."""
    if given.endswith("s"):
        try:
            seconds = float(given[:-1])
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ValueError(f"--{name} must be seconds, such as 2s, or a number of frames, got {given!r}.")
        return seconds
    if not given.isdecimal() or is_stream(source):
        raise ValueError(f"--{name} must be seconds, such as 2s, or (for a file) a number of frames, got {given!r}.")
    if int(given) < usual:
        log.warning("--%s: %s frames are fewer than the model's %d; did you mean %ss?", name, given, usual, given)
    return int(given) * past_damage(source, lambda reader: 1 / reader.fps, fps=fps)[0]


@contextmanager
def _terminated_as_interrupted(wanted: bool) -> Iterator[None]:
    """Let SIGTERM, with which services are stopped, end the block as Ctrl-C does."""
    if not wanted or threading.current_thread() is not threading.main_thread():  # others may set no handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _print_notes(source: str, found: Sequence[str]) -> None:
    for note in found:
        notes().print(f"[yellow]note:[/yellow] {escape(source)} {escape(note)}")


def _print_error(error: str) -> None:
    notes().print(f"[red]error:[/red] {escape(error)}")
