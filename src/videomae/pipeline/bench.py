"""How fast this machine is: the peak, what a model reaches of it, and how fast videos are read."""

import dataclasses
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, PRESETS, VideoMAEConfig
from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest, read_manifest
from videomae.errors import VideoError
from videomae.inference.engines.base import Engine, ExportedModel
from videomae.inference.engines.formats import open_exported
from videomae.inference.peak import matmul_peak
from videomae.pipeline.measure import finetuning_cost, training_speed
from videomae.pipeline.recipe_speed import RecipeSpeed, check_recipe, recipe_speed
from videomae.training.devices import resolve_precision
from videomae.training.settings import RunSettings
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader
from videomae.video.synthetic import MOTIONS, motion_video

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
USUAL_MODEL = "base"
RUNS, READ_VIDEOS, READ_FRAMES = 5, 8, 256
MADE_SIZE, MADE_FRAMES = 256, 96  # of the videos that are read where none are given


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a model runs.

    Attributes:
        dtype: that it computes in.
        flops: of a clip; a multiplication with its addition counts as two.
        seconds: of a clip.
        fraction: of the peak of the dtype that is reached; None where there is no peak of it.
    """

    dtype: str
    flops: int
    seconds: float
    fraction: float | None

    @classmethod
    def of(cls, dtype: str, flops: int, seconds: float, peaks: dict[str, float]) -> "Speed":
        """Hold a time against the peak."""
        return cls(dtype, flops, seconds, flops / seconds / peaks[dtype] if dtype in peaks else None)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How fast videos are read, by one process.

    Attributes:
        videos: which.
        frames_per_second: decoded one after the other, to RGB; median over the videos.
        width: of the frames of the last one, pixels.
        height: likewise.
    """

    videos: str
    frames_per_second: float
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Bench:
    """What `bench` measured.

    Attributes:
        machine: processor and threads, or GPU.
        peaks: FLOP/s of the fastest product of matrices, by dtype.
        model: its name.
        parameters: of the model.
        inference: of one clip.
        training: of a clip, forward, backward and step, as a run does it; None for an exported model.
        reading: of videos.
        recipe: of training; None where none was asked for.
    """

    machine: str
    peaks: dict[str, float]
    model: str
    parameters: int
    inference: Speed
    training: Speed | None
    reading: Reading
    recipe: RecipeSpeed | None


def bench(
    model: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> Bench:
    """Measure this machine with a model, and with the training of a recipe.

        >>> found = bench("run/model", device="cpu")
        >>> found.peaks["float32"] > 1e8, found.inference.fraction > 0
        (True, True)

    Args:
        model: a preset, with random weights; or a checkpoint or an exported model, by path or id; None is the preset
            base, and leaves a recipe its own.
        recipe: of pre-training or fine-tuning, of the model.
        data: videos to read, a folder or a list; None makes a few, which are easy to decode.
        device: where to run; None takes a GPU if there is one.
        dtype: that a checkpoint is run in: "float32", "bfloat16" or "float16".

    Raises:
        CheckpointError: if the model cannot be read.
        DataError: if there are no videos.
        ValueError: if there is no such device, dtype or recipe, or the recipe is for another method.
        VideoError: if none of the videos can be read.
    """
    import torch

    from videomae.inference.devices import choose_device

    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    if recipe is not None:
        check_recipe(recipe)
    where = choose_device(device)
    engine, computes_in = _open(model or USUAL_MODEL, dtype, where)
    cost = finetuning_cost(engine.config, where.type)
    peaks = {name: matmul_peak(getattr(torch, name), where) for name in DTYPES}
    inference = Speed.of(computes_in, cost.forward_flops, _clip_seconds(engine), peaks)
    training = None
    if not isinstance(engine, ExportedModel):
        clips = 1 if where.type == "cpu" else None
        seconds = cost.training_flops / training_speed(engine.config, cost, where.type, clips=clips)
        precision = resolve_precision(RunSettings(device="cpu" if where.type == "cpu" else "auto"))
        training = Speed.of("bfloat16" if precision == "bf16" else precision, cost.training_flops, seconds, peaks)
    with _videos(data) as (videos, about):
        reading = _reading(videos, about)
        measured = None if recipe is None else recipe_speed(recipe, model, videos, where)
    name = Path(model or USUAL_MODEL).name
    return Bench(_machine(where), peaks, name, cost.parameters, inference, training, reading, measured)


def _open(model: str | Path, dtype: str, device: "torch.device") -> tuple[Engine, str]:
    """Return what runs a model, and the dtype that it computes in."""
    from videomae.inference.engines.pytorch import TorchEngine

    if str(model) in PRESETS:
        import torch

        from videomae.models.videomae import VideoMAEForVideoClassification
        from videomae.video.checkpoint_processor import make_processor

        config = VideoMAEConfig.preset(str(model), num_labels=400)
        made = VideoMAEForVideoClassification(config).to(device, getattr(torch, dtype)).eval()
        return TorchEngine(made, make_processor(config, (IMAGENET_MEAN, IMAGENET_STD))), dtype
    exported = open_exported(model, "classification")
    if exported is not None:
        return exported, exported.dtype
    from videomae.inference.loading import open_model
    from videomae.models.videomae import VideoMAEModel

    opened = open_model(model, VideoMAEModel, device=device, dtype=dtype)  # a pre-trained one has no classifier
    return TorchEngine(opened.model.eval(), opened.processor), dtype


def _clip_seconds(engine: Engine) -> float:
    """Return the median time of a clip of noise."""
    config = engine.config
    shape: tuple[int, ...] = (config.num_frames, *config.frame_size, config.num_channels)
    if isinstance(engine, ExportedModel):
        shape = engine.card.frames_shape
    frames = np.random.default_rng(0).integers(256, size=(1, *shape), dtype=np.uint8)
    engine(frames)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        engine(frames)
        times.append(time.perf_counter() - began)
    return median(times)


@contextmanager
def _videos(data: str | Path | None) -> Iterator[tuple[Manifest, str]]:
    """Yield the videos to read, and what to call them."""
    if data is not None:
        yield read_manifest(data), str(data)
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(READ_VIDEOS):
            motion = list(MOTIONS)[number % 2]
            frames = motion_video(motion, rng=rng, num_frames=MADE_FRAMES, size=MADE_SIZE)
            write_video(Path(folder) / motion / f"{number}.mp4", frames)
        yield read_manifest(folder), f"{READ_VIDEOS} made videos"


def _reading(videos: Manifest, about: str) -> Reading:
    rates, size, refusal = [], (0, 0), None
    for sample in spread(videos.samples, READ_VIDEOS):
        try:
            with VideoReader(sample.file, threads=1) as reader:
                began = time.perf_counter()
                count = len(reader.frames_at(range(min(len(reader), READ_FRAMES))))
                rates.append(count / (time.perf_counter() - began))
                size = reader.width, reader.height
        except VideoError as error:
            refusal = error
    if not rates:
        raise VideoError(f"none of the videos that were tried can be read, such as: {refusal}")
    return Reading(about, median(rates), *size)


def _machine(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
