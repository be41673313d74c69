"""How figures of a training run change over its steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from videomae.plots.style import BLUE, GREEN, INK, ORANGE, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(lines: Sequence[Mapping[str, Any]], *, title: str) -> "Figure":
    """Return loss, accuracy where it was measured, and learning rate over the steps, from lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _plot(axes, lines, "loss", BLUE, "training loss")
    _plot(axes, lines, "val_loss", ORANGE, "validation loss")
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if any("val_top1" in line for line in lines):
        right = axes.twinx()
        _plot(right, lines, "val_top1", GREEN, "validation top-1")
        right.set_ylim(0, 1)
        right.tick_params(labelsize=8)
        right.spines["top"].set_visible(False)
        right.legend(loc="lower right", fontsize=8, frameon=False)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    _plot(below, lines, "lr", SOFT, "learning rate")
    below.set_xlabel("step", fontsize=8)
    below.set_ylabel("learning rate", fontsize=8)
    below.tick_params(labelsize=8)
    below.spines[["top", "right"]].set_visible(False)
    return figure


def _plot(axes: "Axes", lines: Sequence[Mapping[str, Any]], name: str, colour: str, label: str) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.6)
