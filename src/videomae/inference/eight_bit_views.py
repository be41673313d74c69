"""The views of a clip as 8-bit frames, cut without PyTorch: what exported models take."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.inference.protocols import ViewTransform, stored_short_side
from videomae.video import eight_bit
from videomae.video.clips import spread_crops
from videomae.video.frames import scaled_size

BILINEAR = 2  # Pillow's number


class EightBitViews(ViewTransform):
    """Cut the views out of a clip of 8-bit frames, to (S, T, *frame_size, C) uint8.

    Clips and attributes are as of `ViewTransform`, whose pixels these are, not yet normalised.
    """

    def shrink(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame (H, W, 3) as `ViewTransform.shrink` does."""
        if self.resize == "processor":
            return self.processor.shrink_eight_bit(frame)
        return _as_stored(frame, self.frame_size[0])

    def __call__(self, clip: Any) -> NDArray[np.uint8]:
        """Cut the views out of a clip."""
        layout = (
            None if isinstance(clip, list) else "channels_last" if isinstance(clip, np.ndarray) else "channels_first"
        )
        processor = dataclasses.replace(self.processor, input_data_format=layout)
        if self.resize == "processor" and self.num_crops == 1:
            return processor.eight_bit(clip)[None]
        size = self.frame_size[0]
        if self.resize == "processor":
            whole = processor.eight_bit(clip, do_center_crop=False)  # (T, H, W, C)
            self.check_room(whole.shape[1], whole.shape[2])
        else:
            frames = processor.eight_bit(clip, do_resize=False, do_center_crop=False)
            whole = np.stack([_resize_as_published(frame, size) for frame in frames])
        height, width = whole.shape[1:3]
        corners = spread_crops(height, width, size, self.num_crops)
        return np.stack([whole[:, top : top + size, left : left + size] for top, left in corners])


def _resize_as_published(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    frame = _as_stored(frame, size)
    height, width = frame.shape[:2]
    return eight_bit.resize_plain(frame, scaled_size(height, width, size))


def _as_stored(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a frame (H, W, C) to what the published data was stored at, for a crop of a size; smaller ones stay."""
    height, width = frame.shape[:2]
    return eight_bit.resize(frame, scaled_size(height, width, min(height, width, stored_short_side(size))), BILINEAR)
