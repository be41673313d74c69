"""``videomae evaluate``: measure a model on labelled videos."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from videomae.config import VideoMAEConfig
from videomae.console import Progress, no_progress, output, print_json, progress_bar
from videomae.data.settings import Data
from videomae.files import check_writable
from videomae.inference.classifier import VideoClassifier
from videomae.inference.devices import choose_device, process_of_group, torchrun_group
from videomae.inference.engines.formats import EngineName, find_exported
from videomae.inference.evaluate import evaluate
from videomae.inference.loading import DEFAULT_MODEL
from videomae.inference.metrics import Evaluation
from videomae.inference.protocols import Protocol, ProtocolName, find_protocol
from videomae.options import Dtype, Flag

EVERYTHING = "all"  # in place of a split


@dataclasses.dataclass
class EvaluateSettings:
    """Measure a fine-tuned model on labelled videos.

    Runs on several devices or machines under ``torchrun``; every video is counted once.
    """

    data: Data

    model: str = DEFAULT_MODEL
    """Directory, weights file, or id on the Hugging Face Hub of a fine-tuned model."""

    split: str = "test"
    """Which split of the data; "all" takes every video."""

    protocol: ProtocolName = "center"
    """What the model sees of a video: the middle, its frames chosen as in the model's training, or what the published
    tests of a benchmark show."""

    views: str | None = None
    """In place of the protocol's: clips spread over the time x crops spread over the frame, e.g. 5x3."""

    sampling: Literal["dense", "uniform"] | None = None
    """Likewise: dense (every stride-th frame) or uniform (a frame of each of equal segments)."""

    stride: float | None = None
    """Likewise: distance between the frames of a dense clip, in frames."""

    sampling_fps: float | None = None
    """Likewise: frame rate that the stride is counted at, by default the video's own."""

    on_bad: Literal["stop", "wrong"] = "stop"
    """A video that cannot be read stops the run, or counts as wrong; none is replaced."""

    allow_missing_classes: Flag = False
    """Accept data without some of the model's classes."""

    out: Path | None = None
    """Folder for result.json, predictions.csv, confusion.csv and confusion.png."""

    json: Flag = False
    """Print one JSON object instead of tables."""

    batch_size: int = 8
    """Clips that go through the model at once."""

    workers: int = 2
    """Processes that decode videos; 0 decodes in the main one."""

    engine: EngineName | None = None
    """What runs the model: torch, or openvino or onnx for what `videomae export` wrote; by default what is there."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, or what the engine knows; by default a GPU if there is one, with OpenVINO and ONNX the
    CPU."""

    dtype: Dtype = None

    confidence: float = 0.95
    """Of the interval of top-1: 0.95 for 95 %."""

    seed: int = 0
    """Of the bootstrap behind that interval."""


def main(settings: EvaluateSettings) -> int:
    """Print the figures; the exit code is 1 if a video could not be read and counted as wrong."""
    if find_exported(settings.model, settings.engine) is None:  # others know devices by other names
        settings = dataclasses.replace(settings, device=str(choose_device(settings.device)))
    # What is exchanged are scores, at the end; and one process may have far more to do than another.
    with torchrun_group(timeout=timedelta(days=30)) as rank:
        with progress_bar("evaluating", shown=rank == 0) as progress:
            evaluation = run(settings, progress=progress)
        if rank > 0:
            return 0
        if settings.json:
            print_json(evaluation.to_dict())
        else:
            _print_tables(evaluation, settings)
        return 1 if evaluation.num_unreadable else 0


def run(settings: EvaluateSettings, *, progress: Progress = no_progress) -> Evaluation:
    """Evaluate as the settings say; in a group of processes, the first one writes the files.

    Args:
        settings: what to measure, on what, how.
        progress: as for ``evaluate``.
    """
    s = settings
    if s.out is not None:
        check_writable(s.out)
    data = s.data.read()
    data = data if s.split == EVERYTHING else data.split(s.split)
    classifier = VideoClassifier.from_pretrained(s.model, engine=s.engine, device=s.device, dtype=s.dtype)
    evaluation = evaluate(
        classifier,
        data,
        protocol=_protocol_of(s, classifier.config),
        batch_size=s.batch_size,
        num_workers=s.workers,
        on_bad=s.on_bad,
        allow_missing_classes=s.allow_missing_classes,
        confidence=s.confidence,
        seed=s.seed,
        progress=progress,
    )
    evaluation.about.update(model=s.model, data=str(s.data.path), split=s.split)
    if s.out is not None and process_of_group()[0] == 0:
        from videomae.plots.evaluation import write_evaluation

        write_evaluation(evaluation, s.out)
    return evaluation


def _protocol_of(settings: EvaluateSettings, config: VideoMAEConfig) -> Protocol:
    protocol = find_protocol(settings.protocol, config, views=settings.views)
    given: dict[str, Any] = {"method": settings.sampling, "stride": settings.stride, "fps": settings.sampling_fps}
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(protocol, sampling=dataclasses.replace(protocol.sampling, **changes))


def _print_tables(result: Evaluation, settings: EvaluateSettings) -> None:
    from rich.table import Column, Table

    console = output()
    low, high = result.interval
    protocol = result.about["protocol"]
    console.print(
        f"{result.num_videos} videos of {len(result.classes)} classes, protocol {protocol['name']}: "
        f"{protocol['num_clips']} x {protocol['num_crops']} views, {protocol['method']} sampling\n"
    )
    if (dtype := str(result.about["dtype"]).removeprefix("torch.")) != "float32":
        console.print(f"computed in {dtype}: --dtype float32 is exact", markup=False)
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
        figures.add_row("top-1 by views", "", _by_views(result.accuracy_by_views))
    console.print(figures)
    columns = (Column(name, justify="right") for name in ("videos", "right", "accuracy", "precision"))
    table = Table(Column("class", overflow="fold"), *columns)
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


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _by_views(accuracies: Sequence[float]) -> str:
    return ", ".join(f"{i}: {_percent(accuracy)}" for i, accuracy in enumerate(accuracies, start=1))
