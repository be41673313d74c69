"""What a training method states, and the one runner of all methods.

A method is a subclass of `Experiment`: which videos, which model, which transform, which loss, and what there is to
measure on the way. `run_experiment` does the rest, the same for all: devices, schedule, run directory, loader, loop,
and the model at the end. docs/new-training-method.md adds one.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.console import say
from videomae.data.manifest import Manifest, Sample
from videomae.data.mirroring import Mirroring
from videomae.data.unreadable import UnreadableVideos
from videomae.processes import working_in
from videomae.training.run_directory import TrainingResult, describe_model, open_run_directory, save_model
from videomae.training.schedule import Schedule
from videomae.training.settings import RunSettings, TrainingDataSettings, TrainingSettings
from videomae.video.checkpoint_processor import Statistics, load_processor, make_processor

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from videomae.data.cache import FrameCache
    from videomae.models.pretrained import PretrainedModel
    from videomae.models.weights import Checkpoint
    from videomae.training.loop import Outcome
    from videomae.video.processors import VideoMAEImageProcessor

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a method may need of a run that has begun.

    Attributes:
        accelerator: knows devices and processes.
        schedule: batches, steps and learning rates.
        unreadable: is given the videos that cannot be read.
    """

    accelerator: "Accelerator"
    schedule: Schedule
    unreadable: UnreadableVideos


class Preempted(Exception):  # noqa: N818  # no error: the same command goes on from there
    """SIGTERM came before the first step of the run itself, in a part that has steps of its own."""

    def __init__(self, outcome: "Outcome") -> None:
        super().__init__()
        self.outcome = outcome


class Experiment(ABC):
    """One training method on one data set. Making it reads the list of videos, and touches neither device nor disk.

    Attributes:
        settings: of the run.
        train: the videos to train on.
        samples: those that an epoch goes through; a method may repeat some.
        checkpoint: what the run starts from; None is random weights.
        config: of the model.
        statistics: mean and standard deviation of the input.
        title: what the progress bar is called.
        score: the figure of a validation that says which weights are best; higher is better.
        faster: beginnings of names of parameters that learn so many times faster, and do not decay.
        mirroring: of training clips with their labels, where class names ask for it; else it is the transform's.
        frozen: beginning of the names of parameters that are not trained, for the estimate of memory; None trains all.
    """

    title: ClassVar[str]
    score: ClassVar[str] = ""
    train: Manifest
    samples: Sequence[Sample]
    checkpoint: "Checkpoint | None"
    config: VideoMAEConfig
    statistics: Statistics
    mirroring: Mirroring | None = None
    frozen: str | None = None
    faster: Mapping[str, float] = MappingProxyType({})

    def __init__(self, settings: TrainingSettings) -> None:
        settings.loader.check()
        settings.optim.check()
        settings.run.check()
        self.settings = settings
        self.checkpoint = open_start(settings)

    def resolve_config(self, **fields: Any) -> VideoMAEConfig:
        """Return the model's configuration: the preset's or the checkpoint's, with ``fields`` and what is asked for."""
        fields |= self.settings.model.overrides()
        if self.checkpoint is None:
            return VideoMAEConfig.preset(self.settings.model.preset or "base", **fields)
        return self.checkpoint.resolve_config(task=self.model_class().task, **fields)

    def resolve_statistics(self, config: VideoMAEConfig) -> Statistics:
        """Return the mean and deviation to normalise pixels with: those given, the checkpoint's, or ImageNet's.

        Raises:
            ValueError: if only one of them is given.
        """
        augment: Any = self.settings.augment  # type: ignore[attr-defined]  # every method has one of its own
        if (augment.mean is None) != (augment.std is None):
            raise ValueError(f"augment.mean and augment.std go together, got {augment.mean} and {augment.std}.")
        if augment.mean is not None:
            return augment.mean, augment.std
        if self.settings.init is None:
            return IMAGENET_MEAN, IMAGENET_STD
        processor = load_processor(self.settings.init, config)
        means, stds = (
            value if isinstance(value, tuple) else (value,) * config.num_channels
            for value in (processor.image_mean, processor.image_std)
        )
        return means, stds  # type: ignore[return-value]

    @abstractmethod
    def model_class(self) -> "type[PretrainedModel]":
        """Return the class of the model."""

    @abstractmethod
    def build_model(self) -> "PretrainedModel":
        """Return the model as it starts, on the CPU; torch's generator is seeded."""

    @abstractmethod
    def transform(self) -> "Callable[[Tensor], Tensor]":
        """Return what is done to a training clip, (T, C, H, W) uint8, in the processes that decode."""

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        """Return the loss of a batch, a scalar.

        Args:
            model: may be wrapped for several devices: call it, do not look inside.
            batch: as `videomae.data.dataset.collate` makes it, its tensors on the device.
            seed: of this step, for what is drawn here.
        """

    @abstractmethod
    def example_loss(self, model: "PretrainedModel", num_clips: int) -> "Tensor":
        """Return the loss of some clips without data on the model's device, such as the meta device.

        From it the cost of training is estimated; see `empty_clips`.
        """

    def mask(self) -> "Callable[[torch.Generator], Tensor] | None":
        """Return what draws the mask of a clip from a seeded generator, in the processes that decode; None: no mask."""
        return None

    def check_devices(self, accelerator: "Accelerator") -> None:  # noqa: B027  # most methods work everywhere
        """Raise a ValueError where the method does not work on these devices."""

    def begin(self, model: "PretrainedModel", run: Run) -> None:  # noqa: B027  # most methods have nothing to do
        """Do what is to be done once, before the first step, with devices and schedule known.

        Raises:
            Preempted: where SIGTERM ended a part that has steps of its own.
        """

    def cache(self) -> "FrameCache | None":
        """Return the training videos in memory, for a method that sees small ones many times; None reads the files."""
        return None

    def before_step(self, step: float) -> None:  # noqa: B027  # most methods do the same at every step
        """Prepare for a step of the schedule, from 0; for what changes on the way."""

    def validation(self, run: Run) -> "Callable[[nn.Module], dict[str, float]] | None":
        """Return what measures the model on the way, on every process; None: nothing does."""
        return None

    def run_settings(self) -> RunSettings:
        """Return how to run, where a method has a rhythm of its own."""
        return self.settings.run

    def describe(self, model: "PretrainedModel", run: Run) -> list[str]:
        """Return lines that say what is trained on what, before it starts."""
        return []

    def processor(self) -> "VideoMAEImageProcessor":
        """Return the processor that is saved with the model; it prepares frames as they were for training."""
        return make_processor(self.config, self.statistics)

    def finish(self, weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the weights of the model to save from those that were trained."""
        return weights


def run_experiment(experiment: Experiment) -> TrainingResult:
    """Train, or go on with a run that was stopped.

    The run directory ends up with settings.toml, videos.json, metrics.jsonl, checkpoints/, logs/ and model/.

    Raises:
        DataError: if the videos cannot be used.
        CheckpointError: if a checkpoint cannot be read or written, or the directory holds another run.
        ValueError: for settings that do not go together.
    """
    from videomae.data.dataset import explaining_dead_workers
    from videomae.training.devices import SHARDED, build_accelerator

    e, s = experiment, experiment.settings
    accelerator = build_accelerator(s.run, folder=s.out)
    e.check_devices(accelerator)
    if s.optim.name == "muon" and accelerator.distributed_type in SHARDED:
        raise ValueError(
            "optim.name = 'muon' is not available for sharded weights, as it needs whole matrices: take 'adamw', or "
            "use run.strategy = 'auto'."
        )
    schedule = Schedule.make(s.run, s.optim, num_videos=len(e.samples), world_size=accelerator.num_processes)
    with working_in(s.out, alone=accelerator.is_main_process), explaining_dead_workers():
        return _run(e, accelerator, schedule)


def _run(experiment: Experiment, accelerator: "Accelerator", schedule: Schedule) -> TrainingResult:
    import torch

    from videomae.data.timing import DataTimeMeter
    from videomae.training.devices import SHARDED, compiles
    from videomae.training.loop import Job, fit
    from videomae.training.optim import parameter_groups

    e, s = experiment, experiment.settings
    open_run_directory(s.out, s, e.train)
    unreadable = UnreadableVideos(
        s.out,
        e.samples,
        max_fraction=s.loader.max_unreadable_fraction,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    run = Run(accelerator, schedule, unreadable)
    torch.manual_seed(s.run.seed)
    model = e.build_model()
    try:
        e.begin(model, run)
    except Preempted as end:
        return save_model(s.out, e.model_class(), model.config, end.outcome, e.processor, accelerator)
    loader = build_training_loader(e, run, seed=s.run.seed)

    def loss(model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        unreadable.add(batch["unreadable"])
        return e.loss(model, batch, seed)

    if accelerator.is_main_process:
        say([*e.describe(model, run), schedule.describe()])
        if compiles(e.run_settings(), accelerator.device, sharded=accelerator.distributed_type in SHARDED):
            say(["the model is compiled: the first steps take longer"])
    groups = parameter_groups(
        model,
        depth=e.config.num_hidden_layers,
        weight_decay=s.optim.weight_decay,
        layer_decay=s.optim.layer_decay,
        muon_scale=schedule.muon_scale(s.optim),
        faster=e.faster,
    )
    job = Job(
        model, loss, loader, groups, DataTimeMeter(), e.validation(run), e.score, e.title, e.before_step,
        describe=partial(describe_model, config=model.config, processor=e.processor), reports=unreadable,
    )  # fmt: skip
    outcome = fit(accelerator, job, schedule, folder=s.out, run=e.run_settings(), optim=s.optim)
    if outcome.weights:
        outcome = dataclasses.replace(outcome, weights=e.finish(outcome.weights))
    return save_model(s.out, e.model_class(), model.config, outcome, e.processor, accelerator)


def build_training_loader(
    experiment: Experiment, run: Run, *, seed: int, first: int | None = None
) -> "DataLoader[Any]":
    """Return the endless loader of clips of an experiment's (first) videos, in an order and with draws of ``seed``."""
    from videomae.data.dataset import VideoDataset, build_loader

    e, s, accelerator = experiment, experiment.settings, run.accelerator
    return build_loader(
        VideoDataset(
            e.samples[:first],
            sampling=s.clips,
            clip_frames=e.config.num_frames,
            training=True,
            transform=e.transform(),
            clips_per_video=s.loader.clips_per_video,
            augmentations_per_clip=s.loader.augmentations_per_clip,
            mask=e.mask(),
            seed=seed,
            backend=s.loader.backend,
            square_pixels=s.loader.square_pixels,
            mirroring=e.mirroring,
            cache=e.cache(),
        ),
        batch_size=run.schedule.per_device_batch,
        endless=True,
        num_workers=s.loader.workers(accelerator.num_processes),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
    )


# ------------------------------------------------------------------------------------- what methods start from


def empty_clips(model: "PretrainedModel", num_clips: int) -> "Tensor":
    """Return float32 clips (B, T, C, H, W) for a model, on its device, whose pixels are not set."""
    import torch

    config = model.config
    return torch.empty(num_clips, config.num_frames, config.num_channels, *config.frame_size, device=model.device)


def read_splits(data: TrainingDataSettings) -> tuple[Manifest, Manifest | None]:
    """Return the videos to train on, and those to validate on if there are any.

    Raises:
        DataError: if there are no videos, or no such split.
    """
    manifest = data.read()
    if not manifest.splits and data.train_split is None and data.val_split is None:
        return manifest, None
    val = data.val_split or ("val" if "val" in manifest.splits else None)
    return manifest.split(data.train_split or "train"), manifest.split(val) if val else None


def open_start(settings: TrainingSettings) -> "Checkpoint | None":
    """Return the checkpoint that a run starts from; None is random weights.

    Raises:
        CheckpointError: if it cannot be read.
        ValueError: if both a checkpoint and a preset say how large the model is.
    """
    if settings.init is None:
        return None
    if settings.model.preset is not None:
        raise ValueError(
            f"--init {settings.init} brings its own size: leave out model.preset = {settings.model.preset!r}."
        )
    from videomae.models.weights import open_checkpoint

    return open_checkpoint(settings.init)
