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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from videomae.config import VideoMAEConfig
from videomae.errors import CheckpointError, DataError
from videomae.evaluation import Evaluation
from videomae.files import atomic_write, write_json
from videomae.settings import with_recipe
from videomae.tasks.check import CheckReport, check
from videomae.tasks.finetune import FinetuneSettings, finetune
from videomae.tasks.pretrain import PretrainSettings, pretrain
from videomae.tasks.runs import ModelSettings, TrainingResult
from videomae.video.manifest import Manifest, Sample, read_manifest

if TYPE_CHECKING:
    import torch

PLAN_NAME = "plan.json"
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
SHARES_WITHOUT_VAL = {"train": 0.7, "test": 0.3}
PRETRAIN_SHARE, FINETUNE_SHARE = 0.6, 0.3  # of the budget; the rest is checking, evaluating and the report
MOST_EPOCHS = {"pretrain": 1600, "finetune": 100}
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
    """Frames from one of a clip to the next; None lets a clip span most of a short video, and at most 4."""

    batch_size: int | None = None
    """Videos per optimiser step; None takes 32, or fewer so that an epoch has four steps."""

    pretrain_epochs: int | None = None
    """Passes over the training videos without labels; None takes what the budget allows."""

    finetune_epochs: int | None = None
    """Passes with labels; None takes what the budget allows."""

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
    """

    model: dict[str, Any]
    stride: float
    pretrain_epochs: int
    finetune_epochs: int
    choices: tuple[Choice, ...]
    batch_size: int = BATCH
    per_device_batch: int | None = None


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: directory that ``predict`` and transformers load; None if the run was interrupted.
        report: the page.
        evaluation: on the test split; None if the run was interrupted.
        plan: what was decided.
        seconds: by stage, of this process.
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
        CheckpointError: if the directory holds another run, or cannot be written.
        ValueError: for settings that do not go together.
    """
    s = settings
    budget = parse_budget(s.budget)
    _refuse_what_would_be_ignored(s)
    _claim(s)
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        say(f"{stage} ...")
        began = time.perf_counter()
        result = work()
        seconds[stage] = time.perf_counter() - began
        return result

    report = timed("check", lambda: check(s.data, stride=s.stride or 1, clip_frames=s.num_frames or 8))
    report.write(s.out / "check")
    manifest_file = s.out / "manifest.csv"
    choices: list[Choice] = []
    if not (s.out / PLAN_NAME).exists():  # a manifest alone may be of other data: its run ended before it was planned
        split_for_training(report, seed=s.seed).to_csv(manifest_file)
    manifest = read_manifest(manifest_file)
    counts = ", ".join(f"{len(manifest.split(name))} {name}" for name in manifest.splits)
    choices.append(Choice("videos", counts, split_reason(report)))
    plan = timed("plan", lambda: _stored_plan(s, lambda: make_plan(s, manifest, report, budget, choices)))
    for choice in plan.choices:
        say(f"  {choice.what}: {choice.value} ({choice.reason})")
    first, second = run_settings(s, plan, manifest_file)
    if first is not None:
        done: TrainingResult = timed("pretrain", lambda: pretrain(first))
        if done.interrupted:
            return TrainResult(None, None, None, plan, seconds)
    done = timed("finetune", lambda: finetune(second))
    if done.model is None:
        return TrainResult(None, None, None, plan, seconds)
    model = s.out / "model"
    shutil.copytree(done.model, model, dirs_exist_ok=True, copy_function=_copy_whole)
    evaluation = timed("evaluate", lambda: _evaluate(s, plan, manifest_file, model))
    from videomae.tasks.report import write_report

    page = timed("report", lambda: write_report(s, plan, report, evaluation, seconds))
    return TrainResult(model, page, evaluation, plan, seconds)


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
    kept = tuple(sample for sample in manifest if sample.path not in report.unreadable)
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
    samples = _with_copies_grouped(samples, kept, report)
    whole = Manifest(samples, manifest.classes, manifest.root)
    split = whole.grouped_split if any(sample.group for sample in samples) else whole.stratified_split
    try:
        return split(SHARES, seed=seed)
    except DataError:  # too few to validate on as well
        return split(SHARES_WITHOUT_VAL, seed=seed)


def _with_copies_grouped(
    samples: tuple[Sample, ...], kept: tuple[Sample, ...], report: CheckReport
) -> tuple[Sample, ...]:
    """Give copies of a video one group, so that they stay on one side."""
    group_of: dict[str, str] = {}
    for finding in report.findings:
        if finding.kind in COPIES:
            for item in finding.items:
                known = next((group_of[path] for path in item.videos if path in group_of), item.videos[0])
                group_of |= dict.fromkeys(item.videos, known)
    return tuple(
        sample if sample.group or old.path not in group_of else dataclasses.replace(sample, group=group_of[old.path])
        for sample, old in zip(samples, kept, strict=True)
    )


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
    uses_pretraining = s.pretrain and s.init is None
    rate, loading = measure_speed(s.device), measure_loading(manifest.split("train"), s)

    def seconds(flops: float) -> float:
        return flops / rate + loading  # of a clip; on a CPU decoding takes its time from training

    sizes = [size for size in SIZES if s.preset in (None, size[0]) and s.image_size in (None, size[1])]
    sizes = sizes or [(s.preset or "tiny", s.image_size or 64, 8 if (s.image_size or 64) < 100 else 16, 16, 2)]
    if s.init is not None:
        model: dict[str, Any] = {}
        from videomae.models.weights import open_checkpoint

        config = open_checkpoint(s.init).resolve_config()
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
        choices.append(Choice("model", value, reason if fitting else "the smallest: the budget is short"))
    choices.append(
        Choice("speed", f"{rate / 1e9:.0f} GFLOPs per second", "measured on this machine with the tiny model")
    )
    choices.append(Choice("decoding", f"{1 / loading:.3g} clips per second", "measured on videos of the data"))
    frames = sorted(fact.num_frames for fact in report.readable)
    median = frames[len(frames) // 2]
    stride = s.stride or max(min(4.0, round(0.8 * median / config.num_frames * 4) / 4), 1.0)
    choices.append(Choice("stride", f"{stride:g}", f"half of the videos have {median} frames or fewer"))
    pretraining, finetuning = map(seconds, _flops(config))
    epochs = {}
    for stage, given, share, cost in (
        ("pretrain", s.pretrain_epochs, PRETRAIN_SHARE, pretraining),
        ("finetune", s.finetune_epochs, FINETUNE_SHARE + (0 if uses_pretraining else PRETRAIN_SHARE), finetuning),
    ):
        affordable = int(share * budget / (videos * cost))
        epochs[stage] = given or max(min(affordable, MOST_EPOCHS[stage]), 2)
        why = "given" if given else f"{share:.0%} of the budget at {1 / cost:.3g} clips per second"
        if stage == "finetune" or uses_pretraining:
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
    return TrainPlan(model, stride, first, epochs["finetune"], tuple(choices), batch, at_once)


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
        task.clips.stride, task.clips.num_workers = plan.stride, s.num_workers
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
    if s.init is None and plan.pretrain_epochs < PRETRAINED_EPOCHS:
        second.optim.layer_decay = 1.0  # what has learnt little so far must not be kept from learning
    second.run.validate_every = max(plan.finetune_epochs // 10, 1)
    return first, second


def _stored_plan(settings: TrainSettings, make: Callable[[], TrainPlan]) -> TrainPlan:
    file = settings.out / PLAN_NAME
    if not file.exists():
        plan = make()
        write_json(file, {"asked": _asked(settings), "plan": dataclasses.asdict(plan)})
        return plan
    plan = json.loads(file.read_text(encoding="utf-8"))["plan"]
    return TrainPlan(**plan | {"choices": tuple(Choice(**choice) for choice in plan["choices"])})


def _asked(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that a run must not change half-way."""
    fields = dataclasses.asdict(settings)
    for free in ("out", "json", "num_workers", "device"):
        del fields[free]
    return fields | {"data": str(Path(settings.data).resolve())}


def _refuse_what_would_be_ignored(settings: TrainSettings) -> None:
    """Raise a ValueError for settings that go nowhere, and for several processes."""
    s = settings
    sizes = ("preset", "image_size", "patch_size", "num_frames")
    given = [f"--{name.replace('_', '-')}" for name in sizes if getattr(s, name) is not None]
    if s.init is not None and given:
        raise ValueError(
            f"--init {s.init} brings its own size: leave out {', '.join(given)}, or use `videomae finetune`"
        )
    if s.pretrain_epochs is not None and (s.init is not None or not s.pretrain):
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
        old, new = json.loads(file.read_text(encoding="utf-8"))["asked"], _asked(settings)
        if changed := [f"{name} was {old.get(name)!r}, is {new[name]!r}" for name in new if old.get(name) != new[name]]:
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
