"""What things cost on this machine: training steps, reading, copying, memory; and the pixels of some videos."""

import dataclasses
import json
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videomae.config import SMALLEST_STD, VideoMAEConfig
from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest, Sample
from videomae.errors import DataError, VideoError
from videomae.inference.peak import wait_for
from videomae.training import devices
from videomae.training.devices import compiles, resolve_precision, training_device
from videomae.training.experiment import empty_clips
from videomae.training.finetuning import FinetuneSettings, classification_example
from videomae.training.schedule import divisors
from videomae.training.settings import OptimSettings, RunSettings
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.training.estimate import Cost

FREE_FRACTION = 0.7  # of the memory that is free, for what is estimated
MEASURED_BATCH, ACCELERATED_BATCH = 8, 32  # clips in a step that is timed: on a processor, at most on a GPU
SAMPLED_VIDEOS, SAMPLED_FRAMES = 32, 4  # whose pixels are looked at
READ_VIDEOS, COPIED_VIDEOS, COPIED_FRAMES = 8, 3, 96  # by which reading and copying are timed


def decodes_beside(device: str, num_workers: int | None) -> bool:
    """Tell whether videos are decoded while a GPU trains."""
    return num_workers != 0 and training_device(_run(device)).type != "cpu"


# ------------------------------------------------------------------------------------------------------ the model


def finetuning_cost(config: VideoMAEConfig, device: str = "auto") -> "Cost":
    """Return what a classifier of this configuration costs to train on a device, auto or cpu."""
    return _finetuning_cost(config.to_json_string(), resolve_precision(_run(device)) != "float32")


def pretraining_flops(config: VideoMAEConfig, *, mask_ratio: float) -> int:
    """Return the FLOPs by which a model of this configuration is pre-trained on a clip, with so much of it hidden."""
    hidden = min(max(round(mask_ratio * config.num_tubelets), 1), config.num_tubelets - 1)
    return _pretraining_flops(config.to_json_string(), hidden)


@cache  # a plan asks for the cost of a model more than once
def _finetuning_cost(config_json: str, half: bool) -> "Cost":
    from videomae.training.estimate import estimate

    model = _without_data(VideoMAEConfig.from_dict(json.loads(config_json)))
    return estimate(model, classification_example, half=half, ema=False)


@cache
def _pretraining_flops(config_json: str, num_masked: int) -> int:
    import torch

    from videomae.models.videomae import VideoMAEForPreTraining
    from videomae.training.estimate import count_flops

    config = VideoMAEConfig.from_dict(json.loads(config_json))
    with torch.device("meta"):
        model, mask = VideoMAEForPreTraining(config), torch.ones(1, config.num_tubelets, dtype=torch.bool)
    loss = lambda model, clips: model(empty_clips(model, clips), mask, num_masked=num_masked).loss  # noqa: E731
    return count_flops(model, loss)[1]


def training_speed(config: VideoMAEConfig, cost: "Cost", device: str, *, clips: int | None = None) -> float:
    """Return the FLOPs per second of training a classifier here, waiting for data left out.

    What is timed are steps as a run makes them: in its precision, compiled where it is, of as many clips as fit.

    Args:
        config: of the model.
        cost: of training it, as `finetuning_cost` returns it.
        device: auto or cpu.
        clips: in a step; None takes as many as fit.
    """
    import torch

    from videomae.training.optim import build_optimizer, parameter_groups

    run = _run(device)
    where, precision = training_device(run), resolve_precision(run)
    batch = clips
    if batch is None:
        batch = MEASURED_BATCH if where.type == "cpu" else fitting_batch(config, ACCELERATED_BATCH, device)
    model = _without_data(config).to_empty(device=where)
    model.reset_parameters()
    groups = parameter_groups(model, depth=config.num_hidden_layers, weight_decay=0.0)
    optimizer = build_optimizer(groups, OptimSettings(), where)
    if compiles(run, where):
        model.compile()
    times = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = classification_example(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait_for(where)
        times.append(time.perf_counter() - began)
    return batch * cost.training_flops / sorted(times)[1]


def fitting_batch(config: VideoMAEConfig, batch_size: int, device: str) -> int:
    """Return the largest part of a batch for which fine-tuning, which needs the most, fits into free memory."""
    cost, free = finetuning_cost(config, device), FREE_FRACTION * free_memory(device)
    return max((part for part in divisors(batch_size) if cost.memory(part) <= free), default=1)


def free_memory(device: str) -> float:
    """Return the bytes that are free on the device that training takes."""
    return devices.free_memory(training_device(_run(device)))


def _run(device: str) -> RunSettings:
    return RunSettings(device="cpu" if device == "cpu" else "auto")


def _without_data(config: VideoMAEConfig) -> "VideoMAEForVideoClassification":
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

    with torch.device("meta"):
        return VideoMAEForVideoClassification(config.replace(use_mean_pooling=True))


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
    from videomae.video.augment import finetune_crops

    dataset = VideoDataset(
        videos,
        sampling=settings.clips,
        clip_frames=config.num_frames,
        training=True,
        transform=finetune_crops(settings.augment, image_size=config.frame_size[0]),
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
            frames, _ = sample.read(partial(_some_frames, sample), threads=1)
        except VideoError as error:
            refusal = error
        else:
            levels = frames.astype(np.float64) / 255
            pixels.append((levels.mean(axis=(0, 1, 2)), (levels**2).mean(axis=(0, 1, 2))))
    if not pixels:
        raise DataError(f"none of {SAMPLED_VIDEOS} training videos can be read, such as: {refusal}.")
    mean, square = np.mean(pixels, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0)).clip(min=SMALLEST_STD)
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def _some_frames(sample: Sample, reader: VideoReader) -> NDArray[np.uint8]:
    """Return frames spread over a video, (F, H, W, 3), with every other row and column."""
    stretch = sample.some_frames_of(reader.times)
    chosen = np.linspace(stretch.start, stretch.stop - 1, SAMPLED_FRAMES).round().astype(int)
    return reader.frames_at(chosen, shrink=lambda frame: frame[::2, ::2])
