"""Small procedural videos for trying things out: a shape on a noisy ground, and only its motion tells the class.

Positions wrap around the border and all starts, shapes, colours and grounds are random, so that no single frame
shows which class a video is of.

Shapes: T frames, S pixels of a side.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from videomae.video.encode import write_video

# Class name -> (pixels right, pixels down, degrees clockwise) per frame.
MOTIONS = {
    "moving_left": (-1.0, 0.0, 0.0),
    "moving_right": (1.0, 0.0, 0.0),
    "moving_up": (0.0, -1.0, 0.0),
    "moving_down": (0.0, 1.0, 0.0),
    "turning_clockwise": (0.0, 0.0, 7.0),
    "turning_counterclockwise": (0.0, 0.0, -7.0),
}


def motion_video(motion: str, *, rng: np.random.Generator, num_frames: int = 32, size: int = 64) -> np.ndarray:
    """Draw a video of one class.

    Args:
        motion: key of ``MOTIONS``.
        rng: source of the shape, the colours, the ground, the start and the speed.
        num_frames: T.
        size: S, height and width in pixels.

    Returns:
        (T, S, S, 3) uint8.
    """
    right, down, degrees = MOTIONS[motion]
    speed = rng.uniform(0.8, 1.6) * size / 64
    start, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
    length, width = rng.uniform(0.32, 0.42) * size, rng.uniform(0.1, 0.16) * size
    ground = rng.uniform(40, 110, 3) + rng.normal(0, 12, (size, size, 1))
    colour = rng.uniform(150, 255, 3)
    ticks = np.arange(size) + 0.5
    video = np.empty((num_frames, size, size, 3), np.uint8)
    for t in range(num_frames):
        x, y = (start + t * speed * np.array([right, down])) % size
        turned = angle + np.deg2rad(degrees) * t * speed * 64 / size
        dx = (ticks[None, :] - x + size / 2) % size - size / 2
        dy = (ticks[:, None] - y + size / 2) % size - size / 2
        along, across = dx * np.cos(turned) + dy * np.sin(turned), dy * np.cos(turned) - dx * np.sin(turned)
        # A wedge: unlike a bar, it looks different after half a turn.
        inside = (np.abs(along) < length / 2) & (np.abs(across) < width * (0.6 + along / length))
        frame = np.where(inside[..., None], colour, ground) + rng.normal(0, 4, (size, size, 3))
        video[t] = frame.clip(0, 255)
    return video


def write_motion_videos(
    folder: str | Path,
    *,
    per_class: int,
    seed: int = 0,
    size: int = 64,
    num_frames: int = 32,
    progress: Callable[[int], object] = lambda count: None,
) -> list[Path]:
    """Write a folder per class with ``per_class`` videos each.

    Args:
        folder: where; made if needed.
        per_class: videos of each class.
        seed: two calls with the same seed draw the same videos.
        size: height and width in pixels, even.
        num_frames: frames of each video.
        progress: called with 1 after each video.

    Returns:
        The files.
    """
    files = []
    for label, motion in enumerate(MOTIONS):
        for number in range(per_class):
            rng = np.random.default_rng([seed, label, number])
            file = Path(folder) / motion / f"{motion}_{number:03}.mp4"
            write_video(file, motion_video(motion, rng=rng, size=size, num_frames=num_frames))
            files.append(file)
            progress(1)
    return files
