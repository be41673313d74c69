"""What the pictures of clips have in common: sheets of frames, bars for the time slots, and how they are written.

T frames of H x W pixels · S time slots
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE, ANIMATIONS = ".png", (".mp4", ".gif")
BLUE, SOFT = "#3b6fd4", "#667085"
FRAMES_PER_SECOND = 8


def check_out(path: Path, video: Path) -> None:
    """Check the name of the file to draw: a sheet (.png) or an animation (.mp4, .gif).

    Raises:
        ValueError: if it is of another kind, or the video itself.
    """
    if path.suffix not in (PICTURE, *ANIMATIONS):
        raise ValueError(f"--out must end in .png, .mp4 or .gif, got {path}")
    if path.resolve() == video.resolve():
        raise ValueError(f"--out {path} is the video itself: name another file")


def plain(text: str) -> str:
    """Return a name such that matplotlib shows it as it is, and does not read what stands between $ as a formula."""
    return text.replace("$", r"\$")


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


def write_animation(path: Path, frames: NDArray[np.uint8], suffix: str) -> None:
    """Write (T, H, W, 3) frames, sides even, as .mp4 (H.264) or as .gif that goes round."""
    if suffix == ".mp4":
        from videomae.video.synthetic import write_video

        write_video(path, frames, fps=FRAMES_PER_SECOND)
        return
    from PIL import Image

    # This way of choosing 256 colours keeps rare ones, such as the brightest of a heat map.
    first, *others = (Image.fromarray(frame).quantize(method=Image.Quantize.MAXCOVERAGE) for frame in frames)
    first.save(path, "GIF", save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)
