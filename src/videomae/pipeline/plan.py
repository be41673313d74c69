"""What `videomae train` does within its budget: the model, its clips, and for how long each stage runs.

A larger model is taken where the budget is enough for both stages of it.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from videomae.config import VideoMAEConfig
from videomae.data.audit.check import CheckReport
from videomae.data.manifest import Manifest
from videomae.errors import DataError
from videomae.pipeline import measure
from videomae.pipeline.budget import FEWEST_EPOCHS, FINETUNE_EPOCHS, Allocation, BudgetPlanner, pretraining_needed
from videomae.pipeline.decisions import Choice, TrainPlan
from videomae.pipeline.recipes import Recipes, finetuning_rate, recipes_of
from videomae.pipeline.settings import SIZE_OPTIONS, TrainSettings
from videomae.pipeline.sizes import Size, candidate_sizes
from videomae.pipeline.small_data import plan_distillation, why_to_distill
from videomae.pipeline.split import split_reason
from videomae.video.sampling import ClipSampling

STEPS_AN_EPOCH = 4  # at least
STORED_SAMPLING = {"clip_sampling", "clip_stride", "clip_fps"}  # in config.json, where they are not the usual


class Candidate(NamedTuple):
    """A model that may be trained, and how the budget is spent with it.

    Attributes:
        size: None is that of a given checkpoint.
        config: of the model.
        recipes: that it is trained with.
        clips: that a checkpoint says it was trained on.
        allocation: of the budget.
    """

    size: Size | None
    config: VideoMAEConfig
    recipes: Recipes
    clips: ClipSampling | None
    allocation: Allocation


def make_plan(settings: TrainSettings, manifest: Manifest, report: CheckReport, budget: float) -> TrainPlan:
    """Choose model, clips and epochs that fit the videos and the budget.

    Args:
        settings: what was asked for.
        manifest: the videos with their splits.
        report: what is known of them.
        budget: seconds.
    """
    s, videos = settings, manifest.split("train")
    lengths = frame_counts(videos, report)
    counts = ", ".join(f"{len(manifest.split(name))} {name}" for name in manifest.splits)
    split = Choice("videos", counts, split_reason(report))
    if (reason := why_to_distill(s, len(videos), lengths)) is not None:
        return plan_distillation(s, manifest, budget, split, reason)
    with tempfile.TemporaryDirectory() as folder:
        planner = BudgetPlanner(s, manifest, report, budget, Path(folder))
        chosen, model_choice = _choose_model(s, planner)
    allocation = chosen.allocation
    clips, clips_choice = _choose_clips(s, chosen, lengths)
    batch, pretrain_batch, batch_choice = _choose_batch(s, chosen.recipes, len(videos))
    at_once = measure.fitting_batch(chosen.config, batch, s.device)
    choices = [
        split,
        model_choice,
        *_explain_speed(allocation),
        clips_choice,
        *_explain_epochs(s, allocation, len(videos)),
        batch_choice,
    ]
    if at_once < batch:
        choices.append(Choice("at once", str(at_once), "what fits into the memory that is free; the rest is added up"))
    learning_rate = layer_decay = mean = std = None
    if s.init is not None:
        learning_rate, layer_decay, reason = finetuning_rate(chosen.config, batch)
        decay = "" if layer_decay is None else f", layer decay {layer_decay:g}"
        choices.append(Choice("learning rate", f"{learning_rate:.3g}{decay}", reason))
    elif chosen.recipes.are_own:  # measured with such input; on quickstart's videos it made a tiny model worse
        mean, std = measure.pixel_statistics(videos)
        value = ", ".join(f"{number:.3f}" for number in (*mean, *std))
        choices.append(Choice("input", value, "mean and deviation of the videos' own pixels, by channel"))
    return TrainPlan(
        model=chosen.size._asdict() if chosen.size else {},
        clips=clips,
        pretrain_epochs=allocation.pretrain,
        finetune_epochs=allocation.finetune,
        choices=tuple(choices),
        batch_size=batch,
        pretrain_batch_size=pretrain_batch,
        per_device_batch=at_once,
        learning_rate=learning_rate,
        layer_decay=layer_decay,
        mean=mean,
        std=std,
        copy_side=allocation.copy_side,
        seconds=allocation.seconds(s, len(videos)),
    )


def frame_counts(videos: Manifest, report: CheckReport) -> list[int]:
    """Return the numbers of frames of all videos, or of their stretches, rising."""
    times = {Path(fact.file).resolve(): fact.times for fact in report.readable}
    found = ((sample, times.get(sample.file.resolve())) for sample in videos)
    return sorted(len(sample.frames_of(known)) for sample, known in found if known is not None)


# ---------------------------------------------------------------------------------------------------- the model


def _choose_model(settings: TrainSettings, planner: BudgetPlanner) -> tuple[Candidate, Choice]:
    """Return the given checkpoint, or the largest model with which both stages get what they need, or the smallest."""
    s = settings
    if s.init is not None:
        return _checkpoint(s, s.init, planner), Choice("model", s.init, "given with --init")
    sizes = candidate_sizes(**{name: getattr(s, name) for name in SIZE_OPTIONS})
    stages = "fine-tuning and pre-training" if planner.uses_pretraining else "fine-tuning"
    chosen, reason = _candidate(s, planner, sizes[0]), f"the smallest: {s.budget} are short for {stages}"
    if chosen.allocation.is_enough:
        reason = f"the largest for which {s.budget} are enough for {stages}"
        for size in sizes[1:]:
            larger = _candidate(s, planner, size)
            if not larger.allocation.is_enough:
                break
            chosen = larger
    if len(sizes) == 1:
        reason = "the only size of those that are asked for"
    size = chosen.size or sizes[0]
    value = f"{size.preset}, {size.num_frames} frames of {size.image_size} pixels in patches of {size.patch_size}"
    return chosen, Choice("model", value, reason)


def _candidate(settings: TrainSettings, planner: BudgetPlanner, size: Size) -> Candidate:
    config, recipes = size.config, _requested(recipes_of(size.preset), settings)
    return Candidate(size, config, recipes, None, planner.allocate(config, recipes))


def _checkpoint(settings: TrainSettings, init: str, planner: BudgetPlanner) -> Candidate:
    from videomae.models.weights import open_checkpoint

    checkpoint = open_checkpoint(init)
    config, recipes = checkpoint.resolve_config(), _requested(recipes_of(None), settings)
    clips = None if STORED_SAMPLING.isdisjoint(checkpoint.config) else ClipSampling.of_model(config)
    return Candidate(None, config, recipes, clips, planner.allocate(config, recipes))


def _requested(recipes: Recipes, settings: TrainSettings) -> Recipes:
    """Return the recipes with what was asked for of reading."""
    finetune, stride = recipes.finetune, settings.stride or recipes.finetune.clips.stride
    finetune = dataclasses.replace(
        finetune,
        clips=ClipSampling(stride=stride),
        loader=dataclasses.replace(finetune.loader, num_workers=settings.num_workers),
    )
    return dataclasses.replace(recipes, finetune=finetune)


# ----------------------------------------------------------------------------------------- clips, batch, reasons


def _choose_clips(settings: TrainSettings, chosen: Candidate, lengths: list[int]) -> tuple[ClipSampling, Choice]:
    """Return which frames make a clip of videos with so many frames."""
    median = lengths[len(lengths) // 2]
    if settings.stride is not None:
        clips, why = ClipSampling(stride=settings.stride), "given"
    elif chosen.clips is not None:
        clips, why = chosen.clips, "as the checkpoint was trained"
    else:
        clips = ClipSampling(stride=max(min(4.0, round(median / chosen.config.num_frames * 4) / 4), 1.0))
        why = f"half of the videos have {median} frames or fewer"
    rate = f" at {clips.fps:g} frames per second" if clips.fps else ""
    value = "one frame of each segment" if clips.method == "uniform" else f"{clips.stride:g}{rate}"
    return clips, Choice("stride", value, why)


def _choose_batch(settings: TrainSettings, recipes: Recipes, videos: int) -> tuple[int, int | None, Choice]:
    """Return the videos per step of fine-tuning, and of pre-training where that takes others."""
    given, usual = settings.batch_size, recipes.finetune.run.batch_size
    batch = given or max(min(usual, videos // STEPS_AN_EPOCH), 1)
    if videos < batch:
        raise DataError(f"{videos} training videos do not fill one batch of {batch}: take a smaller --batch-size.")
    why = "given" if given else "the usual one" if batch == usual else f"{STEPS_AN_EPOCH} steps an epoch at least"
    if not recipes.are_own or given:
        return batch, None, Choice("batch", str(batch), why)
    pretrain = min(recipes.pretrain.run.batch_size, batch)
    return batch, pretrain, Choice("batch", f"{batch}, in pre-training {pretrain}", why)


def _explain_speed(allocation: Allocation) -> Iterator[Choice]:
    """Say how fast clips are learnt from, and whether copies help."""
    rate = f"{1 / allocation.clip.finetune:.3g} clips per second, reading alone {1 / allocation.clip.reading:.3g}"
    yield Choice("fine-tuning", rate, "measured on this machine and on videos of the data")
    if allocation.copy_side is not None:
        reason = f"about {allocation.copy_seconds:.0f} s to make, and the training videos are read faster ever after"
        yield Choice("small copies", f"shorter side at most {allocation.copy_side} pixels", reason)


def _explain_epochs(settings: TrainSettings, allocation: Allocation, videos: int) -> Iterator[Choice]:
    """Say why each stage takes as long as it does."""
    s, finetune, pretrain = settings, allocation.finetune, allocation.pretrain
    if s.pretrain_epochs is not None:
        yield Choice("epochs of pretrain", str(pretrain), "given")
    elif s.uses_pretraining:
        if not pretrain:
            needed = pretraining_needed(videos)
            why = f"what fine-tuning leaves is enough for {allocation.affordable}; fewer than {needed} do not help"
        elif pretrain < allocation.affordable:
            why = f"at most {pretrain}; what fine-tuning leaves would be enough for {allocation.affordable}"
        else:
            why = f"what fine-tuning leaves, at {1 / allocation.clip.pretrain:.3g} clips per second"
        yield Choice("epochs of pretrain", str(pretrain), why)
    if s.finetune_epochs is not None:
        why = "given"
    elif finetune < allocation.wanted:
        why = f"what the budget is enough for, at {1 / allocation.clip.finetune:.3g} clips per second"
        if finetune == FEWEST_EPOCHS:
            why = f"at least {FEWEST_EPOCHS}, whatever the budget"
    elif s.init is not None:
        why = f"at most {allocation.wanted} for a checkpoint"
    elif allocation.wanted in FINETUNE_EPOCHS:
        why = f"for {videos} videos no more are taken"
    else:
        why = f"{finetune * videos:,} clips, with which a small model fits its videos"
    yield Choice("epochs of finetune", str(finetune), why)
