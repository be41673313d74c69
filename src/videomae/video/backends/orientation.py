"""Which way up the frames of a video are stored, and how they are turned upright.

H height · W width, of the upright frame
"""

import math
from typing import Any, NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

NEARLY_SQUARE = 0.01  # encoders that round a size to even numbers state pixels that are not quite square


class Orientation(NamedTuple):
    """How a stored picture becomes upright: first the axes swap, then the new ones are flipped."""

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False


class FrameFormat(NamedTuple):
    """The format of a video's frames: the properties of `VideoReader`, and how they are stored.

    Sizes are (width, height) before they are turned: as stored, and with square pixels.
    """

    width: int
    height: int
    rotation: int
    pixel_format: str
    stored_size: tuple[int, int]
    picture_size: tuple[int, int]
    orientation: Orientation


def format_of(frame: VideoFrame, *, pixel_aspect: float = 1.0) -> FrameFormat:
    """Return the format of a decoded frame.

    Args:
        frame: the frame.
        pixel_aspect: width of a stored pixel over its height; the narrower side is enlarged by it.
    """
    stored_size = frame.width, frame.height
    picture_size = stored_size
    if abs(pixel_aspect - 1) > NEARLY_SQUARE:
        picture_size = round(frame.width * max(pixel_aspect, 1)), round(frame.height / min(pixel_aspect, 1))
    rotation, orientation = orientation_of(frame)
    size = picture_size[::-1] if orientation.swap else picture_size
    return FrameFormat(*size, rotation, frame.format.name, stored_size, picture_size, orientation)


def orientation_of(frame: VideoFrame) -> tuple[int, Orientation]:
    """Return the degrees clockwise, 0, 90, 180 or 270, that turn a frame upright, and how its axes change for it.

    Reads the display matrix: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 6.2.2), y downwards.
    """
    # `frame.side_data` would tie the frame, and its memory, into a reference cycle.
    matrix: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # a buffer
    if matrix is None:
        return 0, Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    swap = abs(b) > abs(a)
    orientation = Orientation(swap, flip_x=(c if swap else a) < 0, flip_y=(b if swap else d) < 0)
    mirrored = -1 if a * d < b * c else 1
    quarter_turns = round(math.atan2(mirrored * b, mirrored * a) / (math.pi / 2))
    return quarter_turns * 90 % 360, orientation


def upright(image: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Return a view of a picture, (stored height, stored width, 3), as (H, W, 3)."""
    if orientation.swap:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if orientation.flip_y else 1, :: -1 if orientation.flip_x else 1]
