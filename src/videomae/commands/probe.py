"""``videomae probe``: train simple classifiers on features."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from videomae.console import output, print_json, working
from videomae.inference.probe import probe
from videomae.options import Flag


@dataclasses.dataclass
class ProbeSettings:
    """Train k-nearest-neighbours and logistic regression on what `videomae embed` wrote."""

    features: tyro.conf.Positional[Path]
    """Folder that `videomae embed` wrote."""

    labels: tyro.conf.Positional[Path | None] = None
    """Manifest with labels (and splits or groups); by default those that were embedded."""

    k: int = 10
    """Neighbours that vote, by cosine similarity."""

    c: float = 1.0
    """Inverse strength of the regularisation of logistic regression."""

    seed: int = 0
    """Of folds and bootstrap."""

    on_bad: Literal["stop", "wrong"] = "stop"
    """Videos that could not be read when they were embedded stop the run; or those to test on count as wrong, and those
    to train on are left out."""

    json: Flag = False
    """Print one JSON object."""


def main(settings: ProbeSettings) -> int:
    """Print the accuracies; the exit code is 1 if videos could not be read."""
    s = settings
    with working("training classifiers"):
        result = probe(s.features, s.labels, k=s.k, c=s.c, seed=s.seed, on_bad=s.on_bad)
    code = 1 if result.num_unreadable else 0
    if s.json:
        print_json(dataclasses.asdict(result))
        return code
    console = output()
    console.print(f"{result.num_videos} videos of {len(result.classes)} classes, {result.protocol}")
    if result.num_unreadable:
        console.print(
            f"{result.num_unreadable} videos could not be read: those to test on count as wrong, others are left out"
        )
    for title, score in ((f"{s.k} nearest neighbours", result.knn), ("logistic regression", result.linear)):
        low, high = score.interval
        console.print(
            f"{title:24} top-1 {score.top1:.1%} ({low:.1%} to {high:.1%}), mean of classes "
            f"{score.mean_class_accuracy:.1%}"
        )
    return code
