"""What things cost on this machine: training steps, reading, copying, memory; and the pixels of some videos."""

import dataclasses
import functools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from videomae.config import SMALLEST_STD, VideoMAEConfig
from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest
from videomae.errors import DataError, VideoError
from videomae.pipeline.sizes import divisors
from videomae.training.finetuning import FinetuneSettings
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    import torch

    from videomae.training.estimate import Cost

FREE_FRACTION = 0.7  # of the memory that is free, for what is estimated
MEASURED_BATCH = 8  # clips in a step that is timed
SAMPLED_VIDEOS, SAMPLED_FRAMES = 32, 4  # whose pixels are looked at
READ_VIDEOS, COPIED_VIDEOS, COPIED_FRAMES = 8, 3, 96  # by which reading and copying are timed


def training_device(device: str) -> "torch.device":
    """Return the device that the setting ``device`` of training, auto or cpu, stands for."""
    from videomae.inference.devices import choose_device

    return choose_device(None if device == "auto" else device)


def decodes_beside(device: str, num_workers: int | None) -> bool:
    """Tell whether videos are decoded while a GPU trains."""
    return num_workers != 0 and training_device(device).type != "cpu"


# ------------------------------------------------------------------------------------------------------ the model


def finetuning_cost(config: VideoMAEConfig) -> "Cost":
    """Return what a classifier of this configuration costs to train."""
    return _cost(config.replace(use_mean_pooling=True).to_json_string(), None)


def pretraining_cost(config: VideoMAEConfig, *, mask_ratio: float) -> "Cost":
    """Return what it costs to pre-train a model of this configuration, with so much of a clip hidden."""
    return _cost(config.to_json_string(), mask_ratio)


@functools.cache  # a plan asks for the cost of a model more than once
def _cost(config_json: str, mask_ratio: float | None) -> "Cost":
    import torch

    from videomae.models.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification
    from videomae.training.estimate import estimate

    config = VideoMAEConfig.from_dict(json.loads(config_json))
    total = config.num_tubelets
    with torch.device("meta"):
        clip, label = _empty_clips(config, 1), torch.zeros(1, dtype=torch.int64)
        mask = torch.ones(1, total, dtype=torch.bool)
        model = VideoMAEForVideoClassification(config) if mask_ratio is None else VideoMAEForPreTraining(config)
    if mask_ratio is None:
        return estimate(model, lambda model: model(clip, labels=label).loss, half=False, ema=False)
    hidden = min(max(round(mask_ratio * total), 1), total - 1)
    return estimate(model, lambda model: model(clip, mask, num_masked=hidden).loss, half=False, ema=False)


def training_speed(config: VideoMAEConfig, cost: "Cost", device: str) -> float:
    """Return the FLOPs per second of training a classifier here, waiting for data left out.

    Args:
        config: of the model.
        cost: of training it, as `finetuning_cost` returns it.
        device: auto or cpu.
    """
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

    where = training_device(device)
    model = VideoMAEForVideoClassification(config.replace(use_mean_pooling=True)).to(where).train()
    clips = _empty_clips(config, MEASURED_BATCH).to(where)
    labels = torch.zeros(MEASURED_BATCH, dtype=torch.int64, device=where)
    times = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        model(clips, labels=labels).loss.backward()
        _wait_for(where)
        times.append(time.perf_counter() - began)
    return MEASURED_BATCH * cost.training_flops / sorted(times)[1]


def fitting_batch(config: VideoMAEConfig, batch_size: int, device: str) -> int:
    """Return the largest part of a batch for which fine-tuning, which needs the most, fits into free memory."""
    cost, free = finetuning_cost(config), FREE_FRACTION * free_memory(device)
    return max((part for part in divisors(batch_size) if cost.memory(part) <= free), default=1)


def free_memory(device: str) -> float:
    """Return the bytes that are free on the device that training takes."""
    import torch

    if training_device(device).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if hasattr(os, "sysconf") else float("inf")


def _empty_clips(config: VideoMAEConfig, count: int) -> "torch.Tensor":
    import torch

    return torch.zeros(count, config.num_frames, config.num_channels, *config.frame_size)


def _wait_for(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


# ----------------------------------------------------------------------------------------------------- the videos


def reading_seconds(videos: Manifest, settings: FinetuneSettings, config: VideoMAEConfig) -> float:
    """Return the seconds that a clip takes from its file to the model, on all decoding processes together.

    Args:
        videos: of which some are read.
        settings: frames of a clip, augmentation and decoding processes.
        config: of the model.

    Raises:
        DataError: if none of the videos that are tried can be read.
    """
    from videomae.data.dataset import VideoDataset
    from videomae.video.augment import finetune_augmentation

    size, grey = config.frame_size[0], (0.5,) * 3
    dataset = VideoDataset(
        videos,
        sampling=settings.clips,
        clip_frames=config.num_frames,
        training=True,
        transform=finetune_augmentation(settings.augment, mean=grey, std=grey, image_size=size),
        on_bad="raise",
        threads=1,
        square_pixels=settings.loader.square_pixels,
    )
    times, refusal = [], None
    for i in spread(range(len(dataset)), READ_VIDEOS):
        began = time.perf_counter()
        try:
            dataset[i]
        except VideoError as error:
            refusal = error
        else:
            times.append(time.perf_counter() - began)
    if not times:
        raise DataError(f"none of {READ_VIDEOS} training videos can be read, such as: {refusal}.")
    return sum(times) / len(times) / max(settings.loader.workers(1), 1)


def whole_video_seconds(videos: Manifest, *, side: int) -> float:
    """Return the seconds that it takes to read some frames of a whole video, on average of some.

    Args:
        videos: of which some are read.
        side: that their frames are shrunk to, pixels.
    """
    from videomae.data.cache import FrameCache

    some = [videos.samples[i] for i in spread(range(len(videos)), READ_VIDEOS)]
    began = time.perf_counter()
    FrameCache(some, side=side)
    return (time.perf_counter() - began) / len(some)


def small_copies(videos: Manifest, side: int, folder: Path) -> tuple[float, Manifest] | None:
    """Return the seconds that it takes to copy a frame, in one process, and copies of some stretches to read from.

    They are written to the folder. None means that none of the videos that were tried can be copied.
    """
    from videomae.data.transcode import Encoding, copy_file

    samples, seconds, num_frames = [], 0.0, 0
    for i in spread(range(len(videos)), COPIED_VIDEOS):
        sample, copy = videos.samples[i], folder / f"{side}-{i}.mp4"
        began = time.perf_counter()
        try:
            num_frames += copy_file(sample.file, copy, Encoding(short_side=side), max_frames=COPIED_FRAMES)[0]
        except VideoError:
            continue
        seconds += time.perf_counter() - began
        samples.append(dataclasses.replace(sample, file=copy, start=None, end=None))
    if not samples:
        return None
    return seconds / num_frames, Manifest(tuple(samples), videos.classes, videos.root)


def pixel_statistics(videos: Manifest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of some videos' pixels, by channel, from 0 to 1.

    Raises:
        DataError: if none of the videos that are tried can be read.
    """
    pixels, refusal = [], None
    for i in spread(range(len(videos)), SAMPLED_VIDEOS):
        sample = videos.samples[i]
        try:
            with VideoReader(sample.file, threads=1) as reader:
                stretch = sample.some_frames_of(reader.times)
                chosen = np.linspace(stretch.start, stretch.stop - 1, SAMPLED_FRAMES).round().astype(int)
                frames = reader.frames_at(chosen)[:, ::2, ::2].astype(np.float64) / 255
        except VideoError as error:
            refusal = error
        else:
            pixels.append((frames.mean(axis=(0, 1, 2)), (frames**2).mean(axis=(0, 1, 2))))
    if not pixels:
        raise DataError(f"none of {SAMPLED_VIDEOS} training videos can be read, such as: {refusal}.")
    mean, square = np.mean(pixels, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0)).clip(min=SMALLEST_STD)
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
