"""How well a model classifies, as files: figures, a line for every video, and the confusion matrix as a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.files import atomic_write, write_csv, write_json
from videomae.inference.metrics import Evaluation
from videomae.plots.style import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_FIGURE_WITH_NAMES, LARGEST_FIGURE_WITH_COUNTS = 60, 20  # classes


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write result.json, predictions.csv, confusion.csv and confusion.png, and return their paths."""
    names = ("result.json", "predictions.csv", "confusion.csv", "confusion.png")
    result, predictions, confusion, figure = files = [Path(folder) / name for name in names]
    write_json(result, evaluation.to_dict())
    write_predictions(evaluation, predictions)
    rows = zip(evaluation.classes, *evaluation.confusion.T.tolist(), strict=True)
    write_csv(confusion, ("true \\ predicted", *evaluation.classes), rows)
    with atomic_write(figure) as temporary:
        plot_confusion(evaluation.confusion, evaluation.classes).savefig(temporary, dpi=120)
    return files


def write_predictions(evaluation: Evaluation, path: str | Path) -> None:
    """Write a CSV line per video: path, start and end where there are any, label, predicted, a score per class.

    An unreadable video has an ``error`` in place of a prediction and scores.
    """
    videos, classes = evaluation.videos, evaluation.classes
    stretches = any(video.start is not None or video.end is not None for video in videos)
    times = ("start", "end") if stretches else ()
    scores = [f"score:{name}" for name in classes]

    def rows() -> Iterable[list[Any]]:
        for video in videos:
            row = [video.path, *(getattr(video, name) for name in times), classes[video.label]]
            if video.scores is None or video.predicted is None:
                yield [*row, "", video.error, *([""] * len(scores))]
            else:
                yield [*row, classes[video.predicted[-1]], "", *(f"{score:.7g}" for score in video.scores)]

    write_csv(path, ("path", *times, "label", "predicted", "error", *scores), rows())


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """Draw a confusion matrix, each row shaded by its fraction of the true class.

    Args:
        confusion: (L, L), true class x predicted class.
        classes: names of the L classes.
    """
    from matplotlib.figure import Figure

    L = len(classes)
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 3.5 + 0.3 * min(L, LARGEST_FIGURE_WITH_NAMES)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if L <= LARGEST_FIGURE_WITH_NAMES:
        names = [plain(name) for name in classes]
        axes.set_xticks(range(L), names, rotation=90)
        axes.set_yticks(range(L), names)
    if L <= LARGEST_FIGURE_WITH_COUNTS:
        for row, column in np.argwhere(confusion):
            colour = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    return figure
