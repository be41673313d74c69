"""Small videos kept in memory, for training that sees each of them many times."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from videomae.data.manifest import Manifest, Sample
from videomae.errors import VideoError
from videomae.video.reader import VideoReader


class FrameCache:
    """Evenly spaced frames of whole videos, shrunk and grey; each is decoded once, here.

    ``cache[index]`` is (n, H, W) uint8, or None for a video that is to be read from its file: one that cannot be read,
    or that there was no room for. In memory 658 videos of 40 frames of 72 x 96 pixels take 182 MB.

    Args:
        samples: the videos.
        short_side: of the frames that are kept, pixels; smaller ones stay as they are.
        max_frames: of a video that are kept at most.
        max_bytes: the first videos that fit are kept.
        backend: of `VideoReader`.
    """

    def __init__(
        self,
        samples: Manifest | Sequence[Sample],
        *,
        short_side: int,
        max_frames: int = 40,
        max_bytes: float = 1e9,
        backend: str = "pyav",
    ) -> None:
        self._videos: list[NDArray[np.uint8] | None] = []
        self.nbytes = 0
        for sample in samples:
            video = None
            if self.nbytes < max_bytes:
                video = _read(sample, short_side=short_side, max_frames=max_frames, backend=backend)
            self._videos.append(video)
            self.nbytes += 0 if video is None else video.nbytes

    def __getitem__(self, index: int) -> NDArray[np.uint8] | None:
        return self._videos[index]

    def __len__(self) -> int:
        return len(self._videos)


def _read(sample: Sample, *, short_side: int, max_frames: int, backend: str) -> NDArray[np.uint8] | None:
    try:
        with VideoReader(sample.file, backend=backend, peek=False) as reader:
            stretch = sample.some_frames_of(reader.times)
            kept = min(len(stretch), max_frames)
            places = ((np.arange(kept) + 0.5) * (len(stretch) / kept)).astype(np.int64)
            frames = torch.from_numpy(reader.frames_at(stretch.start + places)).permute(0, 3, 1, 2)
    except VideoError:
        return None  # whoever reads the file next reports it
    if min(frames.shape[-2:]) > short_side:
        frames = F.resize(frames, [short_side], antialias=True)
    return F.rgb_to_grayscale(frames)[:, 0].contiguous().numpy()
