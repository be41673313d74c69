"""Small data: a model learns from random weights and from a small teacher, see `videomae.training.distillation`.

What it takes: few videos that are short, so that a clip shows a whole one. Then it is the best start that was measured;
docs/small-data.md has the numbers.
"""

import dataclasses
from pathlib import Path

from videomae.data.manifest import Manifest
from videomae.pipeline import measure
from videomae.pipeline.decisions import Choice, TrainPlan
from videomae.pipeline.settings import TrainSettings
from videomae.settings import from_recipe
from videomae.training.distillation import DistillSettings
from videomae.training.settings import TrainingDataSettings

RECIPE = "distill-small-data"
MOST_VIDEOS = 5000  # whose frames fit into memory
MOST_FRAMES = 600  # of half of the videos: 16 frames tell what is done in a longer one no more
MOST_STEPS = 16_000
TRAINING_FRACTION = 0.95  # of the budget that reading videos leaves
READINGS = 2.5  # of each video beside training: to test, and for what simple means give


def why_to_distill(settings: TrainSettings, videos: int, lengths: list[int]) -> str | None:
    """Return why a teacher is used, or None where none is.

    Args:
        settings: what was asked for.
        videos: to train on.
        lengths: their numbers of frames, rising.
    """
    median = lengths[len(lengths) // 2]
    if settings.method == "distill":
        return "given"
    if settings.method != "auto" or settings.init is not None or settings.asks_for_stages:
        return None
    if videos > MOST_VIDEOS or median > MOST_FRAMES:
        return None
    return f"{videos} videos, half of them of {median} frames or fewer: the best start for few and short ones"


def plan_distillation(
    settings: TrainSettings, manifest: Manifest, budget: float, split: Choice, reason: str
) -> TrainPlan:
    """Return the plan for ``budget`` seconds; arguments as for `make_plan`, with the first choice, and the reason."""
    recipe, videos = from_recipe(DistillSettings, RECIPE), manifest.split("train")
    batch = settings.batch_size or max(min(recipe.run.batch_size, len(videos)), 1)
    reading = measure.whole_video_seconds(videos, side=recipe.model.image_size or 64)
    left = max(TRAINING_FRACTION * (budget - READINGS * len(manifest) * reading), 1.0)
    size = (
        f"{recipe.model.num_frames} frames of {recipe.model.image_size} pixels in patches of {recipe.model.patch_size}"
    )
    most = max(MOST_STEPS * batch // len(videos), 1)
    return TrainPlan(
        model={},
        clips=recipe.clips,
        pretrain_epochs=0,
        finetune_epochs=0,
        choices=(
            split,
            Choice("method", "a convolutional teacher, then a transformer that learns from it", reason),
            Choice("model", f"{recipe.model.num_hidden_layers} x {recipe.model.hidden_size}, {size}", "as measured"),
            Choice("clips", "grey, spread over the whole video", "what was done shows in all of a short video"),
            Choice("time", f"{left:.0f} s", f"what reading leaves, at {reading:.3g} s a video; {most} epochs at most"),
        ),
        batch_size=batch,
        distill_epochs=most,
        seconds={"distill": left},
    )


def distillation_settings(settings: TrainSettings, plan: TrainPlan, manifest: Path) -> DistillSettings:
    """Return the recipe, fitted to the plan.

    Args:
        settings: what was asked for.
        plan: what was decided.
        manifest: the videos to learn from.
    """
    recipe = from_recipe(DistillSettings, RECIPE)
    warmup = recipe.optim.warmup_epochs / recipe.run.epochs
    return dataclasses.replace(
        recipe,
        data=TrainingDataSettings(manifest),
        out=settings.out / "distill",
        optim=dataclasses.replace(recipe.optim, warmup_epochs=warmup * plan.distill_epochs),
        run=dataclasses.replace(
            recipe.run,
            epochs=plan.distill_epochs,
            budget=f"{plan.seconds['distill']:.1f}s",
            batch_size=plan.batch_size,
            seed=settings.seed,
            device=settings.device,
            precision="auto",
        ),
    )
