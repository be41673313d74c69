"""Decoded frames to RGB pictures: upright, of square pixels, and all of one size.

H height · W width of the upright picture
"""

import logging

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.backends.orientation import FrameFormat, format_of, upright

log = logging.getLogger(__name__)

# Numbers of ITU-T H.273: matrix coefficients, colour primaries and the range of levels.
BT709, UNSPECIFIED, SMPTE170M, YCGCO, BT2020 = 1, 2, 6, 8, 9
BT2020_CONSTANT, DERIVED, DERIVED_CONSTANT, ICTCP = 10, 12, 13, 14
CONVERTED = frozenset({0, 1, 2, 4, 5, 6, 7, 9})  # the matrices that FFmpeg's scaler knows
OF_PRIMARIES = {1: BT709, 5: SMPTE170M, 6: SMPTE170M, 7: 7, 9: BT2020}  # the matrix that follows from them, table 4
LIMITED, FULL = 1, 2


class FrameConverter:
    """Turns the decoded frames of one video into pictures, with the format of the first one.

    A later frame of another size is scaled to that of the first. FFmpeg's scaler refuses some colour matrices: YCgCo is
    converted by its formula, for the others the nearest one that it knows stands in. All of this is logged, once.

    Args:
        name: of the video.
        pixel_aspect: width of a stored pixel over its height; with any but 1 the picture is widened or heightened.
        max_pixels: of a frame, as stored and as a picture.

    Attributes:
        frame_format: of the first frame; None before one was decoded.
    """

    def __init__(self, name: str, *, pixel_aspect: float = 1.0, max_pixels: int) -> None:
        self.name, self._pixel_aspect, self._max_pixels = name, pixel_aspect, max_pixels
        self.frame_format: FrameFormat | None = None
        self._reformatter = VideoReformatter()
        self._noted: set[str] = set()

    def learn(self, frame: VideoFrame) -> FrameFormat:
        """Return the format of the first frame, which is this one if there was none before.

        Raises:
            VideoError: if it has more pixels than the limit.
        """
        if self.frame_format is None:
            found = format_of(frame, pixel_aspect=self._pixel_aspect)
            check_size(self.name, *found.stored_size, self._max_pixels)
            check_size(self.name, *found.picture_size, self._max_pixels)
            self.frame_format = found
        return self.frame_format

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return a picture, (H, W, 3) RGB, valid until the next call."""
        frame_format = self.learn(frame)
        size = frame.width, frame.height
        if size != frame_format.stored_size:
            check_size(self.name, *size, self._max_pixels)
            self._note(f"changes from {frame_format.stored_size} to {size} pixels: scaled to the first size")
        if frame.color_range not in (0, LIMITED, FULL):
            frame.color_range = 0
        if frame.colorspace in CONVERTED or frame.format.is_rgb:
            image = self._scale(frame, "rgb24", frame_format.picture_size)
        elif frame.colorspace == YCGCO and len(frame.format.components) >= 3:
            image = self._from_ycgco(frame, frame_format.picture_size)
        else:
            unknown, frame.colorspace = frame.colorspace, stand_in(frame.colorspace, frame.color_primaries)
            self._note(f"has the colour matrix {unknown}: converted by {frame.colorspace} (numbers of ITU-T H.273)")
            image = self._scale(frame, "rgb24", frame_format.picture_size)
        return upright(image, frame_format.orientation)

    def _scale(self, frame: VideoFrame, format: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        # One scaling thread: to start more takes longer than to convert a frame.
        plane = self._reformatter.reformat(frame, *size, format=format, threads=1).planes[0]
        return np.ndarray((size[1], size[0], 3), np.uint8, memoryview(plane), strides=(plane.line_size, 3, 1))

    def _from_ycgco(self, frame: VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Convert luma, green and orange differences, limited or full range (H.273, equations 41 to 49)."""
        is_full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
        frame.colorspace = UNSPECIFIED  # so that the scaler takes the levels as they are
        same = self._reformatter.reformat(frame, *size, format="yuvj444p" if is_full else "yuv444p", threads=1)
        luma, green, orange = same.to_ndarray().astype(np.float32)
        luma = luma / 255 if is_full else (luma - 16) / 219
        green, orange = ((levels - 128) / (255 if is_full else 224) for levels in (green, orange))
        rest = luma - green
        colours = np.stack([rest + orange, luma + green, rest - orange], axis=-1)
        return (colours * 255).round().clip(0, 255).astype(np.uint8)

    def _note(self, what: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            log.warning("%s %s", self.name, what)


def stand_in(matrix: int, primaries: int) -> int:
    """Return a matrix that FFmpeg's scaler knows, in place of one that it does not.

    That of the primaries where these define it (exact for a constant matrix derived from them, close for one of
    constant luminance), that of BT.2020 for its relatives, and what FFmpeg takes without a statement elsewhere.
    """
    if matrix in (DERIVED, DERIVED_CONSTANT):
        return OF_PRIMARIES.get(primaries, UNSPECIFIED)
    return BT2020 if matrix in (BT2020_CONSTANT, ICTCP) else UNSPECIFIED


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise a VideoError for a frame of more pixels than the limit."""
    if width * height > max_pixels:
        raise VideoError(
            f"{name} has frames of {width} x {height} pixels, and {max_pixels:,} are the limit. Re-encode it to a "
            "smaller size, or raise VIDEOMAE_MAX_PIXELS if there is the memory for it."
        )
