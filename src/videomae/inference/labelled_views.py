"""The views of a list of videos, in batches, as an evaluation needs them: with PyTorch's loader, or without PyTorch.

B videos · V views of a video · T frames of H x W pixels · C channels
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Manifest, Sample
from videomae.errors import VideoError
from videomae.inference.protocols import Protocol, ViewTransform
from videomae.video.clips import read_clips
from videomae.video.damage import reading_notes
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from videomae.inference.classifier import VideoClassifier

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Views(NamedTuple):
    """A batch of videos.

    Attributes:
        indices: of the B videos that could be read, in the list.
        pixels: (V * B, ...) as the engine takes them, all first views before all second ones; None where B is 0.
        unreadable: by index of a video, why it could not be read.
    """

    indices: list[int]
    pixels: Any
    unreadable: dict[int, str]


def load_views(
    classifier: "VideoClassifier",
    data: Manifest,
    protocol: Protocol,
    *,
    batch_size: int,
    num_workers: int,
    rank: int,
    world_size: int,
) -> Iterator[Views]:
    """Yield the views of the videos of one rank with PyTorch's loader: decoded by processes.

    Args:
        classifier: for which the views are cut.
        data: the videos.
        protocol: what is seen of a video.
        batch_size: views in a batch, at least those of one video.
        num_workers: processes that decode; 0 decodes in this one.
        rank: of this process, from 0.
        world_size: number of processes that share the videos.
    """
    from videomae.data.dataset import VideoDataset, build_loader

    cut = classifier.view_transform(protocol)
    dataset = VideoDataset(
        data,
        sampling=protocol.sampling,
        clip_frames=classifier.config.num_frames,
        num_clips=protocol.num_clips,
        training=False,
        transform=cut,
        on_bad="mark",
        square_pixels=protocol.square_pixels,
        shrink=cut.shrink,
    )
    videos = max(batch_size // len(protocol.views), 1)
    for batch in build_loader(dataset, batch_size=videos, num_workers=num_workers, rank=rank, world_size=world_size):
        reasons = [reason for _, reason in batch["unreadable"]]
        indices = batch["index"][: len(batch["index"]) // len(protocol.views)].tolist()
        yield Views(indices, batch.get("pixel_values"), dict(zip(batch["unreadable_index"], reasons, strict=True)))


def read_views(
    classifier: "VideoClassifier",
    data: Manifest,
    protocol: Protocol,
    *,
    batch_size: int,
    num_workers: int,
    rank: int,
    world_size: int,
) -> Iterator[Views]:
    """Yield the same for an engine that takes frames of 8 bits, without PyTorch: decoded by threads, at least one."""
    cut, num_frames = classifier.view_transform(protocol), classifier.config.num_frames

    def read(index: int) -> NDArray[np.uint8] | str:
        """Return (V, T, H, W, C), or why there is nothing."""
        try:
            clips = _read_sample(data.samples[index], cut, protocol, num_frames)
        except VideoError as error:
            return str(error)
        return np.concatenate([cut(clip) for clip in clips])

    mine = range(rank, len(data), world_size)
    size = max(batch_size // len(protocol.views), 1)
    found = _in_order(read, mine, threads=max(num_workers, 1))
    for begin in range(0, len(mine), size):
        batch = dict(zip(mine[begin : begin + size], found, strict=False))
        views = {index: pixels for index, pixels in batch.items() if not isinstance(pixels, str)}
        pixels = np.stack(list(views.values()), axis=1) if views else None  # (V, B, T, H, W, C)
        yield Views(
            list(views),
            None if pixels is None else pixels.reshape(-1, *pixels.shape[2:]),
            {index: reason for index, reason in batch.items() if isinstance(reason, str)},
        )


def _read_sample(sample: Sample, cut: ViewTransform, protocol: Protocol, num_frames: int) -> list[NDArray[np.uint8]]:
    """Return the clips of a video; what is odd about it is logged."""

    def read(reader: VideoReader) -> list[NDArray[np.uint8]]:
        return read_clips(
            reader,
            protocol.sampling,
            clip_frames=num_frames,
            num_clips=protocol.num_clips,
            shrink=cut.shrink,
            stretch=sample.some_frames_of(reader.times),
        )

    clips, damage = sample.read(read, threads=1, peek=False, square_pixels=protocol.square_pixels)
    if damage:
        log.warning("%s %s", sample.path, "; ".join(reading_notes(damage)))
    return clips


def _in_order(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """Yield what a function makes of items, in their order; threads work a few ahead."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
