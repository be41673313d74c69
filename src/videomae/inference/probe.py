"""How well simple classifiers do on stored features: minutes from videos to a baseline."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import read_manifest
from videomae.errors import DataError
from videomae.files import unescaped
from videomae.inference.feature_store import read_features, read_unreadable, require_pyarrow
from videomae.inference.metrics import accuracy_interval
from videomae.models.probes import predict_knn, predict_linear

FOLDS = 5
NAMED = 5  # unreadable videos, in an error


@dataclasses.dataclass(frozen=True)
class ProbeScore:
    """How well one classifier did.

    Attributes:
        top1: fraction of videos that it got right, in 0-1.
        interval: of it, 95 %.
        mean_class_accuracy: mean over the classes.
    """

    top1: float
    interval: tuple[float, float]
    mean_class_accuracy: float


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """How well simple classifiers did on features.

    Attributes:
        knn: the nearest neighbours, by cosine similarity.
        linear: logistic regression.
        num_videos: that were tested on.
        num_unreadable: of all videos.
        protocol: what was trained and tested on.
        classes: names.
    """

    knn: ProbeScore
    linear: ProbeScore
    num_videos: int
    num_unreadable: int
    protocol: str
    classes: list[str]


def probe(
    features: str | Path,
    labels: str | Path | None = None,
    *,
    k: int = 10,
    c: float = 1.0,
    seed: int = 0,
    on_bad: Literal["stop", "wrong"] = "stop",
) -> ProbeResult:
    """Measure both classifiers on the split "test", or by cross-validation where there is none.

    Rows of one video or stretch (windows, slots) are averaged first. Folds keep groups together.

        >>> result = probe("index")
        >>> result.num_videos, result.protocol, 0 <= result.linear.top1 <= 1
        (4, '2-fold cross-validation, groups kept together', True)

    Args:
        features: folder that `embed` wrote.
        labels: manifest with labels (and splits or groups); None takes those that were embedded.
        k: neighbours that vote.
        c: inverse strength of the regularisation of logistic regression.
        seed: of folds and bootstrap.
        on_bad: videos that could not be read when they were embedded stop the run ("stop"); or those to test on count
            as wrong, and those to train on are left out ("wrong").

    Raises:
        DataError: if labels or features are missing, or if videos could not be read and ``on_bad`` is "stop".
        MissingPackageError: if pyarrow is not installed.
        ValueError: if a number is out of its range.
    """
    require_pyarrow()
    if k < 1 or c <= 0:
        raise ValueError(f"k must be at least 1 and c above 0, got {k} and {c}.")
    bad_labels, bad_splits, bad_groups = load_unreadable(features, labels, on_bad=on_bad)
    vectors, names, splits, groups = load(features, labels)
    classes = np.unique(np.concatenate([names, bad_labels]))
    targets, bad_targets = np.searchsorted(classes, names), np.searchsorted(classes, bad_labels)
    if len(np.unique(targets)) < 2:
        raise DataError(f"a probe needs at least 2 classes, got {np.unique(names).tolist()}.")
    bad_tested = np.full(len(bad_labels), True)
    if "test" in splits or "test" in bad_splits:
        folds = [(np.flatnonzero(splits != "test"), np.flatnonzero(splits == "test"))]
        protocol = "train and test split"
        if not folds[0][0].size:
            raise DataError("all videos are of the split 'test': there is nothing to train on.")
        if not folds[0][1].size:
            raise DataError("no video of the split 'test' could be read: repair them and embed again.")
        bad_tested = bad_splits == "test"
    else:
        folds, protocol = _folds(targets, groups, seed)
    if any(len(np.unique(targets[train])) < 2 for train, _ in folds):
        raise DataError("the videos to train on are all of one class: draw another split.")
    tested = np.concatenate([test for _, test in folds])
    true = np.concatenate([targets[tested], bad_targets[bad_tested]])
    of_groups = [*groups[tested].tolist(), *bad_groups[bad_tested].tolist()]
    scores = {}
    for name, predict in (("knn", partial(predict_knn, k=k)), ("linear", partial(predict_linear, c=c))):
        predicted = np.concatenate([predict(vectors[a], targets[a], vectors[b]) for a, b in folds])
        right = np.concatenate([predicted == targets[tested], np.full(int(bad_tested.sum()), False)])
        interval, _ = accuracy_interval(right, of_groups, confidence=0.95, seed=seed)
        means = [right[true == label].mean() for label in np.unique(true)]
        scores[name] = ProbeScore(float(right.mean()), interval, float(np.mean(means)))
    return ProbeResult(
        **scores, num_videos=len(true), num_unreadable=len(bad_labels), protocol=protocol, classes=classes.tolist()
    )


def load(
    features: str | Path, labels: str | Path | None = None
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a vector, label, split and group for each video, all (videos, ...); arguments as for `probe`."""
    table = read_features(features)
    if not table.num_rows:
        raise DataError(
            f"{features} holds no vectors, as none of the videos could be read: repair them and embed again."
        )
    rows = np.stack(table["vector"].to_numpy())
    _, first, number = np.unique(np.array(table["sample"]), return_index=True, return_inverse=True)
    paths = [unescaped(table["path"][int(i)].as_py()) for i in first]
    vectors = np.zeros((len(paths), rows.shape[1]), np.float64)
    np.add.at(vectors, number, rows)
    vectors /= np.bincount(number)[:, None]
    columns = [[t and unescaped(t) for t in table[name].to_pylist()] for name in ("label", "split", "group")]
    stored = [tuple(column[i] for column in columns) for i in first]
    return vectors.astype(np.float32), *_about(paths, stored, labels)


def load_unreadable(
    features: str | Path, labels: str | Path | None = None, *, on_bad: Literal["stop", "wrong"] = "wrong"
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return label, split and group, (videos,) each, of the videos that could not be read when they were embedded.

    Raises:
        DataError: if there are some and ``on_bad`` is "stop".
    """
    videos = read_unreadable(features)
    paths = [video["path"] for video in videos]
    if paths and on_bad == "stop":
        named = ", ".join(paths[:NAMED]) + (", ..." if len(paths) > NAMED else "")
        raise DataError(
            f"{len(paths)} videos could not be read when they were embedded: {named}. Repair them and run `videomae "
            "embed` again, or let those to test on count as wrong and leave the others out (--on-bad wrong)."
        )
    return _about(paths, [(video["label"], video["split"], video["group"]) for video in videos], labels)


def _about(
    paths: list[str], stored: list[tuple[Any, ...]], labels: str | Path | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return label, split and group, (videos,) each, of videos: as stored, or from a manifest."""
    about = stored
    if labels is not None:
        manifest = read_manifest(labels)
        known = {v.path: (None if v.label is None else manifest.classes[v.label], v.split, v.group) for v in manifest}
        if len(known) < len(manifest) or len(set(paths)) < len(paths):
            raise DataError(
                f"stretches of one video have labels of their own, {labels} cannot be matched by path: embed {labels} "
                "itself, and leave it out here."
            )
        if missing := [path for path in paths if path not in known]:
            raise DataError(
                f"{labels} lacks {len(missing)} of the embedded videos, such as {missing[0]!r}: write paths as in the "
                "list that was embedded."
            )
        about = [known[path] for path in paths]
    if unlabelled := [path for path, (name, *_) in zip(paths, about, strict=True) if name is None]:
        raise DataError(
            f"{len(unlabelled)} videos have no label, such as {unlabelled[0]!r}: name a manifest with labels."
        )
    label, split, group = (np.array([row[i] or "" for row in about], str) for i in range(3))
    return label, split, np.where(group == "", np.array(paths, str), group)


def _folds(targets: NDArray[Any], groups: NDArray[Any], seed: int) -> tuple[list[Any], str]:
    from sklearn.model_selection import StratifiedGroupKFold

    smallest = min(len(np.unique(groups[targets == target])) for target in np.unique(targets))
    if smallest < 2:
        raise DataError(
            "cross-validation needs videos of at least 2 groups (without groups: 2 videos) in every class: name a "
            "manifest with a split 'test'."
        )
    folds = min(FOLDS, smallest)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(targets, targets, groups)), f"{folds}-fold cross-validation, groups kept together"
