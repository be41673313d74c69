"""What `videomae train` can do within its budget: the model, its clips, and for how long each stage runs.

The order in which time is given away follows docs/small-data.md. Fine-tuning comes first, up to as many clips as it
takes a small model to fit its videos. Pre-training gets the rest, if that is enough for it to help. A larger model is
taken where both fit. Videos that take long to decode are first made small.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from videomae.config import PRESETS, VideoMAEConfig
from videomae.errors import DataError, VideoError
from videomae.settings import with_recipe
from videomae.tasks.check import CheckReport
from videomae.tasks.finetune import FinetuneSettings
from videomae.tasks.pretrain import PretrainSettings
from videomae.tasks.runs import ClipSettings, ModelSettings
from videomae.training.plan import REFERENCE_BATCH
from videomae.video.manifest import Manifest, read_manifest
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    import torch

    from videomae.tasks.train import TrainSettings

TRAINING_SHARE = 0.9  # of the budget; the rest is checking, evaluating and the report
FINETUNE_CLIPS = 80_000  # until a small model comes to fit its videos
FINETUNE_EPOCHS = (30, 200)  # fewest and most for it
PRETRAIN_CLIPS, PRETRAIN_EPOCHS = 64_000, 30  # fewer brought nothing
MOST_PRETRAIN_EPOCHS, MOST_INIT_EPOCHS = 1600, 100
FEWEST_EPOCHS = 2
BATCH, STEPS_AN_EPOCH = 32, 4
FREE_SHARE = 0.7  # of the memory that is free, for what is estimated
SHORT_RUN = 60_000  # clips; a shorter fine-tuning does not come to fit its videos: it gets hardly any augmentation
PRETRAINED_EPOCHS = 50  # from here on fine-tuning lets lower layers learn more slowly
SAMPLED_VIDEOS, SAMPLED_FRAMES = 32, 4  # that tell mean and deviation of the pixels
SMALLEST_DEVIATION = 0.02  # videos of one colour would be blown up to noise
COPY_SIDE, SMALLEST_COPY = 1.5, 48  # shorter side of a small copy: in sides of the model's frame, so that crops are not
# stretched; and in pixels
COPY_START, COPY_GAIN = 5.0, 1.25  # seconds for processes to start; less gain is not worth the space

# Preset, frame side, patch side, frames, tubelet frames; from small to large.
Size = tuple[str, int, int, int, int]
SIZES: tuple[Size, ...] = (
    ("nano", 24, 4, 16, 4),
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
        sampling: "dense" or "uniform", as in `ClipSettings`.
        fps: frame rate that the stride is counted at; None counts the video's own frames.
        learning_rate: of fine-tuning a given checkpoint; None takes that of the preset.
        layer_decay: of fine-tuning a given checkpoint; None takes the recipe's.
        mean: of the videos' own pixels, per channel, from 0 to 1; None takes the checkpoint's.
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


class Speed(NamedTuple):
    """How fast this machine is.

    Attributes:
        flops: per second, of training the tiny model.
        overlaps: whether decoding takes no time from training, as with a GPU.
    """

    flops: float
    overlaps: bool

    def seconds(self, flops: float, reading: float) -> float:
        """Return the seconds of a clip: of a training step and of reading it."""
        return max(flops / self.flops, reading) if self.overlaps else flops / self.flops + reading


class Spending(NamedTuple):
    """How a budget is spent with a model of one size.

    Attributes:
        finetune: epochs.
        pretrain: epochs, 0 for none.
        finetune_rate: clips a second.
        pretrain_rate: the same of pre-training.
        copy_side: shorter side of the small copies that are made first, or None.
        copy_seconds: that they take.
        affordable: epochs of pre-training that were left for, whether they were enough or not.
        is_enough: both stages got what they need.
    """

    finetune: int
    pretrain: int
    finetune_rate: float
    pretrain_rate: float
    copy_side: int | None
    copy_seconds: float
    affordable: int
    is_enough: bool

    @property
    def seconds_a_video(self) -> float:
        """Seconds of training for each video, copying left out."""
        return self.finetune / self.finetune_rate + self.pretrain / self.pretrain_rate


def make_plan(
    settings: "TrainSettings", manifest: Manifest, report: CheckReport, budget: float, choices: list[Choice]
) -> TrainPlan:
    """Choose model, clips and epochs that fit the videos and the budget.

    A short training of the tiny model tells how fast this machine is; the cost of another one is reckoned from its
    FLOPs, which flatters small machines a little. Some videos are decoded, and one is made small, to tell what that
    takes.

    Args:
        settings: what was asked for.
        manifest: the videos with their splits.
        report: what is known of them.
        budget: seconds.
        choices: what was decided so far; what is decided here is added.
    """
    s, videos = settings, manifest.split("train")
    speed, reading = measure_speed(s.device), measure_loading(videos, s)
    account = _Account(s, videos, report, budget, speed, reading)
    stored: Collection[str] = ()
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
    choices.append(
        Choice("speed", f"{speed.flops / 1e9:.0f} GFLOPs per second", "measured on this machine with the tiny model")
    )
    choices.append(Choice("decoding", f"{1 / reading:.3g} clips per second", "measured on videos of the data"))
    choices += _told_copies(spending)
    clips, choice = _choose_clips(s, config, stored, report)
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
    else:
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
    """Spends the budget on a model of one size or another."""

    def __init__(
        self,
        settings: "TrainSettings",
        videos: Manifest,
        report: CheckReport,
        budget: float,
        speed: Speed,
        reading: float,
    ) -> None:
        self.settings, self.videos, self.budget = settings, videos, budget
        self.speed, self.reading = speed, reading
        self.uses_pretraining = settings.pretrain and settings.init is None and settings.pretrain_epochs != 0
        paths = {sample.file.resolve() for sample in videos}
        facts = [fact for fact in report.readable if Path(fact.file).resolve() in paths]
        self.num_frames = sum(fact.num_frames for fact in facts)

    def spend(self, config: VideoMAEConfig) -> Spending:
        """Return how the budget is spent best: on the videos as they are, or on small copies."""
        as_they_are = self._spend(config, self.reading, None, 0.0)
        side = max(round(COPY_SIDE * min(config.frame_size) / 2) * 2, SMALLEST_COPY)
        clips = (as_they_are.finetune + as_they_are.pretrain) * len(self.videos)
        if clips * self.reading < COPY_START:  # whatever copies save, to make them takes longer
            return as_they_are
        measured = measure_copies(self.videos, side, self.settings)
        if measured is None:
            return as_they_are
        seconds_a_frame, reading = measured
        seconds = COPY_START + self.num_frames * seconds_a_frame / (os.cpu_count() or 1)
        copied = self._spend(config, reading, side, seconds)
        if (copied.finetune, copied.pretrain) != (as_they_are.finetune, as_they_are.pretrain):
            more = (copied.finetune, copied.pretrain) > (as_they_are.finetune, as_they_are.pretrain)
            return copied if more else as_they_are
        whole = [each.copy_seconds + len(self.videos) * each.seconds_a_video for each in (as_they_are, copied)]
        return copied if whole[0] > COPY_GAIN * whole[1] else as_they_are

    def _spend(self, config: VideoMAEConfig, reading: float, copy_side: int | None, copy_seconds: float) -> Spending:
        s, videos = self.settings, len(self.videos)
        pretraining, finetuning = (self.speed.seconds(flops, reading) for flops in _flops(config))
        left = TRAINING_SHARE * self.budget - copy_seconds
        if s.init is None:
            fewest, most = FINETUNE_EPOCHS
            wanted = min(max(FINETUNE_CLIPS // videos, fewest), most)
        else:
            wanted = MOST_INIT_EPOCHS
        affordable = int(left / (videos * finetuning))
        finetune = max(min(affordable, wanted), FEWEST_EPOCHS) if s.finetune_epochs is None else s.finetune_epochs
        is_enough = finetune >= wanted
        left -= finetune * videos * finetuning
        rest, pretrain = max(int(left / (videos * pretraining)), 0), 0
        if self.uses_pretraining:
            needed = max(PRETRAIN_CLIPS // videos, PRETRAIN_EPOCHS)
            is_enough = is_enough and rest >= needed
            pretrain = min(rest, MOST_PRETRAIN_EPOCHS) if rest >= needed else 0
        if s.pretrain_epochs is not None:
            pretrain = s.pretrain_epochs
        return Spending(finetune, pretrain, 1 / finetuning, 1 / pretraining, copy_side, copy_seconds, rest, is_enough)


def _choose_size(settings: "TrainSettings", account: _Account) -> tuple[Size, Spending, Choice]:
    """Return the largest size with which both stages get what they need, or else the smallest."""
    s = settings
    sizes = [size for size in SIZES if s.preset in (None, size[0]) and s.image_size in (None, size[1])]
    side = s.image_size or 64
    sizes = sizes or [(s.preset or "tiny", side, 8 if side < 100 else 16, 16, 2)]
    stages = "fine-tuning and pre-training" if account.uses_pretraining else "fine-tuning"
    reason = f"the smallest: {s.budget} are short for {stages}"
    size, spending = sizes[0], account.spend(_config(sizes[0], s))
    for larger in sizes:
        found = spending if larger == size else account.spend(_config(larger, s))
        if not found.is_enough:
            break
        size, spending, reason = larger, found, f"the largest for which {s.budget} are enough for {stages}"
    if len(sizes) == 1:
        reason = "the only size of those that are asked for"
    config = _config(size, s)
    value = f"{size[0]}, {config.num_frames} frames of {size[1]} pixels in patches of {config.patch_size}"
    return size, spending, Choice("model", value, reason)


def _told_copies(spending: Spending) -> Iterator[Choice]:
    if spending.copy_side is not None:
        reason = f"about {spending.copy_seconds:.0f} s to make, and the training videos are read faster ever after"
        yield Choice("small copies", f"shorter side {spending.copy_side} pixels", reason)


def _choose_clips(
    settings: "TrainSettings", config: VideoMAEConfig, stored: Collection[str], report: CheckReport
) -> tuple[dict[str, Any], Choice]:
    """Return which frames make a clip, as fields of a plan."""
    frames = sorted(fact.num_frames for fact in report.readable)
    median = frames[len(frames) // 2]
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
        clips = f"{spending.affordable * videos:,} clips"
        if not spending.pretrain:
            needed = max(PRETRAIN_CLIPS, PRETRAIN_EPOCHS * videos)
            why = f"what fine-tuning leaves is enough for {clips}; fewer than {needed:,} do not help"
        elif spending.pretrain < spending.affordable:
            why = f"at most {spending.pretrain}; what fine-tuning leaves would be enough for {spending.affordable}"
        else:
            why = f"what fine-tuning leaves, at {spending.pretrain_rate:.3g} clips per second"
        yield Choice("epochs of pretrain", str(spending.pretrain), why)
    rate = f"{spending.finetune_rate:.3g} clips per second"
    if s.finetune_epochs is not None:
        why = "given"
    elif spending.finetune == FEWEST_EPOCHS:
        why = f"at least {FEWEST_EPOCHS}, whatever the budget"
    elif s.init is not None and spending.finetune == MOST_INIT_EPOCHS:
        why = f"at most {MOST_INIT_EPOCHS} for a checkpoint"
    elif s.init is None and spending.finetune * videos > FINETUNE_CLIPS - videos:
        why = f"{spending.finetune * videos:,} clips, with which a small model fits its videos"
    elif s.init is None and spending.finetune == FINETUNE_EPOCHS[1]:
        why = f"at most {spending.finetune}"
    else:
        why = f"{TRAINING_SHARE:.0%} of the budget at {rate}"
    yield Choice("epochs of finetune", str(spending.finetune), why)


def _choose_batch(settings: "TrainSettings", model: dict[str, Any], videos: int) -> tuple[int, int | None, Choice]:
    """Return the videos per step of fine-tuning, and of pre-training where that takes others."""
    s, own = settings, RECIPES.get(model.get("preset", ""))
    usual, usual_first = BATCH, None
    if own is not None:
        usual = with_recipe(FinetuneSettings(Path(), Path()), own[1]).run.batch_size
        usual_first = with_recipe(PretrainSettings(Path(), Path()), own[0]).run.batch_size
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
        task.run.per_device_batch = min(plan.per_device_batch or batch, batch)
        task.run.seed, task.run.device, task.run.precision = s.seed, s.device, "auto"
        task.clips.sampling, task.clips.stride, task.clips.fps = plan.sampling, plan.stride, plan.fps
        task.clips.stride_jitter = task.clips.stride_jitter if plan.sampling == "dense" else 0.0
        task.clips.num_workers = s.num_workers
        task.augment.mean, task.augment.std = plan.mean, plan.std
        return task

    first = None
    if plan.pretrain_epochs:
        first = with_recipe(PretrainSettings(data=manifest, out=s.out / "pretrain"), own[0] if own else "pretrain-tiny")
        first.model = ModelSettings(**plan.model, norm_pix_loss=first.model.norm_pix_loss)
        each = first.clips.augmentations_per_clip if own else 1
        first.clips.augmentations_per_clip = each
        # An epoch of the plan is one clip of each video.
        epochs = max(round(plan.pretrain_epochs / each), 1)
        first = fit_to_plan(first, epochs, plan.pretrain_batch_size or plan.batch_size)
    is_short = plan.finetune_epochs * videos < SHORT_RUN
    recipe = "finetune-short" if is_short else own[1] if own else "finetune-tiny"
    second = with_recipe(FinetuneSettings(data=manifest, out=s.out / "finetune"), recipe)
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
    has_learnt = plan.pretrain_epochs >= PRETRAINED_EPOCHS or plan.pretrain_epochs * videos >= PRETRAIN_CLIPS
    if s.init is None and not has_learnt:
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


def _flops(config: VideoMAEConfig) -> tuple[float, float]:
    """Return the FLOPs of a training step for one clip: in pre-training, with the recipe's mask, and in fine-tuning."""
    width, depth, mlp = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    tokens = config.num_tubelets

    def blocks(count: float, width: int, depth: int, mlp: int) -> float:
        return depth * (2 * count * width * (4 * width + 2 * mlp) + 4 * count * count * width)

    own = RECIPES["nano"][0] if width <= VideoMAEConfig.preset("nano").hidden_size else "pretrain-tiny"
    visible = tokens * (1 - with_recipe(PretrainSettings(Path(), Path()), own).mask.ratio)
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
    parts = [part for part in range(1, batch_size + 1) if batch_size % part == 0]
    return max((part for part in parts if cost.memory(part) <= free), default=1)


def free_memory(device: str) -> float:
    """Return the bytes that are free on the device that training takes."""
    import torch

    from videomae.tasks.predict import choose_device

    if choose_device("cpu" if device == "cpu" else None).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if hasattr(os, "sysconf") else float("inf")


def measure_speed(device: str) -> Speed:
    """Return how fast the tiny model is trained here, waiting for data left out."""
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.tasks.predict import choose_device

    config = _config(next(size for size in SIZES if size[0] == "tiny"))
    where = choose_device("cpu" if device == "cpu" else None)
    model = VideoMAEForVideoClassification(config).to(where).train()
    height, width = config.frame_size
    clips = torch.zeros(8, config.num_frames, 3, height, width, device=where)
    labels = torch.zeros(8, dtype=torch.int64, device=where)
    times = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        model(clips, labels=labels).loss.backward()
        _wait_for(where)
        times.append(time.perf_counter() - began)
    return Speed(8 * _flops(config)[1] / sorted(times)[1], overlaps=where.type != "cpu")


def measure_loading(videos: Manifest, settings: "TrainSettings") -> float:
    """Return the seconds that decoding a clip takes, on all decoding processes together."""
    from videomae.video.dataset import VideoDataset

    clips = ClipSettings(stride=settings.stride or 4.0, num_workers=settings.num_workers)
    dataset = VideoDataset(
        videos, sampling=clips.training_sampling(settings.num_frames or 16), training=True, threads=1
    )
    times = []
    for i in range(0, len(dataset), max(len(dataset) // 8, 1)):
        began = time.perf_counter()
        try:
            dataset[i]
        except VideoError:
            continue
        times.append(time.perf_counter() - began)
    return sum(times) / max(len(times), 1) / max(clips.workers(1), 1)


def measure_copies(videos: Manifest, side: int, settings: "TrainSettings") -> tuple[float, float] | None:
    """Return the seconds that it takes to make a frame of a small copy, and to read a clip of it; None where none can.

    The shortest of some videos is copied, in this process; a clip takes its time on all decoding processes together.
    """
    from videomae.tasks.prepare import Encoding, copy_file

    some = [videos.samples[i] for i in range(0, len(videos), max(len(videos) // 8, 1))]
    sample = min(some, key=lambda sample: sample.file.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        copy, began = Path(folder) / "copy.mp4", time.perf_counter()
        try:
            copy_file(sample.file, copy, Encoding(short_side=side))
            seconds = time.perf_counter() - began
            with VideoReader(copy, threads=1) as reader:
                num_frames = len(reader)
            small = dataclasses.replace(sample, file=copy)
            return seconds / num_frames, measure_loading(Manifest((small,) * 8, videos.classes, videos.root), settings)
        except VideoError:
            return None


def measure_pixels(videos: Manifest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of some videos' pixels, by channel, from 0 to 1."""
    pixels = []
    for i in np.unique(np.linspace(0, len(videos) - 1, SAMPLED_VIDEOS).round().astype(int)):
        sample = videos.samples[i]
        try:
            with VideoReader(sample.file, threads=1) as reader:
                stretch = sample.some_frames_of(reader.times)
                chosen = np.linspace(stretch.start, stretch.stop - 1, SAMPLED_FRAMES).round().astype(int)
                frames = reader.frames_at(chosen)[:, ::2, ::2].astype(np.float64) / 255
        except VideoError:
            continue
        pixels.append((frames.mean(axis=(0, 1, 2)), (frames**2).mean(axis=(0, 1, 2))))
    if not pixels:
        return (0.5,) * 3, (0.5,) * 3
    mean, square = np.mean(pixels, axis=0)
    std = np.sqrt(square - mean**2).clip(min=SMALLEST_DEVIATION)
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def _wait_for(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
