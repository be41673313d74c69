"""Explanations as pictures and videos: heat maps over the frames."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.inference.explain import Explanation
from videomae.plots.style import plain, show_frame, show_slots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT_COLOURS = "inferno"
SLOTS_PER_LINE = 8


def heat_maps(explanation: Explanation) -> NDArray[np.uint8]:
    """Return the frames in grey with the map over them, (T, H, W, 3) uint8.

    One scale holds for the whole clip, from 0, which leaves a frame dark, to ``Explanation.scale``.
    """
    from matplotlib import colormaps
    from PIL import Image

    frames, fractions = explanation.frames, explanation.map / np.float32(explanation.scale)
    size = frames.shape[2], frames.shape[1]
    smooth = np.stack([np.asarray(Image.fromarray(slot).resize(size, Image.Resampling.BILINEAR)) for slot in fractions])
    heat = smooth.repeat(len(frames) // len(fractions), axis=0)[..., None]  # (T, H, W, 1) in 0-1
    grey = frames.mean(axis=-1, keepdims=True) / 255
    opacity = 0.25 + 0.6 * heat
    mixed = (1 - opacity) * grey + opacity * colormaps[HEAT_COLOURS](heat[..., 0])[..., :3]
    return (mixed * 255).round().astype(np.uint8)


def draw(explanation: Explanation, *, title: str = "") -> "Figure":
    """Return a sheet with the first frame of each time slot, the heat map below it, and the fraction of each slot."""
    from matplotlib.figure import Figure

    frames, heat = explanation.frames, heat_maps(explanation)
    slots = len(explanation.map)
    columns = min(slots, SLOTS_PER_LINE)
    lines = -(-slots // columns)
    height = 1.35 * frames.shape[1] / frames.shape[2]  # of a frame, in inches
    figure = Figure(figsize=(1.35 * columns + 1.8, lines * (2 * height + 0.3) + 1.7), layout="constrained")
    grid = figure.add_gridspec(2 * lines + 1, columns, height_ratios=[*[height] * 2 * lines, 0.8])
    shown = []
    for slot in range(slots):
        line, column = divmod(slot, columns)
        frame = slot * len(frames) // slots
        axes = [figure.add_subplot(grid[2 * line + view, column]) for view in range(2)]
        show_frame(axes[0], frames[frame], above=f"frame {frame}", left="" if column else "clip")
        show_frame(axes[1], heat[frame], left="" if column else explanation.method)
        shown += axes
    _show_scale(figure, explanation, shown)
    _show_fractions(figure.add_subplot(grid[-1, :]), explanation)
    figure.suptitle(plain("\n".join(filter(None, [title, explanation.title]))), fontsize=10)
    return figure


def animate(explanation: Explanation, *, title: str = "") -> NDArray[np.uint8]:
    """Return the clip beside its heat map, each time slot's fraction below; (T, height, width, 3) uint8, sides even.

    The bar of the time slot that is on show is dark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heat = heat_maps(explanation)
    height = 2.8 * heat.shape[1] / heat.shape[2]  # of a frame, in inches
    figure = Figure(figsize=(6.4, round(height + 2, 1)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 0.9])
    axes = [figure.add_subplot(grid[0, view]) for view in range(2)]
    pictures = [show_frame(a, frames[0]) for a, frames in zip(axes, (explanation.frames, heat), strict=True)]
    axes[0].set_title("clip", fontsize=9)
    axes[1].set_title(explanation.method, fontsize=9)
    _show_scale(figure, explanation, axes)
    bars = _show_fractions(figure.add_subplot(grid[1, :]), explanation)
    figure.suptitle(plain("\n".join(filter(None, [title, explanation.title]))), fontsize=10)
    drawn = []
    for time, views in enumerate(zip(explanation.frames, heat, strict=True)):
        for picture, view in zip(pictures, views, strict=True):
            picture.set_data(view)
        for slot, bar in enumerate(bars):
            bar.set_alpha(1.0 if slot == time * len(bars) // len(heat) else 0.3)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(drawn)


def _show_scale(figure: "Figure", explanation: Explanation, axes: list[Any]) -> None:
    """Draw the scale of the colours beside frames, in multiples of the mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, explanation.scale * explanation.map.size), HEAT_COLOURS)
    bar = figure.colorbar(colours, ax=axes, aspect=24, pad=0.01)
    bar.set_label("times the mean", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _show_fractions(axes: Any, explanation: Explanation) -> Any:
    fractions = explanation.fraction_by_slot
    bars = show_slots(axes, fractions, f"fraction of\n{explanation.method}")
    axes.bar_label(bars, [f"{fraction:.0%}" for fraction in fractions], fontsize=7, padding=1)
    axes.margins(y=0.2)
    axes.set_yticks([])  # the bars are labelled
    return bars
