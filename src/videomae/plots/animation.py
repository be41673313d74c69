"""A clip as a file: a sheet of frames (.png), or an animation (.mp4, .gif), as the file's name says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videomae.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, ANIMATIONS = ".png", (".mp4", ".gif")
FRAMES_PER_SECOND = 8


def check_out(path: Path, video: str | Path) -> None:
    """Check the name of the file to draw: a sheet (.png) or an animation (.mp4, .gif).

    Raises:
        ValueError: if it is of another kind, or the video itself.
    """
    if path.suffix not in (PICTURE, *ANIMATIONS):
        raise ValueError(f"--out must end in .png, .mp4 or .gif, got {path}.")
    if path.resolve() == Path(video).resolve():
        raise ValueError(f"--out {path} is the video itself: name another file.")


def write_clip(path: Path, draw: "Callable[[], Figure]", animate: Callable[[], NDArray[np.uint8]]) -> None:
    """Write a clip as a sheet or an animation.

    Args:
        path: a name that `check_out` lets pass.
        draw: makes the sheet.
        animate: makes the frames of the animation, (T, H, W, 3), sides even.
    """
    with atomic_write(path) as temporary:
        if path.suffix == PICTURE:
            draw().savefig(temporary, dpi=120)
        else:
            write_animation(temporary, animate(), path.suffix)


def write_animation(path: Path, frames: NDArray[np.uint8], suffix: str) -> None:
    """Write (T, H, W, 3) frames, sides even, as .mp4 (H.264) or as .gif that goes round."""
    if suffix == ".mp4":
        from videomae.video.encode import write_video

        write_video(path, frames, fps=FRAMES_PER_SECOND)
        return
    from PIL import Image

    # This way of choosing 256 colours keeps rare ones, such as the brightest of a heat map.
    first, *others = (Image.fromarray(frame).quantize(method=Image.Quantize.MAXCOVERAGE) for frame in frames)
    first.save(path, "GIF", save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)
