"""What pre-training and fine-tuning share: the model and data they are told of, the run directory, the dry run."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.data.manifest import Manifest, Sample
from videomae.errors import CheckpointError
from videomae.files import atomic_write, write_csv, write_json
from videomae.hub import read_json
from videomae.settings import changed_settings, to_toml, with_absolute_paths, with_recipe, without_optional
from videomae.training.schedule import Plan
from videomae.training.settings import (
    FREE_ON_RESUME,
    LoaderSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
    TrainingDataSettings,
)
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn
    from torch.utils.data import DataLoader

    from videomae.models.pretrained import PretrainedModel
    from videomae.training.loop import Outcome

SETTINGS_NAME = "settings.toml"
VIDEOS_NAME = "videos.json"
MODEL_NAME = "model"

PATHS = ("data.path", "init", "probe.data", "data.videos")  # settings that may be spelled differently

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run left behind.

    Attributes:
        model: the Hugging Face directory, or None if the run was interrupted.
        steps: optimiser steps that are done.
        bad_steps: how many of them were skipped.
        best_score: of the best validation, an accuracy in 0-1; None without.
        best_step: its step.
        score: name of that figure, such as "val_top1"; empty without.
        model_step: the step that the model is of.
        seconds: what training took.
        interrupted: whether SIGTERM ended it early.
    """

    model: Path | None
    steps: int
    bad_steps: int
    best_score: float | None
    best_step: int | None
    score: str
    model_step: int
    seconds: float
    interrupted: bool


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


def input_statistics(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, init: str | None, config: VideoMAEConfig
) -> Statistics:
    """Return the mean and standard deviation to normalise pixels with: those given, the checkpoint's, or ImageNet's.

    Raises:
        ValueError: if only one of them is given.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"augment.mean and augment.std go together, got {mean} and {std}")
    if mean is not None and std is not None:
        return mean, std
    if init is None:
        return IMAGENET_MEAN, IMAGENET_STD
    from videomae.video.processors import load_processor

    processor = load_processor(init, config)
    means, stds = (
        value if isinstance(value, tuple) else (value,) * config.num_channels
        for value in (processor.image_mean, processor.image_std)
    )
    return means, stds  # type: ignore[return-value]


def build_eval_loader(
    settings: LoaderSettings,
    manifest: Manifest,
    config: VideoMAEConfig,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> "DataLoader[Any]":
    """Return a loader of the centre crop of the middle clip of each video, (B, T, C, H, W) uint8 pixels.

    Videos that cannot be read are marked. Under several processes each gets its share, without doubles.
    """
    from videomae.data.dataset import VideoDataset, build_loader
    from videomae.video.augment import eval_views
    from videomae.video.sampling import ClipSampling

    size = config.frame_size[0]
    return build_loader(
        VideoDataset(
            manifest,
            sampling=ClipSampling.of_model(config),
            clip_frames=config.num_frames,
            training=False,
            transform=partial(eval_views, short_side=size, image_size=size, crops=1),
            on_bad="mark",
            backend=settings.backend,
        ),
        batch_size=batch_size,
        num_workers=settings.workers(world_size),
        rank=rank,
        world_size=world_size,
    )


def preset_config(settings: ModelSettings, **fields: Any) -> VideoMAEConfig:
    """Return the configuration of a model that starts from random weights."""
    return VideoMAEConfig.preset(settings.preset or "base", **(fields | settings.overrides()))


def refuse_preset_with_init(settings: ModelSettings, init: str | None) -> None:
    """Raise a ValueError where both a checkpoint and a preset say how large the model is."""
    if init is not None and settings.preset is not None:
        raise ValueError(f"--init {init} brings its own size: leave out model.preset = {settings.preset!r}")


def claim_directory(out: Path, settings: Settings, train: Manifest, accelerator: "Accelerator") -> None:
    """Make the run directory and store the settings in it, or check that they are those it was begun with.

    Args:
        out: the run directory.
        settings: of the run.
        train: the videos to train on; a run goes on with the same ones only, as order and classes hang on them.
        accelerator: knows the main process, which writes.

    Raises:
        CheckpointError: if it cannot be written, or holds checkpoints of a run with other settings or videos.
    """
    from videomae.training.checkpoint import list_steps

    stored, trained_on = out / SETTINGS_NAME, out / VIDEOS_NAME
    steps = list_steps(out / "checkpoints")
    rows = [(sample.path, sample.label, sample.start, sample.end) for sample in train]
    videos = {"videos": len(train), "classes": list(train.classes), "digest": digest(rows)}
    if steps and trained_on.exists() and (old := read_json(trained_on)) != videos:
        raise CheckpointError(
            f"{out} holds a run of {steps[-1]} steps on other videos: {old['videos']} of {len(old['classes'])} "
            f"classes, now {len(train)} of {len(train.classes)}, perhaps others of the same number. Name another "
            "--out, or bring back the old ones"
        )
    if steps and stored.exists():
        old_settings: Any = with_recipe(without_optional(settings), stored)
        lines = [
            f"{name} was {_shown(before)}, is {_shown(now)}"
            for name, (before, now) in changed_settings(old_settings, settings).items()
            if name not in FREE_ON_RESUME and not (name in PATHS and _same_place(before, now, old_settings.out, out))
        ]
        if lines:
            raise CheckpointError(
                f"{out} holds a run of {steps[-1]} steps with other settings: {'; '.join(lines)}. Name another --out, "
                f"or go on with its own: videomae {old_settings.TASK} --recipe {stored}"
            )
    if accelerator.is_main_process:
        try:
            out.mkdir(parents=True, exist_ok=True)
            with atomic_write(stored) as temporary:
                temporary.write_text(to_toml(with_absolute_paths(settings)), encoding="utf-8")
            write_json(trained_on, videos)
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {out} ({error}): correct the rights, or name another --out"
            ) from error
    accelerator.wait_for_everyone()


def _same_place(old: Any, new: Any, old_out: Path, new_out: Path) -> bool:
    """Tell whether two paths are one however they are spelled, or were moved together with the run directory."""
    if old is None or new is None:
        return False
    places = [os.path.realpath(path) for path in (old, new)]
    within = [
        os.path.relpath(path, os.path.realpath(out)) for path, out in zip(places, (old_out, new_out), strict=True)
    ]
    return places[0] == places[1] or within[0] == within[1]


def _shown(value: Any) -> str:
    return repr(str(value) if isinstance(value, Path) else value)


def digest(rows: list[tuple[Any, ...]]) -> str:
    """Return a digest of what there is to say of each video, in their order."""
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def save_model(
    folder: Path, model: "PretrainedModel", outcome: "Outcome", statistics: Statistics, accelerator: "Accelerator"
) -> TrainingResult:
    """Write the trained model with its processor as a directory that transformers loads too.

    Args:
        folder: the run directory; the model goes to ``model/`` in it.
        model: what was trained; only its class and configuration are used.
        outcome: of the loop, with the weights.
        statistics: mean and standard deviation of the input.
        accelerator: knows the main process, which writes.
    """
    import torch

    place = None if outcome.interrupted else folder / MODEL_NAME
    if place is not None and accelerator.is_main_process:
        with torch.device("meta"):
            trained = type(model)(model.config)
        trained.load_state_dict(outcome.weights, assign=True)
        trained.save_pretrained(place)
        make_processor(model.config, statistics).save_pretrained(place)
    accelerator.wait_for_everyone()
    return TrainingResult(
        model=place,
        steps=outcome.steps,
        bad_steps=outcome.bad_steps,
        best_score=outcome.best_score,
        best_step=outcome.best_step,
        score=outcome.score,
        model_step=outcome.model_step,
        seconds=outcome.seconds,
        interrupted=outcome.interrupted,
    )


class Unreadable:
    """The videos that this process could not read: said and listed in ``unreadable.csv`` as soon as they are met.

    What an earlier part of the run has listed stays there.

    Args:
        folder: the run directory.
        samples: the videos to train on; those of rare classes may be repeated.
        max_fraction: end the run when more than this share of them is unreadable.
        accelerator: knows the processes, each of which has a list of its own.
    """

    def __init__(
        self, folder: Path, samples: Iterable[Sample], *, max_fraction: float, accelerator: "Accelerator"
    ) -> None:
        from videomae.data.dataset import BadFiles

        rank = f"-{accelerator.process_index}" if accelerator.num_processes > 1 else ""
        self.file = folder / f"unreadable{rank}.csv"
        self.training = BadFiles({sample.path for sample in samples}, max_fraction=max_fraction)
        self.met: set[str] = set()
        self.listed: dict[str, str] = {}
        if self.file.exists():
            with self.file.open(encoding="utf-8", newline="") as file:
                self.listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}

    def add(self, reports: Iterable[tuple[str, str]]) -> None:
        """Take the ``unreadable`` of a training batch, whose place others have taken.

        Raises:
            DataError: if more than the allowed share of all videos has proved unreadable.
        """
        reports = list(reports)
        self.note(reports, "replaced by others")
        self.training.add(reports)

    def note(self, reports: Iterable[tuple[str, str]], consequence: str) -> None:
        """Say and list those videos that are met for the first time; ``consequence`` is what becomes of them."""
        fresh = {path: reason for path, reason in reports if path not in self.met}
        if not fresh:
            return
        self.met |= fresh.keys()
        self.listed |= fresh
        write_csv(self.file, ("path", "reason"), sorted(self.listed.items()))
        path, reason = next(iter(fresh.items()))
        more = f" and {len(fresh) - 1} others" if len(fresh) > 1 else ""
        say([f"cannot read {path!r}{more}, {consequence}: {reason} They are listed in {self.file}"])


def make_processor(config: VideoMAEConfig, statistics: Statistics) -> VideoMAEImageProcessor:
    """Return the processor that prepares frames as they were for training."""
    height, width = config.frame_size
    return VideoMAEImageProcessor(
        size={"shortest_edge": height} if height == width else {"height": height, "width": width},
        crop_size={"height": height, "width": width},
        image_mean=statistics[0],
        image_std=statistics[1],
    )


def announce(accelerator: "Accelerator", lines: Iterable[str]) -> None:
    """Show some lines before training starts, on the main process."""
    if accelerator.is_main_process:
        say(lines)


def say(lines: Iterable[str]) -> None:
    """Show some lines beside what commands print."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)


def plan_without_devices(run: RunSettings, optim: OptimSettings, num_videos: int) -> Plan:
    """Work out the plan for the processes that a launcher has started, without setting anything up."""
    return Plan.make(run, optim, num_videos=num_videos, world_size=int(os.environ.get("WORLD_SIZE", "1")))


def print_dry_run(
    plan: Plan,
    *,
    run: RunSettings,
    optim: OptimSettings,
    config: VideoMAEConfig,
    model: type["PretrainedModel"],
    loss: "Callable[[nn.Module], torch.Tensor]",
    clips_per_video: int,
    freeze: str | None = None,
) -> None:
    """Print what a run would do and take.

    Args:
        plan: of the run.
        run: precision, strategy and gradient checkpointing.
        optim: whether weights are averaged.
        config: of the model.
        model: its class.
        loss: runs the model on one clip on the meta device.
        clips_per_video: how many clips a video gives.
        freeze: beginning of the names of parameters that are not trained.
    """
    import torch
    from rich.console import Console

    from videomae.training.estimate import estimate
    from videomae.training.loop import resolve_precision

    with torch.device("meta"):
        empty = model(config).train()
    for name, parameter in empty.named_parameters():
        parameter.requires_grad = freeze is None or not name.startswith(freeze)
    precision = resolve_precision(run)
    cost = estimate(
        empty,
        loss,
        half=precision != "float32",
        ema=optim.ema is not None,
        recompute_blocks=config.num_hidden_layers if run.gradient_checkpointing else 0,
    ).shared(run.strategy, plan.world_size)
    clips = plan.per_device_batch * clips_per_video
    console = Console(highlight=False, soft_wrap=True)
    console.print(plan.describe(), markup=False)
    console.print(
        f"model: {cost.parameters / 1e6:.2f} M parameters; {cost.forward_flops / 1e9:.4g} GFLOPs per clip forward, "
        f"{cost.training_flops / 1e9:.4g} with the backward pass (a multiplication and an addition are two)"
    )
    console.print(
        f"memory per process, estimated: {cost.memory(clips) / 1e9:.3g} GB = {cost.state_bytes / 1e9:.3g} GB for "
        f"weights, gradients and optimiser + {clips} clips x {cost.activation_bytes / 1e6:.4g} MB in {precision}"
    )
    console.print("learning rate by step:")
    for step in sorted({round(i * (plan.steps - 1) / 10) for i in range(11)} | {max(plan.warmup_steps - 1, 0)}):
        rate = plan.learning_rate(step)
        console.print(f"  {step:>8}  {rate:.3e}  {'#' * round(40 * rate / (plan.lr or 1))}", markup=False)


def report_end(result: TrainingResult, out: Path) -> int:
    """Print how a run ended on the main process, leave the others, and return the exit code."""
    import torch
    from accelerate import PartialState
    from rich.console import Console

    from videomae.training.loop import EXIT_PREEMPTED

    console = Console(highlight=False, soft_wrap=True, quiet=not PartialState().is_main_process)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if result.interrupted:
        console.print(
            f"stopped by SIGTERM after step {result.steps}; the same command goes on from there", markup=False
        )
        return EXIT_PREEMPTED
    skipped = f", {result.bad_steps} of them skipped" if result.bad_steps else ""
    console.print(
        f"{result.steps} steps{skipped} in {result.seconds:.0f} s{describe_score(result)}. "
        f"The model is in {out / MODEL_NAME}",
        markup=False,
    )
    return 0


def describe_score(result: TrainingResult) -> str:
    """Say what the best validation gave, and whether the model is of its step; nothing without validation."""
    if result.best_score is None:
        return ""
    model = "that step's" if result.model_step == result.best_step else "the last one"
    return f"; best {result.score} {result.best_score:.1%} at step {result.best_step}; the model is {model}"
