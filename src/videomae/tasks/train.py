"""From a folder of labelled videos to a trained, measured model and a report.

The steps: check, split, pre-train, fine-tune, evaluate.

The run directory ends up with manifest.csv, check/, pretrain/, finetune/, evaluation/, model/, result.json and
report.html. The same command goes on where a run was stopped.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from videomae.config import PRESETS, VideoMAEConfig
from videomae.errors import CheckpointError, DataError
from videomae.evaluation import Evaluation
from videomae.files import atomic_write, write_json
from videomae.hub import read_json
from videomae.settings import with_recipe
from videomae.tasks.check import CheckReport, check
from videomae.tasks.finetune import FinetuneSettings, finetune
from videomae.tasks.pretrain import PretrainSettings, pretrain
from videomae.tasks.runs import ModelSettings, TrainingResult, digest
from videomae.training.metrics_log import METRICS_NAME
from videomae.training.plan import REFERENCE_BATCH
from videomae.video.manifest import Manifest, linked, read_manifest

if TYPE_CHECKING:
    import torch

PLAN_NAME, SECONDS_NAME = "plan.json", "seconds.json"
STAGES = ("check", "plan", "pretrain", "finetune", "evaluate", "report")
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
SHARES_WITHOUT_VAL = {"train": 0.7, "test": 0.3}
FEWEST_TO_VALIDATE = 5  # videos a class; of fewer, less than half a video of each would be left to validate on
PRETRAIN_SHARE, FINETUNE_SHARE = 0.6, 0.3  # of the budget; the rest is checking, evaluating and the report
MOST_EPOCHS, FEWEST_EPOCHS = {"pretrain": 1600, "finetune": 100}, 2
WANTED_EPOCHS = 60  # of pre-training, for a larger model to be worth it
BATCH, STEPS_AN_EPOCH = 32, 4
FREE_SHARE = 0.7  # of the memory that is free, for what is estimated
SHORT_RUN = 60_000  # clips; a shorter fine-tuning does not come to fit its videos: it gets hardly any augmentation
PRETRAINED_EPOCHS = 50  # from here on fine-tuning lets lower layers learn more slowly
COPIES = ("exact-duplicates", "same-frames", "near-duplicates")  # findings of check

# Preset, frame side, patch side, frames, tubelet frames; from small to large. A larger one is taken when the budget
# is enough for WANTED_EPOCHS of pre-training with it.
SIZES = (
    ("tiny", 64, 8, 8, 2),
    ("tiny", 112, 16, 16, 2),
    ("small", 112, 16, 16, 2),
    ("small", 224, 16, 16, 2),
    ("base", 224, 16, 16, 2),
)
LEARNING_RATES = {"tiny": 1e-3, "small": 5e-4, "base": 3e-4}  # at BATCH videos a step
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
LEAST = {
    "image_size": 1, "patch_size": 1, "num_frames": 1, "batch_size": 1, "pretrain_epochs": 0, "finetune_epochs": 1,
    "num_workers": 0, "fold": 1, "seed": 0,
}  # fmt: skip


@dataclasses.dataclass
class TrainSettings:
    """From a folder of labelled videos to a trained, measured model and a report, within a budget of time."""

    data: tyro.conf.Positional[Path]
    """Folder with a folder per class, CSV manifest, or official list."""

    out: Path
    """Run directory; a run that was stopped goes on there."""

    budget: str = "45m"
    """How long it may take, e.g. 90s, 45m, 8h; models, resolution and epochs are chosen to fit."""

    init: str | None = None
    """Start from a checkpoint (directory, file or id on the Hub) in place of pre-training."""

    pretrain: bool = True
    """Pre-train on the training videos before fine-tuning, unless --init is given."""

    preset: Literal["tiny", "small", "base"] | None = None
    """Size of the model; None chooses."""

    image_size: int | None = None
    """Height and width of a frame, pixels; None chooses."""

    patch_size: int | None = None
    """Height and width of a tubelet, pixels; None chooses."""

    num_frames: int | None = None
    """Frames of a clip; None chooses."""

    stride: float | None = None
    """Frames from one of a clip to the next; None takes what a checkpoint of --init tells, or else lets a clip span
    most of a short video, and at most 4."""

    batch_size: int | None = None
    """Videos per optimiser step; None takes 32, or fewer so that an epoch has four steps."""

    pretrain_epochs: int | None = None
    """Passes over the training videos without labels, 0 for no pre-training; None takes what the budget allows."""

    finetune_epochs: int | None = None
    """Passes with labels; None takes what the budget allows."""

    format: str = "auto"
    """How to read DATA: auto, folder, csv, k400, ssv2, ucf101, hmdb51 or v1."""

    videos: Path | None = None
    """Folder of the videos, where DATA is a list and they lie elsewhere."""

    fold: int = 1
    """Of the official splits of UCF101 and HMDB51: 1, 2 or 3."""

    num_workers: int | None = None
    """Processes that decode videos; None takes the processors there are, up to 8."""

    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one."""

    seed: int = 0
    """Of split, weights, data order and masks."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the result as one JSON object."""


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
        batch_size: videos per optimiser step.
        per_device_batch: those that fit into memory at once.
        sampling: "dense" or "uniform", as in `ClipSettings`.
        fps: frame rate that the stride is counted at; None counts the video's own frames.
        learning_rate: of fine-tuning a given checkpoint; None takes that of the preset.
        layer_decay: of fine-tuning a given checkpoint; None takes the recipe's.
    """

    model: dict[str, Any]
    stride: float
    pretrain_epochs: int
    finetune_epochs: int
    choices: tuple[Choice, ...]
    batch_size: int = BATCH
    per_device_batch: int | None = None
    sampling: Literal["dense", "uniform"] = "dense"
    fps: float | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: directory that ``predict`` and transformers load; None if the run was interrupted.
        report: the page.
        evaluation: on the test split; None if the run was interrupted.
        plan: what was decided.
        seconds: by stage, over all parts of the run.
    """

    model: Path | None
    report: Path | None
    evaluation: Evaluation | None
    plan: TrainPlan
    seconds: dict[str, float]


def train(settings: TrainSettings, *, say: Callable[[str], object] = lambda line: None) -> TrainResult:
    """Check, split, pre-train, fine-tune, evaluate and report; or go on with a run that was stopped.

    Videos that cannot be read are left out and listed in the report. Without a test split the videos are split by
    group, with copies of a video on one side, else by class: 70 % to train, 10 % to validate, 20 % to test.

    Args:
        settings: what to learn from, and how long.
        say: called with lines that tell what is going on.

    Raises:
        DataError: if the videos cannot be used.
        CheckpointError: if the directory holds another run or one on other videos, or cannot be written.
        ValueError: for settings that make no sense, or do not go together.
    """
    s = settings
    budget = parse_budget(s.budget)
    _refuse_what_makes_no_sense(s)
    _claim(s)
    watch = _Stopwatch(s.out)

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        say(f"{stage} ...")
        with watch.time(stage):
            return work()

    source: dict[str, Any] = {"format": s.format, "videos": s.videos, "fold": s.fold}
    report = timed("check", lambda: check(s.data, stride=s.stride or 1, clip_frames=s.num_frames or 8, **source))
    _refuse_other_videos(s, report.manifest)
    report.write(s.out / "check")
    manifest_file = s.out / "manifest.csv"
    choices: list[Choice] = []
    if not (s.out / PLAN_NAME).exists():  # a manifest alone may be of other data: its run ended before it was planned
        split = split_for_training(report, seed=s.seed)
        # Paths that are absolute already stay so in a manifest of this root: the run directory may be moved.
        dataclasses.replace(split, root=s.out.absolute()).to_csv(manifest_file)
    manifest = read_manifest(manifest_file)
    counts = ", ".join(f"{len(manifest.split(name))} {name}" for name in manifest.splits)
    choices.append(Choice("videos", counts, split_reason(report)))
    plan = timed("plan", lambda: _stored_plan(s, report, lambda: make_plan(s, manifest, report, budget, choices)))
    for choice in plan.choices:
        say(f"  {choice.what}: {choice.value} ({choice.reason})")
    first, second = run_settings(s, plan, manifest_file)
    if first is not None:
        done: TrainingResult = timed("pretrain", lambda: pretrain(first))
        if done.interrupted:
            return TrainResult(None, None, None, plan, watch.seconds)
    done = timed("finetune", lambda: finetune(second))
    if done.model is None:
        return TrainResult(None, None, None, plan, watch.seconds)
    model = s.out / "model"
    shutil.copytree(done.model, model, dirs_exist_ok=True, copy_function=_copy_whole)
    evaluation = timed("evaluate", lambda: _evaluate(s, plan, manifest_file, model))
    from videomae.tasks.report import write_report

    page = timed("report", lambda: write_report(s, plan, report, evaluation, watch.seconds))
    return TrainResult(model, page, evaluation, plan, watch.seconds)


class _Stopwatch:
    """Measures the stages, and adds up all parts of a run in seconds.json.

    A part that was killed, or ended in an error, counts up to the last line of its metrics.

    Attributes:
        seconds: by stage.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / SECONDS_NAME
        stored = read_json(self.file) if self.file.exists() else {"seconds": {}}
        self.seconds: dict[str, float] = {name: stored["seconds"][name] for name in STAGES if name in stored["seconds"]}
        if "stage" in stored and (metrics := folder / stored["stage"] / METRICS_NAME).exists():
            self._add(stored["stage"], max(metrics.stat().st_mtime - stored["began"], 0.0))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        began = time.time()
        write_json(self.file, {"seconds": self.seconds, "stage": stage, "began": began})
        yield
        self._add(stage, time.time() - began)
        write_json(self.file, {"seconds": self.seconds})

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def parse_budget(text: str) -> float:
    """Return the seconds that "90s", "45m" or "1.5h" stand for.

    Raises:
        ValueError: if it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"--budget must be a number with s, m or h, such as 45m, got {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


# ------------------------------------------------------------------------------------------------------ the data


def split_for_training(report: CheckReport, *, seed: int) -> Manifest:
    """Return the readable, labelled videos with splits "train" and "test", and "val" where it was made here.

    Raises:
        DataError: if too little is left to train and to test on.
    """
    manifest = report.manifest
    kept = report.usable
    if unlabelled := [sample.path for sample in kept if sample.label is None]:
        raise DataError(
            f"{len(unlabelled)} videos have no label, such as {unlabelled[0]!r}: put the videos into a folder per "
            "class or add a column 'label'; without labels use `videomae pretrain`"
        )
    if not kept:
        path, reason = next(iter(report.unreadable.items()))
        raise DataError(f"none of the {len(manifest)} videos can be read, such as {path!r}: {reason}")
    if len({sample.label for sample in kept}) < 2:
        raise DataError(
            f"the {len(kept)} readable videos are all of one class: put those of each class into a folder of its own, "
            "or correct the column 'label'"
        )
    # Paths stay relative to where the data lies, whatever folder the manifest is written to.
    samples = tuple(dataclasses.replace(sample, path=str(sample.file.resolve())) for sample in kept)
    if manifest.splits:
        names = set(manifest.splits)
        if not {"train", "test"} <= names:
            raise DataError(
                f"the data has the splits {', '.join(sorted(names))}: it needs 'train' and 'test', or none at all, and "
                "they are made"
            )
        if unassigned := [sample.path for sample in kept if sample.split is None]:
            raise DataError(
                f"{len(unassigned)} videos have no split, such as {unassigned[0]!r}, while others have one: fill the "
                "column 'split', or leave it out"
            )
        return Manifest(samples, manifest.classes, manifest.root)
    groups = groups_with_copies(kept, report)
    samples = tuple(dataclasses.replace(sample, group=group) for sample, group in zip(samples, groups, strict=True))
    whole = Manifest(samples, manifest.classes, manifest.root)
    split = whole.grouped_split if any(sample.group for sample in samples) else whole.stratified_split
    if len(samples) < FEWEST_TO_VALIDATE * len(manifest.classes):
        return split(SHARES_WITHOUT_VAL, seed=seed)
    try:
        return split(SHARES, seed=seed)
    except DataError:  # too few sources to validate on as well
        return split(SHARES_WITHOUT_VAL, seed=seed)


def groups_with_copies(samples: Manifest, report: CheckReport) -> list[str | None]:
    """Return a group for each sample: one for all that copies or a source connect, over however many steps.

    Where that connects several groups, they become one, with the name of the first.
    """
    items = [item for finding in report.findings if finding.kind in COPIES for item in finding.items]
    copies_of = defaultdict(list)
    for number, item in enumerate(items):
        for path in item.videos:
            copies_of[path].append(number)
    names = [[sample.file, *copies_of[sample.path], *filter(None, [sample.group])] for sample in samples]
    sources = linked(names)
    groups: dict[int, str] = {}
    for source, sample in zip(sources, samples, strict=True):
        if sample.group is not None:
            groups.setdefault(source, sample.group)
    sizes = Counter(sources)
    for source, sample in zip(sources, samples, strict=True):
        if sizes[source] > 1:
            groups.setdefault(source, sample.path)
    return [groups.get(source) for source in sources]


def split_reason(report: CheckReport) -> str:
    """Say how the split came about."""
    out = f"; {len(report.unreadable)} unreadable left out" if report.unreadable else ""
    if report.manifest.splits:
        return "the data's own split" + out
    if any(sample.group for sample in report.manifest):
        return "split by source, so that none is on two sides" + out
    return "split at random by class, copies kept on one side" + out


# ------------------------------------------------------------------------------------------------------ the plan


def make_plan(
    settings: TrainSettings, manifest: Manifest, report: CheckReport, budget: float, choices: list[Choice]
) -> TrainPlan:
    """Choose model, clips and epochs that fit the videos and the budget.

    A short training of the smallest model tells how fast this machine is; the cost of a larger one is reckoned from
    its FLOPs, which flatters small machines a little. Some videos are decoded to tell what that takes.
    """
    s, videos = settings, len(manifest.split("train"))
    uses_pretraining = s.pretrain and s.init is None and s.pretrain_epochs != 0
    rate, loading = measure_speed(s.device), measure_loading(manifest.split("train"), s)

    def seconds(flops: float) -> float:
        return flops / rate + loading  # of a clip; on a CPU decoding takes its time from training

    sizes = [size for size in SIZES if s.preset in (None, size[0]) and s.image_size in (None, size[1])]
    sizes = sizes or [(s.preset or "tiny", s.image_size or 64, 8 if (s.image_size or 64) < 100 else 16, 16, 2)]
    stored: Collection[str] = ()
    if s.init is not None:
        model: dict[str, Any] = {}
        from videomae.models.weights import open_checkpoint

        checkpoint = open_checkpoint(s.init)
        config, stored = checkpoint.resolve_config(), checkpoint.config.keys()
        choices.append(Choice("model", s.init, "given with --init"))
    else:
        fitting = [
            size
            for size in sizes
            if videos * WANTED_EPOCHS * seconds(_flops(_config(size, s))[0]) < PRETRAIN_SHARE * budget
        ]
        size = fitting[-1] if fitting else sizes[0]
        config = _config(size, s)
        model = {
            "preset": size[0], "image_size": size[1], "patch_size": config.patch_size,
            "num_frames": config.num_frames, "tubelet_size": size[4],
        }  # fmt: skip
        reason = f"the largest for which {s.budget} are enough for {WANTED_EPOCHS} epochs of pre-training"
        value = f"{size[0]}, {config.num_frames} frames of {size[1]} pixels in patches of {config.patch_size}"
        reason = reason if fitting else "the smallest: the budget is short"
        choices.append(
            Choice("model", value, "the only size of those that are asked for" if len(sizes) == 1 else reason)
        )
    choices.append(
        Choice("speed", f"{rate / 1e9:.0f} GFLOPs per second", "measured on this machine with the tiny model")
    )
    choices.append(Choice("decoding", f"{1 / loading:.3g} clips per second", "measured on videos of the data"))
    frames = sorted(fact.num_frames for fact in report.readable)
    median = frames[len(frames) // 2]
    clips: dict[str, Any] = {
        "sampling": "dense",
        "stride": s.stride or max(min(4.0, round(0.8 * median / config.num_frames * 4) / 4), 1.0),
        "fps": None,
    }
    why = "given" if s.stride else f"half of the videos have {median} frames or fewer"
    if s.stride is None and not TOLD_SAMPLING.isdisjoint(stored):
        clips = {"sampling": config.clip_sampling, "stride": config.clip_stride, "fps": config.clip_fps}
        why = "as the checkpoint was trained"
    rate_of_frames = f" at {clips['fps']:g} frames per second" if clips["fps"] else ""
    value = "one frame of each segment" if clips["sampling"] == "uniform" else f"{clips['stride']:g}{rate_of_frames}"
    choices.append(Choice("stride", value, why))
    pretraining, finetuning = map(seconds, _flops(config))
    epochs = {}
    for stage, given, share, cost in (
        ("pretrain", s.pretrain_epochs, PRETRAIN_SHARE, pretraining),
        ("finetune", s.finetune_epochs, FINETUNE_SHARE + (0 if uses_pretraining else PRETRAIN_SHARE), finetuning),
    ):
        affordable, most = int(share * budget / (videos * cost)), MOST_EPOCHS[stage]
        epochs[stage] = max(min(affordable, most), FEWEST_EPOCHS) if given is None else given
        why = f"{share:.0%} of the budget at {1 / cost:.3g} clips per second"
        if given is not None:
            why = "given"
        elif affordable < FEWEST_EPOCHS:
            why = f"at least {FEWEST_EPOCHS}, which is more than {why}"
        elif affordable > most:
            why = f"at most {most}: {why} would be enough for {affordable}"
        if stage == "finetune" or uses_pretraining or given is not None:
            choices.append(Choice(f"epochs of {stage}", str(epochs[stage]), why))
    batch = s.batch_size or max(min(BATCH, videos // STEPS_AN_EPOCH), 1)
    if videos < batch:
        raise DataError(f"{videos} training videos do not fill one batch of {batch}: take a smaller --batch-size")
    why = (
        "given" if s.batch_size else "the usual one" if batch == BATCH else f"{STEPS_AN_EPOCH} steps an epoch at least"
    )
    choices.append(Choice("batch", str(batch), why))
    first = epochs["pretrain"] if uses_pretraining else 0
    at_once = fitting_batch(config, batch, s.device)
    if at_once < batch:
        choices.append(Choice("at once", str(at_once), "what fits into the memory that is free; the rest is added up"))
    start: dict[str, Any] = {}
    if s.init is not None:
        start["learning_rate"], start["layer_decay"], choice = finetuning_rate(config, batch)
        choices.append(choice)
    return TrainPlan(
        model=model,
        pretrain_epochs=first,
        finetune_epochs=epochs["finetune"],
        choices=tuple(choices),
        batch_size=batch,
        per_device_batch=at_once,
        **clips,
        **start,
    )


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


def _config(size: tuple[str, int, int, int, int], settings: TrainSettings) -> VideoMAEConfig:
    preset, image_size, patch_size, num_frames, tubelet_size = size
    return VideoMAEConfig.preset(
        preset,
        image_size=image_size,
        patch_size=settings.patch_size or patch_size,
        num_frames=settings.num_frames or num_frames,
        tubelet_size=tubelet_size,
    )


def _flops(config: VideoMAEConfig) -> tuple[float, float]:
    """Return the FLOPs of a training step for one clip: in pre-training, with the recipe's mask, and in fine-tuning."""
    width, depth, mlp = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    tokens = config.num_tubelets

    def blocks(count: float, width: int, depth: int, mlp: int) -> float:
        return depth * (2 * count * width * (4 * width + 2 * mlp) + 4 * count * count * width)

    visible = tokens * (1 - _pretrain_recipe(PretrainSettings(Path(), Path())).mask.ratio)
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


def measure_speed(device: str) -> float:
    """Return the FLOPs per second of training the smallest model here, waiting for data left out."""
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.tasks.predict import choose_device

    config = _config(SIZES[0], TrainSettings(Path(), Path()))
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
    return 8 * _flops(config)[1] / sorted(times)[1]


def measure_loading(videos: Manifest, settings: TrainSettings) -> float:
    """Return the seconds that decoding a clip takes, on all decoding processes together."""
    from videomae.errors import VideoError
    from videomae.tasks.runs import ClipSettings
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


def _wait_for(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def _pretrain_recipe(settings: PretrainSettings) -> PretrainSettings:
    return with_recipe(settings, "pretrain-tiny")


def run_settings(
    settings: TrainSettings, plan: TrainPlan, manifest: Path
) -> tuple[PretrainSettings | None, FinetuneSettings]:
    """Return the settings of pre-training, if any, and of fine-tuning: the tiny recipes, fitted to the plan."""
    s = settings
    rate = LEARNING_RATES.get(plan.model.get("preset", "base"), 3e-4) * plan.batch_size / BATCH

    def fit_to_plan(task: Any, epochs: int) -> Any:
        task.optim.lr = rate
        task.optim.warmup_epochs = min(task.optim.warmup_epochs, epochs / 10)
        task.run.epochs, task.run.batch_size, task.run.per_device_batch = epochs, plan.batch_size, plan.per_device_batch
        task.run.seed, task.run.device, task.run.precision = s.seed, s.device, "auto"
        task.clips.sampling, task.clips.stride, task.clips.fps = plan.sampling, plan.stride, plan.fps
        task.clips.stride_jitter = task.clips.stride_jitter if plan.sampling == "dense" else 0.0
        task.clips.num_workers = s.num_workers
        return task

    first = None
    if plan.pretrain_epochs:
        first = _pretrain_recipe(PretrainSettings(data=manifest, out=s.out / "pretrain"))
        first.model = ModelSettings(**plan.model)
        first.clips.augmentations_per_clip = 1  # an epoch of the plan is one clip of each video
        first = fit_to_plan(first, plan.pretrain_epochs)
    seen = plan.finetune_epochs * sum(sample.split == "train" for sample in read_manifest(manifest))
    recipe = "finetune-short" if seen < SHORT_RUN else "finetune-tiny"
    second = with_recipe(FinetuneSettings(data=manifest, out=s.out / "finetune"), recipe)
    if first is not None:
        second.init = str(first.out / "model")
    elif s.init is not None:
        second.init = s.init
    else:
        second.model = ModelSettings(**plan.model)
    second = fit_to_plan(second, plan.finetune_epochs)
    if plan.learning_rate is not None:
        second.optim.lr = plan.learning_rate
    if plan.layer_decay is not None:
        second.optim.layer_decay = plan.layer_decay
    if s.init is None and plan.pretrain_epochs < PRETRAINED_EPOCHS:
        second.optim.layer_decay = 1.0  # what has learnt little so far must not be kept from learning
    second.run.validate_every = max(plan.finetune_epochs // 10, 1)
    return first, second


def _stored_plan(settings: TrainSettings, report: CheckReport, make: Callable[[], TrainPlan]) -> TrainPlan:
    file = settings.out / PLAN_NAME
    if not file.exists():
        plan = make()
        data = _data_of(report.manifest)
        write_json(file, {"asked": _asked(settings), "data": data, "plan": dataclasses.asdict(plan)})
        return plan
    plan = read_json(file)["plan"]
    return TrainPlan(**plan | {"choices": tuple(Choice(**choice) for choice in plan["choices"])})


def _asked(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that a run must not change half-way."""
    fields = dataclasses.asdict(settings)
    for free in ("out", "json", "num_workers", "device"):
        del fields[free]
    for name in ("data", "videos", "init"):
        if fields[name] is not None and (name != "init" or Path(fields[name]).exists()):
            fields[name] = str(Path(fields[name]).resolve())
    return fields


def _data_of(manifest: Manifest) -> dict[str, Any]:
    """Return what tells whether a run goes on with the same videos, labels, splits and groups."""
    labels = [None if video.label is None else manifest.classes[video.label] for video in manifest]
    rows = [(v.path, label, v.split, v.start, v.end, v.group) for v, label in zip(manifest, labels, strict=True)]
    return {"videos": len(manifest), "digest": digest(rows)}


def _refuse_other_videos(settings: TrainSettings, manifest: Manifest) -> None:
    """Raise a CheckpointError if the run was planned for other videos than there are now."""
    file = settings.out / PLAN_NAME
    if not file.exists():
        return
    new = _data_of(manifest)
    old = read_json(file).get("data", new)
    if old != new:
        others = ", with other names, labels, splits or groups" if old["videos"] == new["videos"] else ""
        raise CheckpointError(
            f"{settings.out} holds a run, and the data changed: {new['videos']} videos were {old['videos']}{others}; "
            "name another --out, or bring back the old data"
        )


def _refuse_what_makes_no_sense(settings: TrainSettings) -> None:
    """Raise a ValueError for numbers that make no sense, settings that go nowhere, and for several processes."""
    s = settings
    for name, least in LEAST.items():
        value = getattr(s, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if s.stride is not None and s.stride <= 0:
        raise ValueError(f"--stride must be above 0, got {s.stride:g}")
    sizes = ("preset", "image_size", "patch_size", "num_frames")
    given = [f"--{name.replace('_', '-')}" for name in sizes if getattr(s, name) is not None]
    if s.init is not None and given:
        raise ValueError(
            f"--init {s.init} brings its own size: leave out {', '.join(given)}, or use `videomae finetune`"
        )
    if s.pretrain_epochs and (s.init is not None or not s.pretrain):
        raise ValueError("--pretrain-epochs goes with neither --init nor --no-pretrain: leave out one of them")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "`videomae train` plans for the one process that it is: start it without torchrun, or run `videomae "
            "pretrain`, `finetune` and `evaluate` under torchrun"
        )


def _claim(settings: TrainSettings) -> None:
    """Refuse a directory that holds a run with other settings.

    Raises:
        CheckpointError: if it does, or cannot be written.
    """
    file = settings.out / PLAN_NAME
    if file.exists():
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        old, new = defaults | read_json(file)["asked"], _asked(settings)
        if changed := [f"{name} was {old[name]!r}, is {new[name]!r}" for name in new if old[name] != new[name]]:
            raise CheckpointError(f"{settings.out} holds another run: {'; '.join(changed)}. Name another --out")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {settings.out} ({error}): correct the rights, or name another --out"
        ) from error


def _copy_whole(source: str, target: str) -> None:
    """Copy a file so that it is there whole or not at all."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _evaluate(settings: TrainSettings, plan: TrainPlan, manifest: Path, model: Path) -> Evaluation:
    from videomae.tasks.evaluate import EvaluateSettings, run

    evaluation = run(
        EvaluateSettings(
            data=manifest,
            model=str(model),
            split="test",
            views="3x1",
            allow_missing_classes=True,
            batch_size=24,
            workers=0,
            device="cpu" if settings.device == "cpu" else None,
            out=settings.out / "evaluation",
            on_bad="wrong",
        )
    )
    write_json(settings.out / "result.json", evaluation.to_dict())
    return evaluation


def command_of(settings: TrainSettings) -> str:
    """Return the command that repeats a run."""
    import shlex

    words = ["videomae", "train", str(settings.data), "--out", str(settings.out)]
    for field in dataclasses.fields(TrainSettings):
        value = getattr(settings, field.name)
        if field.name in ("data", "out", "json") or value == field.default:
            continue
        option = field.name.replace("_", "-")
        words += [f"--no-{option}"] if value is False else [f"--{option}", str(value)]
    return shlex.join(words)


def main(settings: TrainSettings) -> int:
    """Train, and say where everything is."""
    from rich.console import Console

    from videomae.training.loop import EXIT_PREEMPTED

    notes, console = (Console(stderr=error, highlight=False, soft_wrap=True) for error in (True, False))
    result = train(settings, say=lambda line: notes.print(line, markup=False))
    if result.evaluation is None:
        notes.print("stopped by SIGTERM; the same command goes on from there")
        return EXIT_PREEMPTED
    if settings.json:
        sys.stdout.write(json.dumps(result.evaluation.to_dict(), ensure_ascii=False) + "\n")
        return 0
    low, high = result.evaluation.interval
    console.print(
        f"{result.evaluation.top1:.1%} of {result.evaluation.num_videos} test videos are right (95 % interval "
        f"{low:.1%} to {high:.1%}, chance {1 / len(result.evaluation.classes):.1%}).\nreport: {result.report}\nmodel:  "
        f"{result.model}",
        markup=False,
    )
    return 0
