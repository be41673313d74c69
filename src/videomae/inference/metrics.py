"""From the scores of videos to figures: accuracy with its interval, per class, by views, confusion, calibration.

N videos · L classes · V views of a video
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import DataError

CALIBRATION_BINS = 15
BEST = 5
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class VideoScores:
    """What a model said about one video.

    Attributes:
        path: the video's identity, as the manifest writes it.
        label: index of the true class.
        scores: (L,) float32, the probability of every class averaged over the views; None: it could not be read.
        predicted: (V,) int64, the best class by the first 1, 2, ... V views; None: it could not be read.
        start: first second of the stretch that was shown, where it is not the whole video.
        end: the second after it, likewise.
        group: what the video was cut from; videos of a group are not independent.
        error: why it could not be read.
    """

    path: str
    label: int
    scores: NDArray[np.float32] | None
    predicted: NDArray[np.int64] | None
    start: float | None = None
    end: float | None = None
    group: str | None = None
    error: str | None = None

    @property
    def right(self) -> bool:
        """Whether the best class by all views is the true one; an unreadable video is wrong."""
        return self.predicted is not None and int(self.predicted[-1]) == self.label


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """How one class fared.

    Attributes:
        name: of the class.
        videos: how many there are of it.
        correct: how many of them were recognised.
        accuracy: their fraction in 0-1 (the recall); None without videos.
        precision: fraction of the videos given this class that are of it; None where none was given it.
    """

    name: str
    videos: int
    correct: int
    accuracy: float | None
    precision: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model classifies a set of videos. Fractions are in 0-1, and unreadable videos count as wrong.

    Attributes:
        top1: fraction of videos whose best class is the true one.
        top5: fraction of videos whose true class is among the best five; 1 with five classes or fewer.
        mean_class_accuracy: mean of the accuracies of the classes that have videos.
        interval: of ``top1``, where it would lie for other videos of this kind.
        confidence: of the interval, 0.95 for 95 %.
        interval_method: how the interval was found.
        ece: expected calibration error, by how much the score of the best class misses the accuracy; 15 equal bins,
            unreadable videos left out.
        num_videos: N.
        num_unreadable: how many of them could not be read.
        accuracy_by_views: ``top1`` by the first 1, 2, ... V views.
        per_class: how each class fared.
        classes: the names.
        confusion: (L, L) int64, true class x predicted class, unreadable videos left out.
        videos: what was said about each.
        about: how it was measured: model, data, protocol.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    interval: tuple[float, float]
    confidence: float
    interval_method: str
    ece: float
    num_videos: int
    num_unreadable: int
    accuracy_by_views: tuple[float, ...]
    per_class: tuple[ClassResult, ...]
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    videos: tuple[VideoScores, ...]
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single videos and the confusion matrix, ready for JSON."""
        left_out = ("classes", "confusion", "videos", "about")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content = {name: value for name, value in fields.items() if name not in left_out}
        unreadable = {video.path: video.error for video in self.videos if video.error is not None}
        return content | {
            "interval": list(self.interval),
            "accuracy_by_views": list(self.accuracy_by_views),
            "per_class": [dataclasses.asdict(line) for line in self.per_class],
            "unreadable": unreadable,
            **self.about,
        }


def summarize(
    videos: Sequence[VideoScores],
    classes: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> Evaluation:
    """Compute all figures.

    Args:
        videos: what the model said about each.
        classes: names of the L classes, at least 2.
        confidence: of the interval, between 0 and 1.
        seed: of the bootstrap.
        about: what to keep with the figures.

    Raises:
        DataError: if there is no readable video.
        ValueError: for a single class, a confidence outside 0-1, or scores that are not finite.
    """
    L = len(classes)
    if L < 2:
        raise ValueError(f"accuracy needs at least 2 classes, got {list(classes)}.")
    read = [video for video in videos if video.scores is not None]
    if not read:
        raise DataError(f"none of {len(videos)} videos could be read. Run `videomae check` on the data.")
    scores = np.stack([video.scores for video in read if video.scores is not None])  # (n, L)
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        path = read[int(finite.argmin())].path
        raise ValueError(f"the scores of {path!r} are not finite: run the model in float32, or look at its training.")
    labels = np.array([video.label for video in read])
    by_views = np.stack([video.predicted for video in read if video.predicted is not None])  # (n, V)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :BEST]
    top5 = (best == labels[:, None]).any(axis=1).mean()
    confusion = np.bincount(L * labels + by_views[:, -1], minlength=L * L).reshape(L, L)

    right = np.array([video.right for video in videos])
    groups = [i if video.group is None else video.group for i, video in enumerate(videos)]
    interval, method = accuracy_interval(right, groups, confidence=confidence, seed=seed)
    counts = np.bincount([video.label for video in videos], minlength=L)
    per_class = _per_class(confusion, counts, classes)
    fraction_read = len(read) / len(videos)
    return Evaluation(
        top1=float(right.mean()),
        top5=float(top5) * fraction_read,
        mean_class_accuracy=float(np.mean([line.accuracy for line in per_class if line.accuracy is not None])),
        interval=interval,
        confidence=confidence,
        interval_method=method,
        ece=calibration_error(scores, labels),
        num_videos=len(videos),
        num_unreadable=len(videos) - len(read),
        accuracy_by_views=tuple(((by_views == labels[:, None]).sum(axis=0) / len(videos)).tolist()),
        per_class=per_class,
        classes=tuple(classes),
        confusion=confusion,
        videos=tuple(videos),
        about=about or {},
    )


def calibration_error(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return by how much the score of the best class misses the accuracy, over equal bins of scores (ECE).

    Args:
        scores: (N, L) probabilities; a mean of some may exceed 1 by a rounding error.
        labels: (N,) true classes.
    """
    confidence = scores.max(axis=1).clip(max=1).astype(np.float64)
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1))
    missed = np.bincount(bins, weights=confidence - (scores.argmax(axis=1) == labels))
    return float(np.abs(missed).sum() / len(labels))


def accuracy_interval(
    right: NDArray[np.bool_], groups: Sequence[Hashable], *, confidence: float, seed: int
) -> tuple[tuple[float, float], str]:
    """Return where the accuracy would lie for other videos of this kind, and how that was found.

    Percentile bootstrap, 2000 resamples. Whole groups are drawn, because clips of one source succeed and fail together
    and drawing them one by one would make the interval too narrow. Where all videos are right or all are wrong the
    bootstrap has no width; the exact (Clopper-Pearson) interval stands in, with as many trials as there are groups.

    Args:
        right: (N,) bool, which videos are classified right.
        groups: of each video; a video without one is a group of its own.
        confidence: fraction of the resamples inside, between 0 and 1.
        seed: the same seed gives the same interval.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, e.g. 0.95, got {confidence}.")
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    members, unit = np.array([number[group] for group in groups]), "groups"
    if len(number) in (1, len(right)):  # one group cannot be resampled, and groups of one are videos
        members, unit = np.arange(len(right)), "videos"
    sizes, hits = np.bincount(members), np.bincount(members, weights=right)
    tail, n = (1 - confidence) / 2, len(sizes)
    if right.all() or not right.any():
        bound = tail ** (1 / n)
        return ((bound, 1.0) if right.all() else (0.0, 1 - bound)), f"exact, {n} {unit}"
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(n, size=n) for _ in range(RESAMPLES))
    accuracies = [hits[chosen].sum() / sizes[chosen].sum() for chosen in drawn]
    low, high = np.quantile(accuracies, (tail, 1 - tail)).tolist()
    return (low, high), f"bootstrap, {RESAMPLES} resamples of {n} {unit}, seed {seed}"


def _per_class(
    confusion: NDArray[np.int64], counts: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassResult, ...]:
    given = confusion.sum(axis=0)
    return tuple(
        ClassResult(
            name,
            videos=int(counts[i]),
            correct=int(confusion[i, i]),
            accuracy=float(confusion[i, i] / counts[i]) if counts[i] else None,
            precision=float(confusion[i, i] / given[i]) if given[i] else None,
        )
        for i, name in enumerate(classes)
    )
