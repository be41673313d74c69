"""What `videomae train` can do within its budget: the model, its clips, and for how long each stage runs.

The order in which time is given away follows docs/small-data.md. Fine-tuning comes first, up to as many clips as it
takes a small model to fit its videos. Pre-training gets the rest, if that is enough for it to help. A larger model is
taken where both fit. Videos that take long to decode are first made small.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from videomae.config import PRESETS, VideoMAEConfig
from videomae.data.audit.check import CheckReport
from videomae.data.manifest import Manifest, read_manifest
from videomae.errors import DataError, VideoError
from videomae.settings import from_recipe, with_recipe
from videomae.training.finetuning import FinetuneSettings
from videomae.training.pretraining import PretrainSettings
from videomae.training.schedule import REFERENCE_BATCH
from videomae.training.settings import LoaderSettings, ModelSettings, TrainingDataSettings
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import torch

    from videomae.pipeline.run import TrainSettings

TRAINING_SHARE = 0.95  # of what checking leaves of the budget; the rest is the report, and what was reckoned too low
FINETUNE_CLIPS = 80_000  # until a small model comes to fit its videos
FINETUNE_EPOCHS = (30, 200)  # fewest and most for it
PRETRAIN_CLIPS, PRETRAIN_EPOCHS = 64_000, (30, 1600)  # fewer clips or epochs brought nothing; and the most
LASTING_PRETRAIN_CLIPS = 160_000  # with which the gain outlasts a long fine-tuning
MOST_INIT_EPOCHS = 100  # of fine-tuning a checkpoint
FEWEST_EPOCHS = 2
BATCH, STEPS_AN_EPOCH = 32, 4
FREE_SHARE = 0.7  # of the memory that is free, for what is estimated
# A fine-tuning of fewer clips, and of fewer epochs (from random weights, from a checkpoint), does not come to fit its
# videos: it gets hardly any augmentation.
SHORT_RUN, SHORT_EPOCHS, SHORT_INIT_EPOCHS = 60_000, 100, 20
VIEWS = 3  # of each test video
MEASURED_BATCH, MEASURED_SECONDS = 8, 10.0  # clips in a step that is timed, and what timing may take
SAMPLED_VIDEOS, SAMPLED_FRAMES = 32, 4  # that tell mean and deviation of the pixels
SMALLEST_DEVIATION = 0.02  # videos of one colour would be blown up to noise
READ_VIDEOS, COPIED_VIDEOS, COPIED_FRAMES = 8, 3, 96  # that tell what reading and copying takes
# Shorter side of a small copy: in sides of the model's frame, so that crops are not stretched; and in pixels.
COPY_SIDE, SMALLEST_COPY = 1.5, 48
COPY_START, COPY_GAIN = 5.0, 1.25  # seconds for processes to start; less gain is not worth the space

# Preset, frame side, patch side, frames, tubelet frames; from small to large.
Size = tuple[str, int, int, int, int]
SIZES: tuple[Size, ...] = (
    ("nano", 48, 8, 16, 4),
    ("tiny", 64, 8, 8, 2),
    ("tiny", 112, 16, 16, 2),
    ("small", 112, 16, 16, 2),
    ("small", 224, 16, 16, 2),
    ("base", 224, 16, 16, 2),
)
# Those without their own settings take those of tiny, at these learning rates for BATCH videos a step.
RECIPES = {"nano": ("pretrain-small-data", "finetune-small-data")}
LEARNING_RATES = {"nano": 1.4e-3, "tiny": 1e-3, "small": 5e-4, "base": 3e-4}
# Of fine-tuning checkpoints that were pre-trained at scale, at REFERENCE_BATCH videos a step, and the layer decay: v1
# on Kinetics-400; giant V2 on UCF101.
PUBLISHED_RATES = {
    "small": (5e-4, 0.75),
    "base": (5e-4, 0.75),
    "large": (2e-3, 0.75),
    "huge": (1e-3, 0.75),
    "giant": (1e-3, 0.75),
}
TOLD_SAMPLING = {"clip_sampling", "clip_stride", "clip_fps"}  # in config.json, where they are not the usual


@dataclasses.dataclass(frozen=True)
class Choice:
    """One thing that was decided, and why."""

    what: str
    value: str
    reason: str


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """What a run will do; stored with it, so that one that was stopped goes on as it was planned.

    Attributes:
        model: fields of `ModelSettings`.
        stride: of the clips.
        pretrain_epochs: 0 for none.
        finetune_epochs: passes with labels.
        choices: each with its reason.
        batch_size: videos per optimiser step of fine-tuning.
        pretrain_batch_size: the same of pre-training; None takes that of fine-tuning.
        per_device_batch: those that fit into memory at once.
        sampling: "dense" or "uniform", as in `ClipSampling`.
        fps: frame rate that the stride is counted at; None counts the video's own frames.
        learning_rate: of fine-tuning a given checkpoint; None takes that of the preset.
        layer_decay: of fine-tuning a given checkpoint; None takes the recipe's.
        mean: of the videos' own pixels, per channel, from 0 to 1; None takes the checkpoint's, or ImageNet's.
        std: their standard deviation.
        copy_side: shorter side of the small copies that are made of the training videos first; None makes none.
    """

    model: dict[str, Any]
    stride: float
    pretrain_epochs: int
    finetune_epochs: int
    choices: tuple[Choice, ...]
    batch_size: int = BATCH
    pretrain_batch_size: int | None = None
    per_device_batch: int | None = None
    sampling: Literal["dense", "uniform"] = "dense"
    fps: float | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    copy_side: int | None = None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainPlan":
        """Return a plan as ``dataclasses.asdict`` and JSON left it."""
        lists = {name: tuple(fields[name]) for name in ("mean", "std") if fields.get(name) is not None}
        return cls(**fields | lists | {"choices": tuple(Choice(**choice) for choice in fields["choices"])})


class Cost(NamedTuple):
    """Seconds that one clip takes with a model of one size, in all and for reading alone."""

    finetune: float
    pretrain: float
    test: float
    reading: float


class Spending(NamedTuple):
    """How a budget is spent with a model of one size.

    Attributes:
        finetune: epochs.
        pretrain: epochs, 0 for none.
        wanted: epochs of fine-tuning beyond which more is not asked for.
        affordable: epochs of pre-training that fine-tuning leaves the time for, whether they are enough or not.
        cost: of a clip.
        copy_side: shorter side of the small copies that are made first, or None.
        copy_seconds: that they take.
        left: seconds of the budget that remain; negative if what was asked for takes longer.
        is_enough: both stages get what they need.
    """

    finetune: int
    pretrain: int
    wanted: int
    affordable: int
    cost: Cost
    copy_side: int | None
    copy_seconds: float
    left: float
    is_enough: bool


def make_plan(
    settings: "TrainSettings", manifest: Manifest, report: CheckReport, budget: float, choices: list[Choice]
) -> TrainPlan:
    """Choose model, clips and epochs that fit the videos and the budget.

    Some steps of training tell how fast this machine is; for a model that takes long this is reckoned from its FLOPs
    and the speed of a smaller one. Some videos are decoded, and parts of some made small, to tell what that takes.

    Args:
        settings: what was asked for.
        manifest: the videos with their splits.
        report: what is known of them.
        budget: seconds.
        choices: what was decided so far; what is decided here is added.
    """
    s, videos = settings, manifest.split("train")
    stored: Collection[str] = ()
    with tempfile.TemporaryDirectory() as folder:
        account = _Account(s, manifest, report, budget, Path(folder))
        if s.init is not None:
            from videomae.models.weights import open_checkpoint

            model: dict[str, Any] = {}
            checkpoint = open_checkpoint(s.init)
            config, stored = checkpoint.resolve_config(), checkpoint.config.keys()
            spending = account.spend(config)
            choices.append(Choice("model", s.init, "given with --init"))
        else:
            size, spending, choice = _choose_size(s, account)
            config = _config(size, s)
            model = {
                "preset": size[0], "image_size": size[1], "patch_size": config.patch_size,
                "num_frames": config.num_frames, "tubelet_size": size[4],
            }  # fmt: skip
            choices.append(choice)
    rate = f"{1 / spending.cost.finetune:.3g} clips per second, reading alone {1 / spending.cost.reading:.3g}"
    choices.append(Choice("fine-tuning", rate, "measured on this machine and on videos of the data"))
    choices += _told_copies(spending)
    clips, choice = _choose_clips(s, config, stored, _lengths(videos, report))
    choices.append(choice)
    choices += _told_epochs(s, spending, len(videos))
    batch, pretrain_batch, choice = _choose_batch(s, model, len(videos))
    choices.append(choice)
    at_once = fitting_batch(config, batch, s.device)
    if at_once < batch:
        choices.append(Choice("at once", str(at_once), "what fits into the memory that is free; the rest is added up"))
    start: dict[str, Any] = {}
    if s.init is not None:
        start["learning_rate"], start["layer_decay"], choice = finetuning_rate(config, batch)
        choices.append(choice)
    elif _own_recipes(config):  # measured with such input; on quickstart's videos it made a tiny model worse
        start["mean"], start["std"] = measure_pixels(videos)
        told = ", ".join(f"{value:.3f}" for value in (*start["mean"], *start["std"]))
        choices.append(Choice("input", told, "mean and deviation of the videos' own pixels, by channel"))
    return TrainPlan(
        model=model,
        pretrain_epochs=spending.pretrain,
        finetune_epochs=spending.finetune,
        choices=tuple(choices),
        batch_size=batch,
        pretrain_batch_size=pretrain_batch,
        per_device_batch=at_once,
        copy_side=spending.copy_side,
        **clips,
        **start,
    )


class _Account:
    """Spends the budget on a model of one size or another; keeps copies that it measures in a folder."""

    def __init__(
        self, settings: "TrainSettings", manifest: Manifest, report: CheckReport, budget: float, folder: Path
    ) -> None:
        self.settings, self.budget = settings, budget
        self.videos, self.num_tested = manifest.split("train"), len(manifest.split("test"))
        self.uses_pretraining = settings.pretrain and settings.init is None and settings.pretrain_epochs != 0
        learnt = {sample.file.resolve() for sample in manifest if sample.split in ("train", "val")}
        facts = {Path(fact.file).resolve(): fact for fact in report.readable}
        self.frames_to_copy = sum(facts[file].num_frames for file in learnt if file in facts)
        self.copying_processes = min(copying_processes(settings), len(learnt))
        self._folder = folder
        self._rate = 0.0  # FLOPs a second, of the model that was timed last
        self._copies: dict[int, tuple[float, Manifest] | None] = {}

    def spend(self, config: VideoMAEConfig) -> Spending:
        """Return how the budget is spent best: on the videos as they are, or on small copies.

        The model is timed if that takes little, else its speed is taken for that of the one before.
        """
        if not self._rate or 4 * MEASURED_BATCH * _flops(config)[1] / self._rate < MEASURED_SECONDS:
            self._rate = measure_speed(config, self.settings.device)
        as_they_are = self._spend(config, self.videos, None, 0.0)
        videos = len(self.videos)
        clips = (as_they_are.finetune + as_they_are.pretrain) * videos
        if clips * as_they_are.cost.reading < COPY_START:  # whatever copies save, to make them takes longer
            return as_they_are
        side = max(round(COPY_SIDE * min(config.frame_size) / 2) * 2, SMALLEST_COPY)
        if side not in self._copies:
            self._copies[side] = measure_copies(self.videos, side, self._folder)
        measured = self._copies[side]
        if measured is None:
            return as_they_are
        seconds_a_frame, copies = measured
        seconds = COPY_START + self.frames_to_copy * seconds_a_frame / self.copying_processes
        copied = self._spend(config, copies, side, seconds)
        before, after = as_they_are.cost, copied.cost
        without, with_copies = (
            videos * (copied.finetune * cost.finetune + copied.pretrain * cost.pretrain) for cost in (before, after)
        )
        return copied if without > COPY_GAIN * (with_copies + seconds) else as_they_are

    def _spend(self, config: VideoMAEConfig, read: Manifest, copy_side: int | None, copy_seconds: float) -> Spending:
        """Return how the budget is spent on videos of which some are read from ``read`` to tell what that takes."""
        s, videos = self.settings, len(self.videos)
        cost = self._cost(config, read)
        left = TRAINING_SHARE * self.budget - copy_seconds - VIEWS * self.num_tested * cost.test
        if s.pretrain_epochs is not None:
            left -= s.pretrain_epochs * videos * cost.pretrain
        wanted = finetuning_wanted(videos) if s.init is None else MOST_INIT_EPOCHS
        finetune = s.finetune_epochs or max(min(int(left / (videos * cost.finetune)), wanted), FEWEST_EPOCHS)
        is_enough = s.finetune_epochs is not None or finetune >= wanted
        left -= finetune * videos * cost.finetune
        affordable, pretrain = max(int(left / (videos * cost.pretrain)), 0), s.pretrain_epochs or 0
        if self.uses_pretraining and s.pretrain_epochs is None:
            is_enough = is_enough and affordable >= pretraining_needed(videos, LASTING_PRETRAIN_CLIPS)
            pretrain = min(affordable, PRETRAIN_EPOCHS[1]) if affordable >= pretraining_needed(videos) else 0
            left -= pretrain * videos * cost.pretrain
        return Spending(
            finetune, pretrain, wanted, affordable, cost, copy_side, copy_seconds, left, is_enough and left >= 0
        )

    def _cost(self, config: VideoMAEConfig, read: Manifest) -> Cost:
        """Return what a clip takes."""
        s = self.settings
        pretraining, finetuning = _flops(config)
        reading = measure_reading(read, s, config)
        own = _own_recipes(config)
        repeats = from_recipe(PretrainSettings, own[0]).loader.augmentations_per_clip if own else 1

        def together(flops: float, reading: float) -> float:
            # Only beside a GPU do the processes that decode take no time from training.
            return max(flops / self._rate, reading) if decodes_beside(s) else flops / self._rate + reading

        return Cost(
            finetune=together(finetuning, reading),
            pretrain=together(pretraining, reading / repeats),
            test=finetuning / 3 / self._rate + reading,
            reading=reading,
        )


def finetuning_wanted(videos: int) -> int:
    """Return the epochs after which fine-tuning a small model from random weights is not made longer."""
    fewest, most = FINETUNE_EPOCHS
    return min(max(FINETUNE_CLIPS // videos, fewest), most)


def pretraining_needed(videos: int, clips: int = PRETRAIN_CLIPS) -> int:
    """Return the epochs of so many clips; by default those below which pre-training does not help."""
    fewest, most = PRETRAIN_EPOCHS
    return min(max(-(-clips // videos), fewest), most)


def copying_processes(settings: "TrainSettings") -> int:
    """Return how many processes make small copies."""
    return os.cpu_count() or 1 if settings.num_workers is None else max(settings.num_workers, 1)


def decodes_beside(settings: "TrainSettings") -> bool:
    """Tell whether videos are decoded while a GPU trains."""
    from videomae.inference.devices import choose_device

    return settings.num_workers != 0 and choose_device("cpu" if settings.device == "cpu" else None).type != "cpu"


def candidate_sizes(settings: "TrainSettings") -> list[Size]:
    """Return the sizes that fit what is asked for, from small to large.

    Raises:
        ValueError: if there is none.
    """
    s = settings
    known = [size for size in SIZES if s.preset in (None, size[0])]
    sizes = [size for size in known if s.image_size in (None, size[1])]
    if not sizes and s.image_size is not None:
        side = s.image_size
        preset, usual_side, usual_patch, *frames = min(known, key=lambda size: abs(size[1] - side))
        wanted = side * usual_patch / usual_side  # as many patches as there
        patches = [patch for patch in _divisors(side) if 2 / 3 < patch / wanted < 1.5]
        patch = min(patches, key=lambda patch: abs(patch - wanted), default=usual_patch)
        sizes = [(preset, side, patch, *frames)]  # type: ignore[list-item]
    fitting, refusal = [], None
    for size in sizes:
        try:
            _config(size, s)
        except ValueError as error:
            refusal = error
        else:
            fitting.append(size)
    if not fitting and refusal is not None:
        raise refusal
    return fitting


def _choose_size(settings: "TrainSettings", account: _Account) -> tuple[Size, Spending, Choice]:
    """Return the largest size with which both stages get what they need, or else the smallest."""
    s, sizes = settings, candidate_sizes(settings)
    stages = "fine-tuning and pre-training" if account.uses_pretraining else "fine-tuning"
    size, spending = sizes[0], account.spend(_config(sizes[0], s))
    reason = f"the smallest: {s.budget} are short for {stages}"
    if spending.is_enough:
        reason = f"the largest for which {s.budget} are enough for {stages}"
        for larger in sizes[1:]:
            found = account.spend(_config(larger, s))
            if not found.is_enough:
                break
            size, spending = larger, found
    if len(sizes) == 1:
        reason = "the only size of those that are asked for"
    config = _config(size, s)
    value = f"{size[0]}, {config.num_frames} frames of {size[1]} pixels in patches of {config.patch_size}"
    return size, spending, Choice("model", value, reason)


def _told_copies(spending: Spending) -> Iterator[Choice]:
    if spending.copy_side is not None:
        reason = f"about {spending.copy_seconds:.0f} s to make, and the training videos are read faster ever after"
        yield Choice("small copies", f"shorter side at most {spending.copy_side} pixels", reason)


def _lengths(videos: Manifest, report: CheckReport) -> list[int]:
    """Return the numbers of frames of all videos, or of their stretches, rising."""
    times = {Path(fact.file).resolve(): fact.times for fact in report.readable}
    found = ((sample, times.get(sample.file.resolve())) for sample in videos)
    return sorted(len(sample.frames_of(known)) for sample, known in found if known is not None)


def _choose_clips(
    settings: "TrainSettings", config: VideoMAEConfig, stored: Collection[str], lengths: Sequence[int]
) -> tuple[dict[str, Any], Choice]:
    """Return which frames make a clip, as fields of a plan."""
    median = lengths[len(lengths) // 2]
    stride = max(min(4.0, round(median / config.num_frames * 4) / 4), 1.0)
    clips: dict[str, Any] = {"sampling": "dense", "stride": settings.stride or stride, "fps": None}
    why = "given" if settings.stride else f"half of the videos have {median} frames or fewer"
    if settings.stride is None and not TOLD_SAMPLING.isdisjoint(stored):
        clips = {"sampling": config.clip_sampling, "stride": config.clip_stride, "fps": config.clip_fps}
        why = "as the checkpoint was trained"
    rate = f" at {clips['fps']:g} frames per second" if clips["fps"] else ""
    value = "one frame of each segment" if clips["sampling"] == "uniform" else f"{clips['stride']:g}{rate}"
    return clips, Choice("stride", value, why)


def _told_epochs(settings: "TrainSettings", spending: Spending, videos: int) -> Iterator[Choice]:
    """Say why each stage takes as long as it does."""
    s = settings
    if s.pretrain_epochs is not None:
        yield Choice("epochs of pretrain", str(spending.pretrain), "given")
    elif s.pretrain and s.init is None:
        if not spending.pretrain:
            needed = pretraining_needed(videos)
            why = f"what fine-tuning leaves is enough for {spending.affordable}; fewer than {needed} do not help"
        elif spending.pretrain < spending.affordable:
            why = f"at most {spending.pretrain}; what fine-tuning leaves would be enough for {spending.affordable}"
        else:
            why = f"what fine-tuning leaves, at {1 / spending.cost.pretrain:.3g} clips per second"
        yield Choice("epochs of pretrain", str(spending.pretrain), why)
    rate = f"{1 / spending.cost.finetune:.3g} clips per second"
    if s.finetune_epochs is not None:
        why = "given"
    elif spending.finetune < spending.wanted:
        why = f"what the budget is enough for, at {rate}"
        if spending.finetune == FEWEST_EPOCHS:
            why = f"at least {FEWEST_EPOCHS}, whatever the budget"
    elif s.init is not None:
        why = f"at most {spending.wanted} for a checkpoint"
    elif spending.wanted in FINETUNE_EPOCHS:
        why = f"for {videos} videos no more are taken"
    else:
        why = f"{spending.finetune * videos:,} clips, with which a small model fits its videos"
    yield Choice("epochs of finetune", str(spending.finetune), why)


def _choose_batch(settings: "TrainSettings", model: dict[str, Any], videos: int) -> tuple[int, int | None, Choice]:
    """Return the videos per step of fine-tuning, and of pre-training where that takes others."""
    s, own = settings, RECIPES.get(model.get("preset", ""))
    usual, usual_first = BATCH, None
    if own is not None:
        usual = from_recipe(FinetuneSettings, own[1]).run.batch_size
        usual_first = from_recipe(PretrainSettings, own[0]).run.batch_size
    batch = s.batch_size or max(min(usual, videos // STEPS_AN_EPOCH), 1)
    if videos < batch:
        raise DataError(f"{videos} training videos do not fill one batch of {batch}: take a smaller --batch-size")
    why = (
        "given" if s.batch_size else "the usual one" if batch == usual else f"{STEPS_AN_EPOCH} steps an epoch at least"
    )
    if usual_first is not None and not s.batch_size:
        first = min(usual_first, batch)
        return batch, first, Choice("batch", f"{batch}, in pre-training {first}", why)
    return batch, None, Choice("batch", str(batch), why)


def finetuning_rate(config: VideoMAEConfig, batch_size: int) -> tuple[float, float | None, Choice]:
    """Return the learning rate and layer decay (None: the recipe's) to fine-tune a given checkpoint with, and why."""
    preset = min(PRESETS, key=lambda name: abs(VideoMAEConfig.preset(name).hidden_size - config.hidden_size))
    if preset not in PUBLISHED_RATES:
        rate = LEARNING_RATES[preset] * batch_size / BATCH
        reason = f"this project's for {preset} models: {LEARNING_RATES[preset]:g} at {BATCH} videos a step"
        return rate, None, Choice("learning rate", f"{rate:.3g}", reason)
    published, decay = PUBLISHED_RATES[preset]
    rate = published * batch_size / REFERENCE_BATCH
    reason = f"as published for {preset} models pre-trained at scale: {published:g} at {REFERENCE_BATCH} videos a step"
    return rate, decay, Choice("learning rate", f"{rate:.3g}, layer decay {decay:g}", reason)


def run_settings(
    settings: "TrainSettings", plan: TrainPlan, manifest: Path
) -> tuple[PretrainSettings | None, FinetuneSettings]:
    """Return the settings of pre-training, if any, and of fine-tuning: the recipes, fitted to the plan."""
    s = settings
    preset = plan.model.get("preset", "base")
    videos = sum(sample.split == "train" for sample in read_manifest(manifest))
    own = RECIPES.get(preset)

    def fit_to_plan(task: Any, epochs: int, batch: int) -> Any:
        if own is None:
            task.optim.lr = LEARNING_RATES.get(preset, 3e-4) * batch / BATCH
        else:  # Adam's steps are as long whatever the batch, so the rate grows with the root of what it averages over
            task.optim.lr *= (batch / task.run.batch_size) ** 0.5
        task.optim.warmup_epochs = min(task.optim.warmup_epochs, epochs / 10)
        task.run.epochs, task.run.steps, task.run.batch_size = epochs, None, batch
        task.run.per_device_batch = max(part for part in _divisors(batch) if part <= (plan.per_device_batch or batch))
        task.run.seed, task.run.device, task.run.precision = s.seed, s.device, "auto"
        jitter = task.clips.jitter if plan.sampling == "dense" else 0.0
        task.clips = ClipSampling(plan.sampling, plan.stride, plan.fps, jitter)
        task.loader.num_workers = s.num_workers
        task.augment.mean, task.augment.std = plan.mean, plan.std
        return task

    first = None
    if plan.pretrain_epochs:
        first = with_recipe(
            PretrainSettings(data=TrainingDataSettings(manifest), out=s.out / "pretrain"),
            own[0] if own else "pretrain-tiny",
        )
        first.model = ModelSettings(**plan.model, norm_pix_loss=first.model.norm_pix_loss)
        # An epoch of the plan is one clip of each video.
        each = first.loader.augmentations_per_clip if own else 1
        each = each if plan.pretrain_epochs % each == 0 else 1
        first.loader.augmentations_per_clip = each
        epochs = plan.pretrain_epochs // each
        first = fit_to_plan(first, epochs, plan.pretrain_batch_size or plan.batch_size)
    short_epochs = SHORT_EPOCHS if s.init is None else SHORT_INIT_EPOCHS
    is_short = plan.finetune_epochs * videos < SHORT_RUN and plan.finetune_epochs < short_epochs
    recipe = "finetune-short" if is_short else own[1] if own else "finetune-tiny"
    second = with_recipe(FinetuneSettings(data=TrainingDataSettings(manifest), out=s.out / "finetune"), recipe)
    if first is not None:
        second.init = str(first.out / "model")
    elif s.init is not None:
        second.init = s.init
    else:
        second.model = ModelSettings(**plan.model)
    second = fit_to_plan(second, plan.finetune_epochs, plan.batch_size)
    if plan.learning_rate is not None:
        second.optim.lr = plan.learning_rate
    if plan.layer_decay is not None:
        second.optim.layer_decay = plan.layer_decay
    if s.init is None and plan.pretrain_epochs < pretraining_needed(videos):
        second.optim.layer_decay = 1.0  # what has learnt little so far must not be kept from learning
    second.run.validate_every = max(plan.finetune_epochs // 10, 1)
    return first, second


# -------------------------------------------------------------------------------------------------- what things cost


def _config(size: Size, settings: "TrainSettings | None" = None) -> VideoMAEConfig:
    preset, image_size, patch_size, num_frames, tubelet_size = size
    return VideoMAEConfig.preset(
        preset,
        image_size=image_size,
        patch_size=(settings and settings.patch_size) or patch_size,
        num_frames=(settings and settings.num_frames) or num_frames,
        tubelet_size=tubelet_size,
    )


def _own_recipes(config: VideoMAEConfig) -> tuple[str, str] | None:
    """Return the recipes of the preset that a model is of, if it has its own."""
    for preset, recipes in RECIPES.items():
        if config.hidden_size == VideoMAEConfig.preset(preset).hidden_size:
            return recipes
    return None


def _flops(config: VideoMAEConfig) -> tuple[float, float]:
    """Return the FLOPs of a training step for one clip: in pre-training, with the recipe's mask, and in fine-tuning."""
    width, depth, mlp = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    tokens = config.num_tubelets

    def blocks(count: float, width: int, depth: int, mlp: int) -> float:
        return depth * (2 * count * width * (4 * width + 2 * mlp) + 4 * count * count * width)

    own = _own_recipes(config)
    recipe = from_recipe(PretrainSettings, own[0] if own else "pretrain-tiny")
    visible = tokens * (1 - recipe.mask.ratio)
    decoder = (config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_intermediate_size)
    pretraining = blocks(visible, width, depth, mlp) + blocks(tokens, *decoder)
    return 3 * pretraining, 3 * blocks(tokens, width, depth, mlp)


def fitting_batch(config: VideoMAEConfig, batch_size: int, device: str) -> int:
    """Return the largest part of a batch for which fine-tuning, which needs the most, fits into free memory."""
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.training.estimate import estimate

    with torch.device("meta"):
        model = VideoMAEForVideoClassification(config.replace(use_mean_pooling=True))
        clip = torch.empty(1, config.num_frames, config.num_channels, *config.frame_size)
        label = torch.zeros(1, dtype=torch.int64)
    cost = estimate(model, lambda model: model(clip, labels=label).loss, half=False, ema=False)
    free = FREE_SHARE * free_memory(device)
    return max((part for part in _divisors(batch_size) if cost.memory(part) <= free), default=1)


def free_memory(device: str) -> float:
    """Return the bytes that are free on the device that training takes."""
    import torch

    from videomae.inference.devices import choose_device

    if choose_device("cpu" if device == "cpu" else None).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if hasattr(os, "sysconf") else float("inf")


def measure_speed(config: VideoMAEConfig, device: str) -> float:
    """Return the FLOPs per second of training a model on labels here, waiting for data left out."""
    import torch

    from videomae.inference.devices import choose_device
    from videomae.models.videomae import VideoMAEForVideoClassification

    where = choose_device("cpu" if device == "cpu" else None)
    model = VideoMAEForVideoClassification(config.replace(use_mean_pooling=True)).to(where).train()
    height, width = config.frame_size
    clips = torch.zeros(MEASURED_BATCH, config.num_frames, config.num_channels, height, width, device=where)
    labels = torch.zeros(MEASURED_BATCH, dtype=torch.int64, device=where)
    times = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        model(clips, labels=labels).loss.backward()
        _wait_for(where)
        times.append(time.perf_counter() - began)
    return MEASURED_BATCH * _flops(config)[1] / sorted(times)[1]


def measure_reading(videos: Manifest, settings: "TrainSettings", config: VideoMAEConfig) -> float:
    """Return the seconds that a clip takes from its file to the model, on all decoding processes together.

    Raises:
        DataError: if none of the videos that are tried can be read.
    """
    from videomae.data.dataset import VideoDataset
    from videomae.video.augment import finetune_augmentation

    own = _own_recipes(config)
    recipe = from_recipe(FinetuneSettings, own[1] if own else "finetune-tiny")
    clips = ClipSampling(stride=settings.stride or recipe.clips.stride)
    augment = finetune_augmentation(recipe.augment, mean=(0.5,) * 3, std=(0.5,) * 3, image_size=config.frame_size[0])
    dataset = VideoDataset(
        videos,
        sampling=clips,
        clip_frames=config.num_frames,
        training=True,
        transform=augment,
        on_bad="raise",
        threads=1,
    )
    times, refusal = [], None
    for i in _spread(len(dataset), READ_VIDEOS):
        began = time.perf_counter()
        try:
            dataset[i]
        except VideoError as error:
            refusal = error
        else:
            times.append(time.perf_counter() - began)
    if not times:
        raise DataError(f"none of {READ_VIDEOS} training videos can be read, such as: {refusal}")
    return sum(times) / len(times) / max(LoaderSettings(num_workers=settings.num_workers).workers(1), 1)


def measure_copies(videos: Manifest, side: int, folder: Path) -> tuple[float, Manifest] | None:
    """Return the seconds that it takes to copy a frame, in one process, and copies of some stretches to read from.

    They are written to the folder. None means that none of the videos that were tried can be copied.
    """
    from videomae.data.copies import Encoding, copy_file

    samples, seconds, num_frames = [], 0.0, 0
    for i in _spread(len(videos), COPIED_VIDEOS):
        sample, copy = videos.samples[i], folder / f"{side}-{i}.mp4"
        began = time.perf_counter()
        try:
            num_frames += copy_file(sample.file, copy, Encoding(short_side=side), max_frames=COPIED_FRAMES)
        except VideoError:
            continue
        seconds += time.perf_counter() - began
        samples.append(dataclasses.replace(sample, file=copy, start=None, end=None))
    if not samples:
        return None
    return seconds / num_frames, Manifest(tuple(samples), videos.classes, videos.root)


def measure_pixels(videos: Manifest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of some videos' pixels, by channel, from 0 to 1.

    Raises:
        DataError: if none of the videos that are tried can be read.
    """
    pixels, refusal = [], None
    for i in _spread(len(videos), SAMPLED_VIDEOS):
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
        raise DataError(f"none of {SAMPLED_VIDEOS} training videos can be read, such as: {refusal}")
    mean, square = np.mean(pixels, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0)).clip(min=SMALLEST_DEVIATION)
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]


def _spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` numbers below ``total``, evenly apart."""
    return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()


def _wait_for(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
