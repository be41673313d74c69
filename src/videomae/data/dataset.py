"""Manifests to batches: which clip a sample is, what happens with a bad file, and in which order samples come.

A sample is a function of (seed, epoch, index), and the order of an epoch one of (seed, epoch). Neither depends on the
number of workers or ranks, nor on whether the run was interrupted. Workers learn the epoch from the sampler's keys.

B videos in a batch · K clips per video · T frames · N tubelets
"""

import atexit
import gc
import logging
import re
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from videomae.data.cache import FrameCache
from videomae.data.manifest import Manifest, Sample
from videomae.data.mirroring import Mirroring
from videomae.errors import DataError, VideoError
from videomae.processes import safe_path
from videomae.video.augment import seeded
from videomae.video.damage import reading_notes
from videomae.video.reader import Shrink, VideoReader
from videomae.video.sampling import ClipSampling, Indices

ON_BAD = ("raise", "skip", "mark")
MAX_ATTEMPTS = 10  # unreadable videos in a row before a training sample gives up

T = TypeVar("T")

log = logging.getLogger(__name__)


class VideoDataset(Dataset[dict[str, Any]]):
    """Clips of the videos of a manifest.

    ``dataset[index]`` is a sample of epoch 0 and ``dataset[epoch, index]`` of any. Each item holds

        pixel_values    (K, T, C, H, W), as the transform leaves them; uint8 without one
        label           class index; absent where the video has none
        index, path     which video this is; of its substitute, where a bad file was skipped
        mask            (K, N) bool, True = masked; with ``mask`` only
        unreadable      [(path, reason)] of the videos that failed on the way

    K is ``clips_per_video * augmentations_per_clip`` in training, and clips times crops in evaluation.

    Args:
        samples: a manifest, or the samples themselves.
        sampling: which frames make a clip.
        clip_frames: frames in a clip, T.
        num_clips: clips of a video in a test, spread over its length.
        training: draw random clips, and skip bad files; otherwise the fixed views, and bad files raise.
        transform: from a (T, C, H, W) uint8 clip to one clip, or to several (crops, T, C, H, W). It may draw from
            torch's global generator, which is seeded for it.
        clips_per_video: different random clips of a video that is opened once; training only.
        augmentations_per_clip: times that a decoded clip is transformed anew (repeated augmentation; v1: 2 in
            fine-tuning, v2: 4 in pre-training); training only.
        mask: from a seeded generator to an (N,) bool mask, called for each of the K clips.
        seed: of the run.
        on_bad: "skip" takes another video, a function of (seed, epoch, index); training only. "raise" raises the
            VideoError. "mark" returns an item without pixels, to be scored as wrong.
        threads: decoding threads; by default 1 in a worker of a loader, and one per processor elsewhere.
        backend: of `VideoReader`.
        square_pixels: scale frames whose pixels are not square; False gives the stored ones.
        mirroring: mirrors videos and their labels, after the transform; training only.
        shrink: what is done to each frame as it is decoded, before the transform.
        cache: of the same samples, in their order; for sampling that looks at whole videos. Its clips have C = 1.
    """

    def __init__(
        self,
        samples: Manifest | Sequence[Sample],
        *,
        sampling: ClipSampling,
        training: bool,
        clip_frames: int = 16,
        num_clips: int = 1,
        transform: Callable[[Tensor], Tensor] | None = None,
        clips_per_video: int = 1,
        augmentations_per_clip: int = 1,
        mask: Callable[[torch.Generator], Tensor] | None = None,
        seed: int = 0,
        on_bad: str | None = None,
        threads: int | None = None,
        backend: str = "pyav",
        square_pixels: bool = True,
        mirroring: Mirroring | None = None,
        shrink: Shrink | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.cache = cache
        self._damaged: set[int] = set()  # of which this process has told
        self.sampling = sampling
        self.clip_frames = clip_frames
        self.num_clips = num_clips
        self.training = training
        self.transform = transform
        self.clips_per_video = clips_per_video
        self.augmentations_per_clip = augmentations_per_clip
        self.mask = mask
        self.seed = seed
        self.on_bad = on_bad or ("skip" if training else "raise")
        self.threads = threads
        self.backend = backend
        self.square_pixels = square_pixels
        self.mirroring = mirroring
        self.shrink = shrink
        if self.on_bad not in ON_BAD:
            raise ValueError(f"on_bad must be one of {ON_BAD}, got {on_bad!r}.")
        if cache is not None and not sampling.is_of_whole_video:
            raise ValueError(
                f"a cache keeps evenly spaced frames, of which clips.method = {sampling.method!r} cannot choose: take "
                "'whole' or 'uniform', or no cache."
            )
        if not training and self.on_bad == "skip":
            raise ValueError("evaluation never replaces a video: pass on_bad='raise', or 'mark' to score it as wrong.")
        if not training and mirroring is not None:
            raise ValueError("evaluation never mirrors a video: leave out mirroring.")
        if not training and (clips_per_video, augmentations_per_clip) != (1, 1):
            raise ValueError(
                "evaluation takes its clips from num_clips and the transform's crops: leave "
                "clips_per_video and augmentations_per_clip at 1."
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        unreadable: list[tuple[str, str]] = []
        for attempt in range(MAX_ATTEMPTS):
            rng = _generator(self.seed, epoch, index, attempt)
            chosen = index if attempt == 0 else int(rng.integers(len(self)))
            try:
                return self._read(chosen, rng) | {"unreadable": unreadable}
            except VideoError as error:
                if self.on_bad == "raise":
                    raise
                unreadable.append((self.samples[chosen].path, str(error)))
                if self.on_bad == "mark":
                    return self._about(index) | {"unreadable": unreadable}
        raise DataError(
            f"{MAX_ATTEMPTS} videos in a row could not be read, the last one: {unreadable[-1][1]} "
            "Run `videomae check` on the data."
        )

    def _about(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        about: dict[str, Any] = {"index": index, "path": sample.path}
        return about if sample.label is None else about | {"label": sample.label}

    def _read(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        clips = [clip for clip in self._decode(index, rng) for _ in range(self.augmentations_per_clip)]
        # NumPy reorders the axes of a clip that is stored as (T, H, W, C) in half of torch's time.
        parts = [np.asarray(self._transform(clip, rng)) for clip in clips]
        pixels = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
        np.concatenate(parts, out=pixels)
        item = self._about(index) | {"pixel_values": torch.from_numpy(pixels)}
        if self.mirroring is not None and rng.random() < self.mirroring.probability:
            item["pixel_values"] = item["pixel_values"].flip(-1)
            item["label"] = self.mirroring.labels[item["label"]]
        if self.mask is not None:
            generators = [torch.Generator().manual_seed(_draw_seed(rng)) for _ in item["pixel_values"]]
            item["mask"] = torch.stack([self.mask(generator) for generator in generators])
        return item

    def _decode(self, index: int, rng: np.random.Generator) -> Tensor:
        """Read the frames of all clips at once: (clips, T, C, H, W) uint8, a view of (clips, T, H, W, C)."""
        sample, kept = self.samples[index], self.cache[index] if self.cache else None
        if kept is not None:
            indices = self._choose(len(kept), 1.0, rng)
            return torch.from_numpy(kept[indices])[:, :, None]  # C = 1
        threads = self.threads or (1 if get_worker_info() else None)

        def read(reader: VideoReader) -> tuple[Indices, NDArray[np.uint8]]:
            stretch = sample.some_frames_of(reader.times)
            indices = stretch.start + self._choose(len(stretch), reader.fps, rng)
            return indices, reader.frames_at(indices.ravel(), shrink=self.shrink)

        options: dict[str, Any] = {"backend": self.backend, "square_pixels": self.square_pixels}
        (indices, frames), damage = sample.read(read, threads=threads, peek=False, **options)
        if damage and index not in self._damaged:
            self._damaged.add(index)
            log.warning("%s %s", sample.path, "; ".join(reading_notes(damage)))
        return torch.from_numpy(frames).unflatten(0, indices.shape).permute(0, 1, 4, 2, 3)

    def _choose(self, num_frames: int, video_fps: float, rng: np.random.Generator) -> Indices:
        """Return the frames of all clips, (clips, T)."""
        draws = [rng] * self.clips_per_video if self.training else [None]
        chosen = [
            self.sampling(
                num_frames,
                video_fps=video_fps,
                clip_frames=self.clip_frames,
                num_clips=self.num_clips,
                generator=draw,
            )
            for draw in draws
        ]
        return np.concatenate(chosen)

    def _transform(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        if self.transform is None:
            return clip[None]
        with seeded(_draw_seed(rng)):
            result = self.transform(clip)
        return result if result.ndim == 5 else result[None]


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join items to a batch of B * K clips.

    All first clips come before all second ones, so that mixing a clip with its predecessor mixes different videos.
    ``label`` and ``index`` are (B * K,) int64, ``path`` is a list as long; ``unreadable`` lists all reports. Items
    without pixels (``on_bad="mark"``) appear in ``unreadable`` and in ``unreadable_index`` only.
    """
    read = [item for item in items if "pixel_values" in item]
    counts = {len(item["pixel_values"]) for item in read}
    if len(counts) > 1:
        raise ValueError(f"every video must give equally many clips, got {sorted(counts)}.")
    order = [(item, k) for k in range(max(counts, default=0)) for item in read]
    batch: dict[str, Any] = {
        "index": torch.tensor([item["index"] for item, _ in order], dtype=torch.int64),
        "path": [item["path"] for item, _ in order],
        "unreadable": [report for item in items for report in item["unreadable"]],
        "unreadable_index": [item["index"] for item in items if "pixel_values" not in item],
    }
    for name in ("pixel_values", "mask"):
        if order and name in order[0][0]:
            # In a worker this stacks straight into the memory that is shared with the main process.
            batch[name] = default_collate([item[name][k] for item, k in order])
    if order and "label" in order[0][0]:
        batch["label"] = torch.tensor([item["label"] for item, _ in order], dtype=torch.int64)
    return batch


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys (epoch, index) of one rank, in the order of (seed, epoch).

    Consecutive ``batch_size * world_size`` samples of the whole order form a step, and ranks take turns within it: the
    videos of a step are the same however many ranks share them.

    Args:
        num_samples: length of the data set.
        shuffle: draw a new order for each epoch.
        batch_size: videos per rank and step.
        drop_last: leave out the samples that do not fill a step on every rank. Otherwise ranks may differ by one
            sample; none is repeated.
        seed: of the run.
        rank: of this process, from 0.
        world_size: number of processes.
        endless: go on with the next epoch at the end of one, so that no worker of a loader ever idles.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        shuffle: bool,
        batch_size: int,
        drop_last: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        endless: bool = False,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1 = {world_size - 1}, got {rank}.")
        if endless and not drop_last:
            raise ValueError("endless batches need drop_last: one batch would hold videos of two epochs.")
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.endless = endless
        self.per_step = batch_size * world_size
        self.num_samples = num_samples - num_samples % self.per_step if drop_last else num_samples
        self._all_samples = num_samples
        if self.num_samples == 0:
            raise DataError(
                f"{num_samples} videos do not fill one step of {batch_size} on each of {world_size} processes. "
                "Take a smaller batch size."
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose the epoch to begin with, and how many of its batches were seen before an interruption."""
        self.epoch, self.start_batch = epoch, start_batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, start_batch = self.epoch, self.start_batch
        while True:
            order = np.arange(self._all_samples)
            if self.shuffle:
                order = _generator(self.seed, epoch).permutation(order)
            yield from ((epoch, int(order[position])) for position in self._positions(start_batch))
            if not self.endless:
                return
            epoch, start_batch = epoch + 1, 0

    def __len__(self) -> int:
        """Return the number of keys; of an endless sampler, of its first epoch."""
        return len(self._positions(self.start_batch))

    def _positions(self, start_batch: int) -> range:
        return range(start_batch * self.per_step + self.rank, self.num_samples, self.world_size)


def build_loader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool | None = None,
    endless: bool = False,
    pin_memory: bool = False,
    prefetch_factor: int = 2,
    start_method: str | None = None,
) -> "VideoLoader":
    """Return a loader of batches as `collate` makes them; shuffled for a training data set.

    Call ``loader.sampler.set_epoch(epoch, start_batch=...)`` before each epoch; before the first of endless ones.

    Args:
        dataset: what to load; its seed also orders the epochs.
        batch_size: videos per batch; a batch holds K times as many clips.
        num_workers: processes that decode; 0 decodes in this one.
        rank: of this process, from 0.
        world_size: number of processes that share the data.
        drop_last: leave out what does not fill a step; by default in training only.
        endless: go on with the next epoch at the end of one, whose first batches are decoded while the last are used.
        pin_memory: for faster copies to a GPU.
        prefetch_factor: batches that each worker holds ready.
        start_method: "fork", "spawn" or "forkserver"; None is the system's own.
    """
    drop_last = dataset.training if drop_last is None else drop_last
    sampler = EpochSampler(
        len(dataset),
        shuffle=dataset.training,
        batch_size=batch_size,
        drop_last=drop_last,
        seed=dataset.seed,
        rank=rank,
        world_size=world_size,
        endless=endless,
    )
    loader = VideoLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch_factor if num_workers else None,
        multiprocessing_context=start_method if num_workers else None,
        pin_memory=pin_memory,
        # The loader draws a seed for its workers, which nothing uses here: keep it off the global generator.
        generator=torch.Generator(),
    )
    _LOADERS.add(loader)
    return loader


class VideoLoader(DataLoader[dict[str, Any]]):
    """A loader whose processes import nothing from the current folder, and whose dead ones are explained."""

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # torch returns a class of its own
        with safe_path():
            batches = super().__iter__()
        return _explained(batches)


def _explained(batches: Iterator[T]) -> Iterator[T]:
    with explaining_dead_workers():
        yield from batches


@contextmanager
def explaining_dead_workers() -> Iterator[None]:
    """Raise a DataError in place of torch's RuntimeError for a process of a loader that was ended.

    It may come from anywhere in the block: torch raises it as soon as the system tells of a dead process.
    """
    try:
        yield
    except RuntimeError as error:
        if not _DEAD_WORKER.search(str(error)):
            raise
        reason = str(error).splitlines()[0].strip()
        raise DataError(
            f"a process that decodes videos was ended ({reason}), most likely for want of memory. Take "
            "fewer of them (--loader.num-workers or --num-workers; 0 decodes in the main process) or smaller batches. "
            "A training run goes on with the same command."
        ) from error


_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", re.DOTALL)


_LOADERS: "weakref.WeakSet[DataLoader]" = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """End the workers of loaders that are still there when Python ends, such as one in a reference cycle.

    Python itself would send them SIGTERM, which they ignore, and wait for ever.
    """
    for loader in list(_LOADERS):
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # kept only where there are workers


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Return a stream of its own for each key, also for keys that begin alike."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _start_worker(number: int) -> None:
    """Set up a process that decodes."""
    gc.freeze()  # what the process began with: to look through it costs time and copies memory
    # Schedulers send SIGTERM to all processes of a job: the main one saves first, and needs batches until then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
