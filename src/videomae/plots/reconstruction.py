"""Reconstructions as pictures and videos."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videomae.inference.reconstruct import Reconstruction
from videomae.plots.style import INK, plain, show_frame, show_slots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_FRAMES, SMALLEST_SIDE = 8, 192


def draw(reconstruction: Reconstruction, *, title: str = "") -> "Figure":
    """Return a sheet of some frames, a row for each view, with the error of each time slot below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = reconstruction.rows
    num_frames = len(reconstruction.original)
    times = np.linspace(0, num_frames - 1, min(SHOWN_FRAMES, num_frames)).round().astype(int)
    figure = Figure(figsize=(1.35 * len(times) + 1.6, 1.4 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows) + 1, len(times), height_ratios=[*[1] * len(rows), 0.75])
    for i, (name, frames) in enumerate(rows.items()):
        for j, time in enumerate(times):
            axes = figure.add_subplot(grid[i, j])
            show_frame(axes, frames[time], above="" if i else f"frame {time}", left="" if j else name)
    show_slots(figure.add_subplot(grid[-1, :]), reconstruction.error_by_slot, "squared error\nof hidden pixels")
    if title:
        figure.suptitle(plain(title), fontsize=10)
    return figure


def side_by_side(reconstruction: Reconstruction) -> NDArray[np.uint8]:
    """Return the views beside each other with their titles, (T, height, width, 3) uint8, sides even."""
    from PIL import Image, ImageDraw

    rows = reconstruction.rows
    height, width = reconstruction.original.shape[1:3]
    scale = max(-(-SMALLEST_SIDE // min(height, width)), 1)
    size, strip, gap = (width * scale, height * scale), 34, 6
    total = (len(rows) * (size[0] + gap) - gap, size[1] + strip)
    pictures = []
    for time in range(len(reconstruction.original)):
        sheet = Image.new("RGB", (total[0] + total[0] % 2, total[1] + total[1] % 2), "white")
        for i, (name, frames) in enumerate(rows.items()):
            left = i * (size[0] + gap)
            sheet.paste(Image.fromarray(frames[time]).resize(size, Image.Resampling.NEAREST), (left, strip))
            ImageDraw.Draw(sheet).multiline_text((left + 2, 3), name, fill=INK, spacing=2)
        pictures.append(np.asarray(sheet))
    return np.stack(pictures)
