"""Measure a fine-tuned model on labelled videos, by a named protocol."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import tyro
from rich.markup import escape

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, PRESETS, VideoMAEConfig, nearest
from videomae.errors import DataError, VideoError
from videomae.evaluation import Evaluation, VideoScores, summarize
from videomae.tasks.predict import DEFAULT_MODEL, VideoClassifier, choose_device, parse_views, torchrun_group
from videomae.video.manifest import Manifest, read_manifest
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch

    from videomae.video.sampling import ClipSampling

ON_BAD = ("stop", "wrong")
EVERYTHING = "all"  # in place of a split

Method = Literal["dense", "uniform"]
Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that decides what a model sees of a video. Scores are the mean of the softmax over the views.

    Attributes:
        name: by which it is recorded.
        method: "dense" takes every ``stride``-th frame, clips spread over the video; "uniform" a frame from each of
            as many segments as the model has frames, each clip further on in them (TSN).
        stride: distance between the frames of a dense clip, in frames.
        clips: in time.
        crops: spread over the long side of a frame; 1 is the centre.
        fps: frame rate that the stride is counted at; None counts the video's own frames.
        resize: "processor" resizes as the model's processor does, so that a centre crop is what ``predict`` sees.
            "published" resizes as v1 tests: the short side to that of the crop, bilinear without antialiasing; larger
            frames are shrunk first, antialiased, to what the published data was stored at (320 for a crop of 224).
    """

    name: str
    method: Method = "dense"
    stride: float = 4
    clips: int = 1
    crops: int = 1
    fps: float | None = None
    resize: Literal["processor", "published"] = "processor"

    @property
    def views(self) -> list[tuple[int, int]]:
        """Each view as (clip, crop), from the middle outwards: the central crop of every clip, then the others."""

        def from_middle(view: tuple[int, int]) -> tuple[int, int]:
            clip, crop = view
            return abs(2 * crop - self.crops + 1), abs(2 * clip - self.clips + 1)

        return sorted(((clip, crop) for clip in range(self.clips) for crop in range(self.crops)), key=from_middle)

    def sampling(self, clip_frames: int) -> "ClipSampling":
        """Return the choice of frames for clips of so many."""
        from videomae.video.sampling import ClipSampling

        return ClipSampling(self.method, clip_frames, self.stride, self.clips, self.fps)

    def departures(self, config: VideoMAEConfig, processor: VideoMAEImageProcessor) -> list[str]:
        """List what keeps a result from being compared with the published one, where there is one."""
        if self.name not in PUBLISHED:
            return []
        official = PROTOCOLS[self.name]
        found = [
            f"{field.name} is {getattr(self, field.name)}, the protocol has {getattr(official, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(official, field.name)
        ]
        measured = {
            "frames of a clip": (config.num_frames, 16),
            "frame size": (config.frame_size, (224, 224)),
            "mean": (processor.image_mean, IMAGENET_MEAN),
            "standard deviation": (processor.image_std, IMAGENET_STD),
        }
        return found + [
            f"{what} is {ours}, published {theirs}" for what, (ours, theirs) in measured.items() if ours != theirs
        ]


# The tests of v1 and v2 (FACTS of the published evaluation: papers and scripts); "center" is what `predict` sees.
PROTOCOLS = {
    "center": Protocol("center"),
    "k400": Protocol("k400", clips=5, crops=3, resize="published"),
    "ssv2": Protocol("ssv2", method="uniform", clips=2, crops=3, resize="published"),
    "ucf101": Protocol("ucf101", clips=5, crops=3, resize="published"),
    "hmdb51": Protocol("hmdb51", clips=5, crops=3, resize="published"),
}

# Protocol: its number of classes, and by size of the model the published top-1, %, with what was trained.
PUBLISHED: dict[str, tuple[int, dict[str, dict[str, float]]]] = {
    "k400": (
        400,
        {
            "small": {"v1": 79.0},
            "base": {"v1": 81.5},
            "large": {"v1": 85.2},
            "huge": {"v1": 86.6},
            "giant": {"v2": 87.2},
        },
    ),
    "ssv2": (174, {"small": {"v1": 66.8}, "base": {"v1": 70.8}, "large": {"v1": 74.3}, "giant": {"v2": 77.0}}),
    "ucf101": (101, {"base": {"v1": 91.3, "v1, pre-trained on K400": 96.1}, "giant": {"v2": 99.6}}),
    "hmdb51": (51, {"base": {"v1": 62.6, "v1, pre-trained on K400": 73.3}, "giant": {"v2": 88.1}}),
}


def published_top1(protocol: str, config: VideoMAEConfig) -> dict[str, float]:
    """Return the published top-1, %, on the whole test set for models of this size, by what was trained; often none.

    Args:
        protocol: name of a protocol.
        config: of the model; it must have the classes of the benchmark.
    """
    num_classes, by_size = PUBLISHED.get(protocol, (0, {}))
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "tubelet_shape")
    for size in PRESETS:
        preset = VideoMAEConfig.preset(size)
        if config.num_labels == num_classes and all(getattr(preset, name) == getattr(config, name) for name in shape):
            return by_size.get(size, {})
    return {}


def evaluate(
    classifier: VideoClassifier,
    data: Manifest,
    *,
    protocol: str | Protocol = "center",
    batch_size: int = 8,
    num_workers: int = 0,
    on_bad: Literal["stop", "wrong"] = "stop",
    allow_missing_classes: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Classify videos and compare with their labels.

    In an initialised ``torch.distributed`` group the videos are shared out, each to one process, and every process
    returns the figures of all.

    Args:
        classifier: model and processor.
        data: the videos to measure on, such as ``read_manifest(...).split("test")``. Classes are matched by name.
        protocol: name of one of ``PROTOCOLS``, or one of your own.
        batch_size: clips that go through the model at once. Each video is decoded once for all its views.
        num_workers: processes that decode; 0 decodes in this one.
        on_bad: a video that cannot be read stops the run ("stop") or counts as wrong ("wrong"); none is replaced.
        allow_missing_classes: accept data without some of the model's classes.
        confidence: of the interval of top-1, 0.95 for 95 %.
        seed: of the bootstrap behind the interval.
        progress: called with the number of videos done by this process, and their total.

    Returns:
        The figures; ``about`` records the protocol with every choice, departures from it, and the published score.

    Raises:
        DataError: if a video has no label, or the classes differ from the model's.
        VideoError: if a video cannot be read, unless that counts as wrong.
        ValueError: for a setting that makes no sense.
    """
    from videomae.video.dataset import DataTimeMeter, VideoDataset, build_loader

    if on_bad not in ON_BAD:
        raise ValueError(f"on_bad must be one of {ON_BAD}, got {on_bad!r}. Evaluation never replaces a video.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    config, processor = classifier.model.config, classifier.processor
    protocol = find_protocol(protocol, config) if isinstance(protocol, str) else protocol
    data = match_classes(data, config, allow_missing=allow_missing_classes)
    rank, world_size = process_of_group()
    loader = build_loader(
        VideoDataset(
            data,
            sampling=protocol.sampling(config.num_frames),
            training=False,
            transform=ViewTransform(protocol.crops, protocol.resize, config.frame_size, processor),
            on_bad="mark",
        ),
        batch_size=max(batch_size // len(protocol.views), 1),
        num_workers=num_workers,
        rank=rank,
        world_size=world_size,
    )
    mine: dict[int, tuple[np.ndarray, np.ndarray] | str] = {}
    meter = DataTimeMeter()
    with _evaluating(classifier.model):
        for batch in meter.track(loader):
            for index, (path, reason) in zip(batch["unreadable_index"], batch["unreadable"], strict=True):
                if on_bad == "stop":
                    raise VideoError(
                        f"{reason} Or remove {path!r} from the data, or let it count as wrong (--on-bad wrong): "
                        "evaluation replaces no video."
                    )
                mine[index] = reason
            if "pixel_values" in batch:
                mine |= _score_batch(classifier, batch, protocol, batch_size)
            progress(len(mine), len(loader.sampler))  # type: ignore[arg-type]
    found = _gather(mine)
    videos = [_video_scores(data, index, found[index]) for index in range(len(data))]
    departures = protocol.departures(config, processor)
    about = {
        "protocol": dataclasses.asdict(protocol)
        | {"clip_frames": config.num_frames, "frame_size": list(config.frame_size), "score": "mean of softmax"}
        | {"views": [list(view) for view in protocol.views], "processor": processor.to_dict()},
        "departures": departures,
        "published_top1_percent": {} if departures else published_top1(protocol.name, config),
        "seconds": round(meter.total, 3),
        "share_of_time_waiting_for_videos": round(meter.share, 3),
        "processes": world_size,
    }
    return summarize(videos, data.classes, confidence=confidence, seed=seed, about=about)


def find_protocol(name: str, config: VideoMAEConfig) -> Protocol:
    """Return a protocol by its name; "center" chooses frames as in the model's training."""
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}{nearest(name, PROTOCOLS)}. Known: {', '.join(PROTOCOLS)}.")
    if name != "center":
        return PROTOCOLS[name]
    method: Method = "uniform" if config.clip_sampling == "uniform" else "dense"
    return dataclasses.replace(PROTOCOLS[name], method=method, stride=config.clip_stride, fps=config.clip_fps)


def match_classes(data: Manifest, config: VideoMAEConfig, *, allow_missing: bool = False) -> Manifest:
    """Number the labels as the model does, by the names of the classes, whatever their order.

    A model without names, whose classes are LABEL_0, LABEL_1, ..., fits data whose classes are numbers, as in the lists
    of v1.

    Raises:
        DataError: if the names differ (lists the difference), or a video has no label.
    """
    names = list(config.id2label.values())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"the model has several classes of one name, {twice}: correct id2label in its config.json.")
    if unlabelled := [sample.path for sample in data if sample.label is None]:
        raise DataError(
            f"{len(unlabelled)} of {len(data)} videos have no label, such as {unlabelled[0]!r}. Add a 'label' column "
            "to the manifest, or sort the videos into a folder per class."
        )
    unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
    if unnamed and all(name.isdecimal() for name in data.classes):
        names = [str(i) for i in range(len(names))]
    return data.with_classes(names, allow_missing=allow_missing)


@dataclasses.dataclass(frozen=True)
class ViewTransform:
    """Cut the views out of a clip: (T, C, H, W) uint8 to (crops, T, C, *frame_size).

    The result is normalised where the model's processor resizes, and uint8 where "published" does: a quarter of the
    bytes to move, normalised beside the model.
    """

    crops: int
    resize: str
    frame_size: tuple[int, int]
    processor: VideoMAEImageProcessor

    def __post_init__(self) -> None:
        height, width = self.frame_size
        if height != width and (self.crops > 1 or self.resize == "published"):
            raise ValueError(
                f"several crops, and the protocols of the benchmarks, need square frames; the model's are "
                f"{self.frame_size}. Use the protocol 'center', with one crop."
            )
        p = self.processor
        if self.resize == "published" and not (
            p.do_rescale and p.do_normalize and abs(p.rescale_factor * 255 - 1) < 1e-6
        ):
            raise ValueError(
                "the protocols of the benchmarks normalise pixels in 0-1, the model's processor does not. "
                "Use the protocol 'center'."
            )

    def __call__(self, clip: "torch.Tensor") -> "torch.Tensor":
        """Cut the views out of a clip."""
        from videomae.video.augment import ShrinkShortSide, eval_views

        size = self.frame_size[0]
        if self.resize == "published":
            stored = ShrinkShortSide(320 * size // 224)(clip)
            return eval_views(stored, short_side=size, image_size=size, crops=self.crops, antialias=False)
        layout = {"input_data_format": "channels_first", "data_format": "channels_first", "return_tensors": "pt"}
        if self.crops == 1:
            return self.processor(clip, **layout).pixel_values
        whole = self.processor(clip, do_center_crop=False, **layout).pixel_values[0]
        return eval_views(whole, short_side=min(whole.shape[-2:]), image_size=size, crops=self.crops)


def process_of_group() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) where there is no group."""
    import torch.distributed as dist

    grouped = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)


def _score_batch(
    classifier: VideoClassifier, batch: dict[str, Any], protocol: Protocol, batch_size: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return, by index of the video, its mean scores (L,) and the best class by the first 1, 2, ... V views (V,)."""
    import torch

    from videomae.video.augment import normalize

    processor, probabilities = classifier.processor, []
    for clips in batch["pixel_values"].split(batch_size):
        clips = clips.to(classifier.model.device)
        if clips.dtype == torch.uint8:
            mean, std = (np.atleast_1d(values) for values in (processor.image_mean, processor.image_std))
            clips = normalize(clips, mean=mean, std=std)  # type: ignore[arg-type]
        probabilities.append(classifier.model(clips).logits.float().softmax(dim=-1).cpu())
    order = [clip * protocol.crops + crop for clip, crop in protocol.views]
    by_view = torch.cat(probabilities).unflatten(0, (len(order), -1))[order]  # (V, B, L)
    counts = torch.arange(1, len(order) + 1).view(-1, 1, 1)
    running = by_view.cumsum(dim=0) / counts  # (V, B, L)
    scores, predicted = running[-1].numpy(), running.argmax(dim=-1).T.numpy()
    indices = batch["index"][: len(scores)].tolist()  # collate repeats them for every view
    return {index: (scores[i], predicted[i]) for i, index in enumerate(indices)}


def _gather(mine: dict[int, Any]) -> dict[int, Any]:
    """Join the results of all processes."""
    import torch.distributed as dist

    _, world_size = process_of_group()
    if world_size == 1:
        return mine
    parts: list[dict[int, Any]] = [{}] * world_size
    dist.all_gather_object(parts, mine)
    return {index: result for part in parts for index, result in part.items()}


def _video_scores(data: Manifest, index: int, found: tuple[np.ndarray, np.ndarray] | str) -> VideoScores:
    sample = data.samples[index]
    scores, predicted = (None, None) if isinstance(found, str) else found
    return VideoScores(
        path=sample.path,
        label=cast(int, sample.label),
        scores=scores,
        predicted=predicted,
        start=sample.start,
        end=sample.end,
        group=sample.group,
        error=found if isinstance(found, str) else None,
    )


@contextmanager
def _evaluating(model: "torch.nn.Module") -> Iterator[None]:
    """Switch off dropout and gradients; afterwards the model is in the mode that it came in."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


# ------------------------------------------------------------------------------------------------ command line


@dataclasses.dataclass
class EvaluateSettings:
    """Measure a fine-tuned model on labelled videos.

    Runs on several devices or machines under ``torchrun``; every video is counted once.
    """

    data: tyro.conf.Positional[Path]
    """Folder of videos in a folder per class, a CSV manifest, or an official list."""

    model: str = DEFAULT_MODEL
    """Directory, weights file, or id on the Hugging Face Hub of a fine-tuned model."""

    split: str = "test"
    """Which split of the data; "all" takes every video."""

    protocol: Literal["center", "k400", "ssv2", "ucf101", "hmdb51"] = "center"
    """What the model sees of a video: the middle, its frames chosen as in the model's training, or what the published
    tests of a benchmark show."""

    views: str | None = None
    """In place of the protocol's: clips spread over the time x crops spread over the frame, e.g. 5x3."""

    sampling: Method | None = None
    """Likewise: dense (every stride-th frame) or uniform (a frame of each of equal segments)."""

    stride: float | None = None
    """Likewise: distance between the frames of a dense clip, in frames."""

    fps: float | None = None
    """Likewise: frame rate that the stride is counted at, by default the video's own."""

    videos: Path | None = None
    """Folder that the paths of a list are relative to, by default the list's own."""

    fold: int = 1
    """Which of the three official splits of UCF101 and HMDB51."""

    on_bad: Literal["stop", "wrong"] = "stop"
    """A video that cannot be read stops the run, or counts as wrong; none is replaced."""

    allow_missing_classes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Accept data without some of the model's classes."""

    out: Path | None = None
    """Folder for result.json, predictions.csv, confusion.csv and confusion.png."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object instead of tables."""

    batch_size: int = 8
    """Clips that go through the model at once."""

    workers: int = 2
    """Processes that decode videos; 0 decodes in the main one."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    dtype: str = "float32"
    """Of the model's parameters: float32, bfloat16, float16, or auto for the stored one."""

    confidence: float = 0.95
    """Of the interval of top-1: 0.95 for 95 %."""

    seed: int = 0
    """Of the bootstrap behind that interval."""


def run(settings: EvaluateSettings, *, progress: Progress = lambda done, total: None) -> Evaluation:
    """Evaluate as the settings say; in a group of processes, the first one writes the files.

    Args:
        settings: what to measure, on what, how.
        progress: as for ``evaluate``.
    """
    data = read_manifest(settings.data, videos=settings.videos, fold=settings.fold)
    data = data if settings.split == EVERYTHING else data.split(settings.split)
    classifier = VideoClassifier.from_pretrained(settings.model, device=settings.device, dtype=settings.dtype)
    protocol = _protocol_of(settings, classifier.model.config)
    evaluation = evaluate(
        classifier,
        data,
        protocol=protocol,
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        on_bad=settings.on_bad,
        allow_missing_classes=settings.allow_missing_classes,
        confidence=settings.confidence,
        seed=settings.seed,
        progress=progress,
    )
    evaluation.about.update(
        model=settings.model, data=str(settings.data), split=settings.split, dtype=str(classifier.model.dtype)
    )
    if settings.out is not None and process_of_group()[0] == 0:
        evaluation.save(settings.out)
    return evaluation


def main(settings: EvaluateSettings) -> int:
    """Print the figures; the exit code is 1 if a video could not be read and counted as wrong."""
    with _group_of_torchrun(settings) as rank:
        evaluation = _run_with_bar(settings, rank)
        if rank > 0:
            return 0
        if settings.json:
            sys.stdout.write(json.dumps(evaluation.to_dict(), ensure_ascii=False) + "\n")
        else:
            _print_tables(evaluation, settings)
        return 1 if evaluation.num_unreadable else 0


@contextmanager
def _group_of_torchrun(settings: EvaluateSettings) -> Iterator[int]:
    """Join the group of processes that ``torchrun`` started, if it did, with a GPU for each; yield the rank."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    import torch

    device = choose_device(settings.device)
    settings.device = str(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with torchrun_group("nccl" if device.type == "cuda" else "gloo") as rank:
        yield rank


def _protocol_of(settings: EvaluateSettings, config: VideoMAEConfig) -> Protocol:
    given: dict[str, Any] = {"method": settings.sampling, "stride": settings.stride, "fps": settings.fps}
    if settings.views is not None:
        given["clips"], given["crops"] = parse_views(settings.views)
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(find_protocol(settings.protocol, config), **changes)


def _run_with_bar(settings: EvaluateSettings, rank: int) -> Evaluation:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=rank > 0) as bar:
        task = bar.add_task("evaluating", total=None)
        return run(settings, progress=lambda done, total: bar.update(task, completed=done, total=total))


def _print_tables(result: Evaluation, settings: EvaluateSettings) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(highlight=False, soft_wrap=True)
    low, high = result.interval
    protocol = result.about["protocol"]
    console.print(
        f"{result.num_videos} videos of {len(result.classes)} classes, protocol {protocol['name']}: "
        f"{protocol['clips']} x {protocol['crops']} views, {protocol['method']} sampling\n"
    )
    figures = Table.grid(padding=(0, 2))
    figures.add_row(
        "top-1",
        _percent(result.top1),
        f"{100 * result.confidence:g} % interval {_percent(low)} to {_percent(high)} ({result.interval_method})",
    )
    for trained, top1 in result.about["published_top1_percent"].items():
        figures.add_row("  published", f"{top1:.1f} %", f"{trained}, whole test set")
    figures.add_row("top-5", _percent(result.top5), "" if len(result.classes) > 5 else "no more than 5 classes")
    figures.add_row("mean class accuracy", _percent(result.mean_class_accuracy))
    figures.add_row("calibration error", _percent(result.ece), "ECE, 15 bins")
    if len(result.accuracy_by_views) > 1:
        figures.add_row("top-1 by views", "", _ablation(result.accuracy_by_views))
    console.print(figures)
    table = Table(Column("class", overflow="fold"), *(Column(name, justify="right") for name in _COLUMNS))
    for line in result.per_class:
        counts = (str(line.videos), str(line.correct))
        table.add_row(escape(line.name), *counts, _percent(line.accuracy), _percent(line.precision))
    console.print(table)
    for departure in result.about["departures"]:
        console.print(f"[yellow]not the published protocol:[/yellow] {escape(departure)}")
    for video in result.videos:
        if video.error is not None:
            console.print(f"[red]counted as wrong:[/red] {escape(video.path)}: {escape(video.error)}")
    if settings.out is not None:
        console.print(f"written: {settings.out}", markup=False)


_COLUMNS = ("videos", "right", "accuracy", "precision")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _ablation(accuracies: Sequence[float]) -> str:
    return ", ".join(f"{i}: {_percent(accuracy)}" for i, accuracy in enumerate(accuracies, start=1))
