"""``videomae predict``: say what videos show, or what happens when in them."""

import dataclasses
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.markup import escape

from videomae.config import VideoMAEConfig
from videomae.data.sources import find_videos
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write
from videomae.inference.classifier import DEFAULT_MODEL, Frames, Prediction, VideoClassifier
from videomae.inference.protocols import Sampling
from videomae.options import Flag
from videomae.video.reader import VideoReader
from videomae.video.stream import is_stream

log = logging.getLogger(__name__)
DEFAULT_TOP_K, DEFAULT_THRESHOLD = 5, 0.5


@dataclasses.dataclass
class PredictSettings:
    """Say what videos show: a table of labels, or JSON lines."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Video files, and folders that are searched for them; with --window also a URL (rtsp://...) or device."""

    model: str = DEFAULT_MODEL
    """Directory, weights file, or id on the Hugging Face Hub of a fine-tuned model."""

    views: str = "1x1"
    """Clips spread over the time x crops spread over the frame, e.g. 5x3; their scores are averaged."""

    stride: str | None = None
    """Frames from one of a clip to the next, by default as in the model's training; with --window from one window to
    the next, e.g. 1s, by default half a window."""

    window: str | None = None
    """Slide windows of this length over the whole video, e.g. 2s or 64 (frames), and tell what happens when. Best is
    about the length of the clips in training, e.g. 64 frames for 16 at a stride of 4."""

    threshold: float | None = None
    """With --window: an event of a class needs a window that scores this, by default 0.5, and takes in those around it
    that score --leave."""

    leave: float | None = None
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

    json: Flag = False
    """Print one JSON object per video instead of a table; what could not be read has an "error" in it. With --window a
    stream prints one line per window as it comes, {"path", "start", "end", "label", "score"}, and that object, with
    "events", at its end, which Ctrl-C or SIGTERM brings about."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    dtype: str = "float32"
    """Of the model's parameters: float32, bfloat16, float16, or auto for the stored one."""


@dataclasses.dataclass
class Result:
    """What came out for one file: predictions, or the reason why there are none."""

    path: str
    predictions: list[Prediction]
    error: str | None = None


def predict(settings: PredictSettings) -> Iterator[Result]:
    """Classify files, decoding the next one while the model looks at this one.

    Args:
        settings: what to classify, with what.

    Yields:
        A result per file, in order; a file that cannot be read gives a result with an error.

    Raises:
        CheckpointError: if the model cannot be loaded.
        DataError: if a folder holds no videos.
    """
    top_k = DEFAULT_TOP_K if settings.top_k is None else settings.top_k
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    files = find_videos(settings.files)
    stride = None if settings.stride is None else _frames(settings.stride)
    load = partial(VideoClassifier.from_pretrained, settings.model, device=settings.device, dtype=settings.dtype)
    # A directory tells the length of a clip before its weights are loaded; a file of weights alone does not.
    classifier = load() if Path(settings.model).is_file() else None
    config = classifier.model.config if classifier else VideoMAEConfig.from_pretrained(settings.model)
    sampling = Sampling.of(config, views=settings.views, stride=stride)
    with ThreadPoolExecutor(1) as pool:
        upcoming: list[Future[list[Frames]]] = [pool.submit(sampling.read, files[0])]
        classifier = classifier or load()
        for i, file in enumerate(files):
            upcoming += [pool.submit(sampling.read, following) for following in files[i + 1 : i + 2]]
            try:
                clips = upcoming.pop(0).result()
            except VideoError as error:
                yield Result(str(file), [], str(error))
                continue
            scores = classifier.scores(clips, crops=sampling.num_crops)
            yield Result(str(file), classifier.rank(scores, top_k))


def main(settings: PredictSettings) -> int:
    """Print the results as they come; the exit code is 1 if a file could not be read."""
    if settings.window is not None:
        return _predict_windows(settings)
    for name in ("timeline", "plot", "overlay", "threshold", "leave", "min_length"):
        if getattr(settings, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} needs --window, e.g. --window 2s --stride 1s")
    if streams := [source for source in settings.files if is_stream(source)]:
        raise ValueError(f"{streams[0]} is a stream, which needs --window, e.g. --window 2s --stride 1s")
    results = predict(settings)
    failed = _print_json(results) if settings.json else _print_tables(results, len(find_videos(settings.files)))
    return 1 if failed else 0


def _frames(stride: str) -> float:
    try:
        return float(stride)
    except ValueError:
        raise ValueError(f"--stride {stride} needs --window; without it, it is a number of frames") from None


def _seconds(given: str, source: str, name: str, *, usual: int = 1) -> float:
    """Return the seconds that "2s" stands for, or a number of frames at the file's own rate; warn below the usual."""
    if given.endswith("s"):
        try:
            seconds = float(given[:-1])
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ValueError(f"--{name} must be seconds, such as 2s, or a number of frames, got {given!r}")
        return seconds
    if not given.isdecimal() or is_stream(source):
        raise ValueError(f"--{name} must be seconds, such as 2s, or (for a file) a number of frames, got {given!r}")
    if int(given) < usual:
        log.warning("--%s: %s frames are fewer than the model's %d; did you mean %ss?", name, given, usual, given)
    with VideoReader(source) as reader:
        return int(given) / reader.fps


def _predict_windows(settings: PredictSettings) -> int:
    """Tell what happens when in each source; the exit code is 1 if one could not be read."""
    from rich.console import Console
    from rich.table import Column, Table

    from videomae.inference.timeline import Window, check_threshold, read_timeline
    from videomae.plots.timeline import draw_timeline, write_overlay

    s = settings
    if not s.files:
        raise DataError("name at least one video file, folder, URL or device")
    if s.views != "1x1":
        raise ValueError(
            f"--views {s.views} does not go together with --window, which sees every stretch once: leave it out"
        )
    if s.top_k is not None and not s.json:
        raise ValueError("--top-k with --window needs --json, where each window has its best classes: leave it out")
    if s.top_k is not None and s.top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {s.top_k}")
    threshold = DEFAULT_THRESHOLD if s.threshold is None else s.threshold
    check_threshold(threshold, s.leave)
    sources = [str(f) for source in s.files for f in ([source] if is_stream(source) else find_videos([source]))]
    outputs = [name for name in ("timeline", "plot", "overlay") if getattr(s, name) is not None]
    if outputs and len(sources) != 1:
        raise ValueError(f"--{outputs[0]} is for one video, got {len(sources)}: run it for each")
    if s.timeline is not None and s.timeline.suffix not in (".csv", ".json"):
        raise ValueError(f"--timeline must end in .csv or .json, got {s.timeline}")
    if s.overlay is not None and (is_stream(sources[0]) or s.overlay.suffix != ".mp4"):
        raise ValueError(f"--overlay writes an .mp4 of a file (a stream cannot be read twice), got {s.overlay}")
    if s.plot is not None and s.plot.suffix != ".png":
        raise ValueError(f"--plot must end in .png, got {s.plot}")
    if s.overlay is not None and s.overlay.resolve() == Path(sources[0]).resolve():
        raise ValueError(f"--overlay {s.overlay} is the video itself: name another file")
    notes, console = (Console(stderr=error, highlight=False, soft_wrap=True) for error in (True, False))
    classifier = VideoClassifier.from_pretrained(s.model, device=s.device, dtype=s.dtype)
    classes, failed = tuple(classifier.model.config.id2label.values()), 0

    def show(source: str, window: Window) -> None:
        best = window.to_dict(classes)
        if s.json:
            _print_line({"path": source} | best)
        else:
            notes.print(f"{window.start:8.1f} s  {best['label']}  {best['score']:.2f}", markup=False)

    for source in sources:
        try:
            length = _seconds(s.window or "", source, "window", usual=classifier.model.config.num_frames)
            stride = length / 2 if s.stride is None else _seconds(s.stride, source, "stride")
            with _terminated_as_interrupted(is_stream(source)):
                timeline = read_timeline(
                    classifier,
                    source,
                    window=length,
                    stride=stride,
                    threshold=threshold,
                    leave=s.leave,
                    min_length=s.min_length or 0.0,
                    batch_size=1 if is_stream(source) else 8,
                    on_window=partial(show, source) if is_stream(source) else lambda window: None,
                )
        except VideoError as error:
            failed += 1
            notes.print(f"[red]error:[/red] {escape(str(error))}")
            if s.json:
                _print_line({"path": source, "events": [], "windows": [], "error": str(error)})
            continue
        failed += timeline.error is not None
        timeline = dataclasses.replace(timeline, settings={"model": s.model} | timeline.settings)
        if s.json:
            _print_line({"path": source} | timeline.to_dict(top_k=s.top_k or 1))
        elif timeline.events:
            table = Table(Column(escape(Path(source).name), overflow="fold"), "from", "to", "score")
            for event in timeline.events:
                table.add_row(escape(event.label), f"{event.start:.1f} s", f"{event.end:.1f} s", f"{event.score:.2f}")
            console.print(table)
        else:
            console.print(f"{source}: nothing reaches the threshold {threshold:g}", markup=False)
        if s.timeline is not None:
            timeline.save(s.timeline)
        if s.plot is not None:
            with atomic_write(s.plot) as temporary:
                draw_timeline(timeline, title=Path(source).name).savefig(temporary, format="png", dpi=120)
        if s.overlay is not None:
            write_overlay(source, timeline, s.overlay)
    return 1 if failed else 0


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


def _print_line(content: dict[str, Any]) -> None:
    """Print a JSON object as one line, at once."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _print_json(results: Iterable[Result]) -> int:
    failed = 0
    for result in results:
        failed += result.error is not None
        _print_line(dataclasses.asdict(result))
    return failed


def _print_tables(results: Iterable[Result], total: int) -> int:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Column, Table

    table = Table(Column("video", overflow="fold"), "label", "score")
    errors = Console(stderr=True, highlight=False)
    failed = 0
    for result in track(results, "classifying", total=total, console=errors, transient=True, disable=total == 1):
        if result.error is not None:
            failed += 1
            errors.print(f"[red]error:[/red] {escape(result.error)}", soft_wrap=True)
        for i, prediction in enumerate(result.predictions):
            table.add_row(escape(result.path) if i == 0 else "", escape(prediction.label), f"{prediction.score:.4f}")
    if failed < total:
        Console(highlight=False).print(table)
    if failed:
        errors.print(f"{failed} of {total} videos could not be read")
    return failed
