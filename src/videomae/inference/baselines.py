"""What simple means make of labelled videos, on the same split: what a model has to beat for its training to pay.

They see 16 frames, spread over the video, of 16 x 16 grey pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest, Sample
from videomae.errors import DataError
from videomae.models.probes import predict_knn, predict_linear
from videomae.video.sampling import uniform_indices

SIDE, FRAMES = 16, 16
NEIGHBOURS = 5
C = 1e-3  # inverse strength of logistic regression's regularisation: pixels are many, videos few


class Baseline(NamedTuple):
    """One simple means, and the fraction of test videos, 0-1, that it got right."""

    name: str
    top1: float


def measure_baselines(train: Manifest, test: Manifest, *, most: int = 1000) -> list[Baseline]:
    """Measure the most frequent class, nearest neighbours and logistic regression; what cannot be read is wrong.

        >>> from videomae import read_manifest
        >>> videos = read_manifest("videos")
        >>> [found.name for found in measure_baselines(videos, videos)]
        ['most frequent class', 'nearest neighbours on small grey pixels', 'logistic regression on small grey pixels']

    Args:
        train: labelled videos to learn from.
        test: labelled videos to measure on.
        most: videos that are learnt from at most, at even distances.

    Raises:
        DataError: if no video to learn from can be read.
    """
    learnt, targets = _pixels(spread(train.samples, most))
    if not len(learnt):
        raise DataError(f"none of {len(train)} training videos can be read: run `videomae check` on them.")
    tested, labels = _pixels(test.samples)
    frequent = np.bincount([sample.label for sample in train if sample.label is not None]).argmax()
    guesses = {"most frequent class": np.full(len(labels), frequent)}
    if len(np.unique(targets)) > 1 and len(tested):
        on_pixels = "on small grey pixels"
        guesses[f"nearest neighbours {on_pixels}"] = predict_knn(learnt, targets, tested, k=NEIGHBOURS)
        guesses[f"logistic regression {on_pixels}"] = predict_linear(learnt, targets, tested, c=C)
    return [Baseline(name, float((guess == labels).sum() / len(test))) for name, guess in guesses.items()]


def _pixels(samples: Sequence[Sample]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the pixels (M, D) of the videos that can be read, less their mean, and the labels (M,)."""
    from videomae.data.cache import FrameCache

    rows, labels = [], []
    for sample, frames in zip(samples, FrameCache(samples, side=SIDE, max_frames=FRAMES), strict=True):
        if frames is not None:
            rows.append(frames[uniform_indices(len(frames), clip_frames=FRAMES)].ravel())
            labels.append(sample.label)
    pixels = np.array(rows, np.float32).reshape(len(rows), FRAMES * SIDE * SIDE)
    return pixels - pixels.mean(axis=1, keepdims=True), np.array(labels, np.int64)
