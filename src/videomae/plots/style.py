"""What pictures have in common: colours, frames, bars for the time slots, and how they lie in a page.

T frames of H x W pixels · S time slots
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.files import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

BLUE, ORANGE, GREEN = "#3b6fd4", "#e0a030", "#4a9d7c"
COLOURS = (BLUE, ORANGE, GREEN, "#9b6bc2", "#c0562c", "#5a6b7b")  # of classes, in turn
INK, SOFT, GROUND = "#1f2430", "#667085", "#e8eaed"  # text, text beside it, what is left empty


def plain(text: str) -> str:
    """Return a name such that matplotlib shows it as it is, and does not read what stands between $ as a formula."""
    return escaped(text).replace("$", r"\$")


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture, "png" or "jpeg", as an address that holds it, for a page that is one file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure_uri(figure: "Figure") -> str:
    """Return a figure as such an address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return data_uri(buffer.getvalue(), "png")


def image_uri(image: "Image") -> str:
    """Return a photograph as such an address."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")


def show_frame(axes: "Axes", frame: NDArray[np.uint8], *, above: str = "", left: str = "") -> Any:
    """Draw a frame (H, W, 3) without axes, its pixels as they are, and return the artist."""
    artist = axes.imshow(frame, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if above:
        axes.set_title(above, fontsize=8, color=SOFT)
    if left:
        axes.set_ylabel(left, fontsize=8)
    return artist


def show_slots(axes: "Axes", values: Sequence[float] | NDArray[Any], label: str) -> Any:
    """Draw a bar for each of S time slots and return the bars."""
    bars = axes.bar(range(len(values)), values, width=0.6, color=BLUE)
    axes.set_xticks(range(len(values)))
    axes.set_xlabel("time slot", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return bars
