"""Clips of 8-bit frames, resized and cropped by NumPy and Pillow alone: what exported models take, without PyTorch.

The pixels are those of `frames.py`, up to how the last bit is rounded.
T frames · H height and W width in pixels · C channels
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.video.frames import from_pil, is_array, is_pil

Frame = NDArray[np.uint8]


def as_frame(frame: Any, *, channels: int | None, channel_axis: int | None, convert: bool) -> Frame:
    """Return a frame as uint8 (H, W, C), a view where possible.

    Args:
        frame: a PIL image, or an array or tensor (H, W, C), (C, H, W) or (H, W).
        channels: C that the model expects; None takes any.
        channel_axis: 0 or 2, where an array of 3 axes has its channels.
        convert: whether grey frames are repeated for red, green and blue, and transparent ones laid on white.

    Raises:
        ValueError: for pixels of another type, and for channels that do not fit.
    """
    pixels = from_pil(frame, convert=convert and channels in (3, None)) if is_pil(frame) else np.asarray(frame)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"an exported model takes frames of 8 bits, 0 to 255, got {pixels.dtype}: convert them, or use the model "
            "that it was exported from."
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif channel_axis == 0 and is_array(frame):
        pixels = pixels.transpose(1, 2, 0)
    found = pixels.shape[2]
    if channels in (None, found):
        return pixels
    if convert and channels == 3 and found == 1:
        return np.repeat(pixels, 3, axis=2)
    if convert and channels == 3 and found == 4:
        opacity = pixels[..., 3:] / np.float32(255)
        return np.rint(pixels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    raise ValueError(f"a frame has {found} channels, the model expects {channels}: convert it first.")


def resize(frame: Frame, size: tuple[int, int], resample: int) -> Frame:
    """Resize (H, W, C) as Pillow does, antialiased.

    Args:
        frame: to resize.
        size: (height, width) of the result.
        resample: Pillow's number of the filter.
    """
    if frame.shape[:2] == size:
        return frame
    from PIL import Image

    def resized(pixels: Frame) -> Frame:
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling(resample)))

    if frame.shape[2] == 3:
        return resized(np.ascontiguousarray(frame))
    return np.stack([resized(np.ascontiguousarray(channel)) for channel in np.moveaxis(frame, 2, 0)], axis=2)


def resize_plain(frame: Frame, size: tuple[int, int]) -> Frame:
    """Resize (H, W, C) bilinearly from the two nearest rows and columns, without antialiasing."""
    for axis, length in reversed(list(enumerate(size))):
        frame = _resize_axis(frame, axis, length)
    return frame


def _resize_axis(frame: Frame, axis: int, length: int) -> Frame:
    if frame.shape[axis] == length:
        return frame
    place = np.maximum((np.arange(length) + 0.5) * frame.shape[axis] / length - 0.5, 0)
    first = place.astype(np.int64)
    second = np.minimum(first + 1, frame.shape[axis] - 1)
    # As torch: weights are whole numbers below 2^15, with as many binary places as the largest of them allows.
    far = place - first
    places = int(np.log2((2**15 - 1) / max(far.max(), 1 - far.min())))
    near, far = (np.rint(weight * 2**places).astype(np.int32) for weight in (1 - far, far))
    shape = [length if number == axis else 1 for number in range(3)]
    mixed = frame.take(first, axis) * near.reshape(shape) + frame.take(second, axis) * far.reshape(shape)
    return ((mixed + 2 ** (places - 1)) >> places).clip(0, 255).astype(np.uint8)


def center_crop(frame: Frame, height: int, width: int) -> Frame:
    """Cut the middle out of (H, W, C); where the frame is smaller, put a margin of zeros around it first."""
    rows, columns = max(height - frame.shape[0], 0), max(width - frame.shape[1], 0)
    if rows or columns:
        margins = ((rows // 2, (rows + 1) // 2), (columns // 2, (columns + 1) // 2), (0, 0))
        frame = np.pad(frame, margins)
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]
