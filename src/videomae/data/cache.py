"""Small videos kept in memory, for training that sees each of them many times."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from videomae.config import SMALLEST_STD
from videomae.data.manifest import Manifest, Sample
from videomae.errors import VideoError
from videomae.video.augment import Squeeze
from videomae.video.reader import VideoReader


class FrameCache:
    """Evenly spaced frames of whole videos, squeezed to small grey squares; each is decoded once, here.

    ``cache[index]`` is (n, S, S) uint8, or None for a video that is to be read from its file: one that cannot be read,
    or that there was no room for. In memory 658 videos of 40 frames of 72 x 72 pixels take 136 MB.

    Args:
        samples: the videos.
        side: S, pixels.
        max_frames: of a video that are kept at most.
        max_bytes: the first videos that fit are kept.
        backend: of `VideoReader`, like ``square_pixels``.
    """

    def __init__(
        self,
        samples: Manifest | Sequence[Sample],
        *,
        side: int,
        max_frames: int = 40,
        max_bytes: float = 1e9,
        backend: str = "pyav",
        square_pixels: bool = True,
    ) -> None:
        self._videos: list[NDArray[np.uint8] | None] = []
        self.nbytes = 0
        for sample in samples:
            video = None
            if self.nbytes < max_bytes:
                options = {"backend": backend, "square_pixels": square_pixels}
                video = _read(sample, side=side, max_frames=max_frames, **options)
            self._videos.append(video)
            self.nbytes += 0 if video is None else video.nbytes

    def __iter__(self) -> Iterator[NDArray[np.uint8] | None]:
        return iter(self._videos)

    def __getitem__(self, index: int) -> NDArray[np.uint8] | None:
        return self._videos[index]

    def statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of all pixels, from 0 to 1; (0.5, 0.25) where there are none."""
        counts = sum((np.bincount(video.ravel(), minlength=256) for video in self._videos if video is not None), 0)
        if not np.any(counts):
            return 0.5, 0.25
        values, weights = np.arange(256) / 255, counts / np.sum(counts)
        mean = float(values @ weights)
        return mean, max(float((values - mean) ** 2 @ weights) ** 0.5, SMALLEST_STD)

    def __len__(self) -> int:
        return len(self._videos)


def _read(sample: Sample, *, side: int, max_frames: int, **options: Any) -> NDArray[np.uint8] | None:
    def squeeze(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
        return Squeeze(side)(pixels).permute(1, 2, 0).numpy()

    def some_frames(reader: VideoReader) -> NDArray[np.uint8]:
        stretch = sample.some_frames_of(reader.times)
        kept = min(len(stretch), max_frames)
        places = ((np.arange(kept) + 0.5) * (len(stretch) / kept)).astype(np.int64)
        return reader.frames_at(stretch.start + places, shrink=squeeze)

    try:
        frames, _ = sample.read(some_frames, peek=False, **options)
    except VideoError:
        return None  # whoever reads the file next reports it
    return F.rgb_to_grayscale(torch.from_numpy(frames).permute(0, 3, 1, 2))[:, 0].contiguous().numpy()
