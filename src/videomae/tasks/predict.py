"""Say what videos show: files in, labels out."""

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import tyro
from rich.markup import escape

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import CheckpointError, DataError, VideoError
from videomae.files import atomic_write
from videomae.hub import find_file, split_hub_options
from videomae.video.manifest import video_files
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videomae.video.stream import is_stream

if TYPE_CHECKING:
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

log = logging.getLogger(__name__)

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
DEFAULT_MODEL = "MCG-NJU/videomae-base-finetuned-kinetics"
DEFAULT_TOP_K, DEFAULT_THRESHOLD = 5, 0.5

Frames = np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and its score.

    Attributes:
        label: name of the class.
        score: probability in 0-1, the mean of the softmax over all views.
    """

    label: str
    score: float


class VideoClassifier:
    """A fine-tuned model with its processor: a video in, labels out.

        >>> classify = VideoClassifier.from_pretrained("run/model")
        >>> [(p.label, 0 < p.score < 1) for p in classify("clip.mp4", top_k=1)]
        [('moving_up', True)]

    Args:
        model: the classifier, on the device where it should run.
        processor: turns frames into its input.
    """

    def __init__(self, model: "VideoMAEForVideoClassification", processor: VideoMAEImageProcessor) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path = DEFAULT_MODEL,
        *,
        device: "torch.device | str | None" = None,
        dtype: "torch.dtype | str | None" = None,
        **options: Any,
    ) -> Self:
        """Load a fine-tuned checkpoint of any family.

        Args:
            path_or_id: a directory, a weights file, or the id of a model on the Hugging Face Hub.
            device: where to run; None takes a GPU if there is one.
            dtype: of the parameters, e.g. "bfloat16"; None is float32.
            options: as for ``VideoMAEForVideoClassification.from_pretrained``.

        Raises:
            CheckpointError: if the checkpoint cannot be read, or has no classifier.
        """
        from videomae.models.videomae import VideoMAEForVideoClassification
        from videomae.models.weights import open_checkpoint

        hub_options, overrides = split_hub_options(options)
        checkpoint = open_checkpoint(path_or_id, **hub_options)
        if checkpoint.task != "classification" or "classifier.weight" not in checkpoint.tensors:
            raise CheckpointError(
                f"{path_or_id} is a checkpoint for {checkpoint.task}, it has no classifier: fine-tune it first, or "
                f"use another, such as {DEFAULT_MODEL}"
            )
        model = VideoMAEForVideoClassification.from_checkpoint(checkpoint, dtype=dtype, **overrides)
        return cls(model.to(choose_device(device)), load_processor(path_or_id, model.config, **hub_options))

    def __call__(
        self, video: str | Path | Any, *, top_k: int = 5, views: str = "1x1", stride: float | None = None
    ) -> list[Prediction]:
        """Classify one video.

        Args:
            video: a path; or its frames: uint8 (T, H, W, 3), a list of images, or what else the processor takes as a
                clip. Frames are sampled from the latter as from a file.
            top_k: how many classes to return.
            views: "TxS", clips spread over the time x crops spread over the long side; "1x1" is the middle of both.
            stride: distance between the frames of a clip, in frames; by default they are chosen as in training
                (``config.clip_sampling``, ``clip_stride`` and ``clip_fps``).

        Returns:
            The ``top_k`` best classes, best first.

        Raises:
            VideoError: if the file cannot be read.
            ValueError: if ``top_k`` or ``views`` makes no sense.
        """
        sampling = Sampling.of(self.model.config, views=views, stride=stride)
        clips = sampling.read(video) if isinstance(video, str | Path) else sampling.pick(video)
        return self.rank(self.scores(clips, crops=sampling.crops), top_k)

    def scores(self, clips: Sequence[Any], *, crops: int = 1) -> "torch.Tensor":
        """Return the probability of every class, (L,) float32, averaged over clips and crops.

        Args:
            clips: of one video, each a (T, H, W, C) array or a list of images.
            crops: crops spread over the long side of a frame; 1 is the centre.
        """
        import torch

        total = torch.zeros(self.model.config.num_labels)
        with torch.inference_mode():
            for clip in clips:
                for pixel_values in self.crops_of(clip, crops):
                    outputs = self.model(pixel_values.to(self.model.device, self.model.dtype), return_dict=True)
                    logits = outputs.logits
                    total += logits.float().softmax(-1)[0].cpu()
        return check_finite(total / (len(clips) * crops))

    def crops_of(self, clip: Any, crops: int) -> Iterator["torch.Tensor"]:
        """Yield the processed crops of a clip, each (1, T, C, H, W) float32."""
        if crops == 1:
            yield self.processor(clip, return_tensors="pt").pixel_values
            return
        whole = self.processor(clip, do_center_crop=False, return_tensors="pt").pixel_values
        height, width = self.model.config.frame_size
        room = (whole.shape[-2] - height, whole.shape[-1] - width)
        if min(room) < 0:
            raise ValueError(
                f"several crops need frames of at least {(height, width)} pixels after resizing, got "
                f"{tuple(whole.shape[-2:])}: set the processor's size, or use one crop"
            )
        for i in range(crops):
            # The long side is walked from end to end, the other one stays in the middle.
            top, left = (round(i * free / (crops - 1)) if free == max(room) else free // 2 for free in room)
            yield whole[..., top : top + height, left : left + width]

    def rank(self, scores: "torch.Tensor", top_k: int) -> list[Prediction]:
        """Return the ``top_k`` best classes of (L,) scores, best first."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        best = scores.topk(min(top_k, len(scores)))
        labels = self.model.config.id2label
        return [Prediction(labels[i], s) for s, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def check_finite(scores: "torch.Tensor") -> "torch.Tensor":
    """Return scores as they are, or raise a ValueError if they are no numbers."""
    if not scores.isfinite().all():
        raise ValueError("the model answers with NaN: its weights are damaged, or too large for float16 (try float32)")
    return scores


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which parts of a video a model looks at.

    Attributes:
        choice: of the frames of the clips, which are spread over the video's length; a single one is its middle.
        crops: crops spread over the long side of a frame; 1 is the centre.
    """

    choice: ClipSampling
    crops: int = 1

    @classmethod
    def of(cls, config: VideoMAEConfig, *, views: str = "1x1", stride: float | None = None) -> Self:
        """Choose frames as in a model's training, or every ``stride``-th of the video's own."""
        clips, crops = parse_views(views)
        if stride is not None:
            return cls(ClipSampling("dense", config.num_frames, stride, clips), crops)
        return cls(
            ClipSampling(config.clip_sampling, config.num_frames, config.clip_stride, clips, config.clip_fps), crops
        )

    def read(self, path: str | Path) -> list[Frames]:
        """Read the clips of a video file, each (T, H, W, 3) uint8; only what they need is decoded."""
        with VideoReader(path) as reader:
            indices = self.choice(reader.num_frames, video_fps=reader.fps)
            frames = reader.frames_at(indices.ravel())
        return list(frames.reshape(*indices.shape, *frames.shape[1:]))

    def pick(self, frames: Any) -> list[Any]:
        """Pick the clips out of frames in memory: a list of them, or an array (T, H, W, C) or (T, C, H, W)."""
        shape = getattr(frames, "shape", None)
        if shape is not None and len(shape) != 4:
            raise ValueError(f"a video must be a list of frames or an array of 4 axes, got the shape {tuple(shape)}")
        indices = self.choice(len(frames), video_fps=self.choice.fps or 1.0)  # their rate is not known
        return [[frames[i] for i in row] for row in indices.tolist()]


def parse_views(views: str) -> tuple[int, int]:
    """Read "5x3" as 5 clips in time, 3 crops in space."""
    clips, _, crops = views.partition("x")
    if not (clips.isdecimal() and crops.isdecimal() and int(clips) and int(crops)):
        raise ValueError(f"views must be CLIPSxCROPS, e.g. 5x3, got {views!r}")
    return int(clips), int(crops)


def load_processor(path_or_id: str | Path, config: VideoMAEConfig, **hub_options: Any) -> VideoMAEImageProcessor:
    """Load a checkpoint's processor; the families without one were trained on ImageNet's mean and standard deviation.

    Args:
        path_or_id: of the checkpoint.
        config: of the model, for the frame size where no processor is stored.
        hub_options: as for ``fetch_file``.
    """
    place = Path(path_or_id)
    folder = place.parent if place.is_file() else path_or_id
    if any(find_file(folder, name, **hub_options) for name in PROCESSOR_FILES):
        return VideoMAEImageProcessor.from_pretrained(folder, **hub_options)
    if config.num_channels != 3 and config.image_mean is None:
        raise CheckpointError(
            f"{path_or_id} has no processor, and the mean and standard deviation of {config.num_channels} channels are "
            "not known: save a VideoMAEImageProcessor beside the weights"
        )
    log.warning("%s has no processor: taking ImageNet's mean and standard deviation", path_or_id)
    height, width = config.frame_size
    return VideoMAEImageProcessor(
        size={"shortest_edge": min(height, width)} if height == width else {"height": height, "width": width},
        crop_size={"height": height, "width": width},
        image_mean=config.image_mean or IMAGENET_MEAN,
        image_std=config.image_std or IMAGENET_STD,
    )


def choose_device(device: "torch.device | str | None") -> "torch.device":
    """Return the device asked for, or the best there is: CUDA, then MPS, then the CPU.

    Under ``torchrun`` "cuda", and None where there are GPUs, is that of the process: ``cuda:LOCAL_RANK``.
    """
    import torch

    if (
        int(os.environ.get("WORLD_SIZE", "1")) > 1
        and "LOCAL_RANK" in os.environ
        and (str(device) == "cuda" or (device is None and torch.cuda.is_available()))
    ):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device is not None:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(
                f"the device {str(device)!r} is not to be had here: use cpu, cuda, cuda:1 or mps (torchrun needs a GPU "
                "for each of its processes on a machine)"
            ) from error
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def torchrun_group(backend: str, *, timeout: timedelta | None = None) -> Iterator[int]:
    """Join the group of processes that ``torchrun`` started, if it did, and yield the rank; at the end all are awaited.

    Args:
        backend: "gloo" or "nccl".
        timeout: how long one may wait for another; None is the backend's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    import torch.distributed as dist

    dist.init_process_group(backend, timeout=timeout)
    try:
        yield dist.get_rank()
        dist.barrier()
    finally:
        dist.destroy_process_group()


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

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
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
            scores = classifier.scores(clips, crops=sampling.crops)
            yield Result(str(file), classifier.rank(scores, top_k))


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """List files as they are, and the videos below folders, sorted.

    Raises:
        DataError: if there is nothing to look at.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path / name for name in video_files(path)] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"the folder {path} holds no videos")
        found += inside
    if not found:
        raise DataError("name at least one video file or folder")
    return found


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

    from videomae.tasks.timeline import Window, check_threshold, draw_timeline, read_timeline, write_overlay

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
