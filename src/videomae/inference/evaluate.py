"""Measure a fine-tuned model on labelled videos, by a named protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np

from videomae.config import VideoMAEConfig
from videomae.console import Progress, no_progress
from videomae.data.manifest import Manifest
from videomae.data.timing import DataTimeMeter
from videomae.errors import DataError, VideoError
from videomae.inference.classifier import VideoClassifier
from videomae.inference.devices import process_of_group
from videomae.inference.engines.base import ExportedModel
from videomae.inference.labelled_views import Views, load_views, read_views
from videomae.inference.metrics import Evaluation, VideoScores, summarize
from videomae.inference.protocols import Protocol, find_protocol, published_top1

ON_BAD = ("stop", "wrong")


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
    progress: Progress = no_progress,
) -> Evaluation:
    """Classify videos and compare with their labels.

    In an initialised ``torch.distributed`` group the videos are shared out, each to one process, and every process
    returns the figures of all.

        >>> from videomae import VideoClassifier, read_manifest
        >>> classifier = VideoClassifier.from_pretrained("run/model")
        >>> evaluation = evaluate(classifier, read_manifest("videos"), protocol="center")
        >>> evaluation.num_videos, evaluation.top1
        (4, 0.5)

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
    if on_bad not in ON_BAD:
        raise ValueError(f"on_bad must be one of {ON_BAD}, got {on_bad!r}. Evaluation never replaces a video.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    config, processor = classifier.config, classifier.processor
    protocol = find_protocol(protocol, config) if isinstance(protocol, str) else protocol
    data = match_classes(data, config, allow_missing=allow_missing_classes)
    rank, world_size = process_of_group()
    batches = (read_views if isinstance(classifier.model, ExportedModel) else load_views)(
        classifier, data, protocol, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size
    )
    mine: dict[int, tuple[np.ndarray, np.ndarray] | str] = {}
    meter = DataTimeMeter()
    with _evaluating(classifier):
        for batch in meter.track(batches):
            if batch.unreadable and on_bad == "stop":
                index, reason = next(iter(batch.unreadable.items()))
                path = data.samples[index].path
                raise VideoError(
                    f"{reason} Or remove {path!r} from the data, or let it count as wrong (--on-bad wrong): "
                    "evaluation replaces no video."
                )
            mine |= batch.unreadable
            if batch.indices:
                mine |= _score_batch(classifier, batch, protocol, batch_size)
            progress(len(mine), len(range(rank, len(data), world_size)))
    found = _gather(mine)
    videos = [_video_scores(data, index, found[index]) for index in range(len(data))]
    departures = protocol.departures(config, processor)
    about = {
        "protocol": protocol.to_dict()
        | {"clip_frames": config.num_frames, "frame_size": list(config.frame_size), "score": "mean of softmax"}
        | {"views": [list(view) for view in protocol.views], "processor": processor.to_dict()},
        "departures": departures,
        "published_top1_percent": {} if departures else published_top1(protocol.name, config),
        "seconds": round(meter.total, 3),
        "fraction_of_time_waiting_for_videos": round(meter.wait_fraction, 3),
        "processes": world_size,
        "engine": classifier.engine.name,
        "dtype": classifier.engine.dtype,
    }
    return summarize(videos, data.classes, confidence=confidence, seed=seed, about=about)


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
    data.require_labels()
    unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
    if unnamed and all(name.isdecimal() for name in data.classes):
        names = [str(i) for i in range(len(names))]
    return data.with_classes(names, allow_missing=allow_missing)


def _score_batch(
    classifier: VideoClassifier, batch: Views, protocol: Protocol, batch_size: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return, by index of the video, its mean scores (L,) and the best class by the first 1, 2, ... V views (V,)."""
    probabilities = np.asarray(classifier.probabilities(batch.pixels, batch_size=batch_size))
    order = [clip * protocol.num_crops + crop for clip, crop in protocol.views]
    by_view = probabilities.reshape(len(order), len(batch.indices), -1)[order]  # (V, B, L)
    counts = np.arange(1, len(order) + 1, dtype=np.float32)[:, None, None]
    running = by_view.cumsum(axis=0) / counts  # (V, B, L)
    predicted = running.argmax(axis=-1)
    return {index: (running[-1, i], predicted[:, i]) for i, index in enumerate(batch.indices)}


def _gather(mine: dict[int, Any]) -> dict[int, Any]:
    """Join the results of all processes."""
    _, world_size = process_of_group()
    if world_size == 1:
        return mine
    import torch.distributed as dist

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
def _evaluating(classifier: VideoClassifier) -> Iterator[None]:
    """Switch off dropout; afterwards the model is in the mode that it came in. Exported models have no dropout."""
    model = classifier.model
    if isinstance(model, ExportedModel):
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
