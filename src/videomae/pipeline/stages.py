"""From the plan to the settings of both stages."""

import dataclasses
from pathlib import Path
from typing import TypeVar

from videomae.data.manifest import read_manifest
from videomae.pipeline.budget import pretraining_needed
from videomae.pipeline.decisions import TrainPlan
from videomae.pipeline.recipes import BATCH, Recipes, recipes_of
from videomae.pipeline.settings import TrainSettings
from videomae.settings import from_recipe
from videomae.training.finetuning import FinetuneSettings
from videomae.training.pretraining import PretrainSettings
from videomae.training.schedule import divisors
from videomae.training.settings import ModelSettings, TrainingDataSettings

# A fine-tuning of fewer clips, and of fewer epochs (from random weights, from a checkpoint), does not come to fit its
# videos: it gets hardly any augmentation.
SHORT_RUN, SHORT_EPOCHS, SHORT_INIT_EPOCHS = 60_000, 100, 20
SHORT_RECIPE = "finetune-short"

StageSettings = TypeVar("StageSettings", PretrainSettings, FinetuneSettings)


def stage_settings(
    settings: TrainSettings, plan: TrainPlan, manifest: Path
) -> tuple[PretrainSettings | None, FinetuneSettings]:
    """Return the settings of pre-training, if any, and of fine-tuning: the recipes, fitted to the plan.

    Args:
        settings: what was asked for.
        plan: what was decided.
        manifest: the videos to learn from.
    """
    recipes = recipes_of(plan.model.get("preset"))
    first = _pretraining(settings, plan, recipes, manifest) if plan.pretrain_epochs else None
    second = _finetuning(settings, plan, recipes, manifest)
    if first is not None:
        return first, dataclasses.replace(second, init=str(first.out / "model"))
    if settings.init is not None:
        return None, dataclasses.replace(second, init=settings.init)
    return None, dataclasses.replace(second, model=ModelSettings(**plan.model))


def _pretraining(settings: TrainSettings, plan: TrainPlan, recipes: Recipes, manifest: Path) -> PretrainSettings:
    recipe = recipes.pretrain
    # An epoch of the plan is one clip of each video.
    each = recipe.loader.augmentations_per_clip
    each = each if plan.pretrain_epochs % each == 0 else 1
    recipe = dataclasses.replace(
        recipe,
        data=TrainingDataSettings(manifest),
        out=settings.out / "pretrain",
        model=ModelSettings(**plan.model, norm_pix_loss=recipe.model.norm_pix_loss),
        loader=dataclasses.replace(recipe.loader, augmentations_per_clip=each),
    )
    batch = plan.pretrain_batch_size or plan.batch_size
    return _fitted(recipe, settings, plan, recipes, epochs=plan.pretrain_epochs // each, batch=batch)


def _finetuning(settings: TrainSettings, plan: TrainPlan, recipes: Recipes, manifest: Path) -> FinetuneSettings:
    epochs, videos = plan.finetune_epochs, sum(sample.split == "train" for sample in read_manifest(manifest))
    is_short = epochs * videos < SHORT_RUN and epochs < (SHORT_EPOCHS if settings.init is None else SHORT_INIT_EPOCHS)
    recipe = dataclasses.replace(
        from_recipe(FinetuneSettings, SHORT_RECIPE) if is_short else recipes.finetune,
        data=TrainingDataSettings(manifest),
        out=settings.out / "finetune",
    )
    fitted = _fitted(recipe, settings, plan, recipes, epochs=epochs, batch=plan.batch_size)
    lr, layer_decay = plan.learning_rate, plan.layer_decay
    if settings.init is None and plan.pretrain_epochs < pretraining_needed(videos):
        layer_decay = 1.0  # what has learnt little so far must not be kept from learning
    optim = dataclasses.replace(
        fitted.optim,
        lr=fitted.optim.lr if lr is None else lr,
        layer_decay=fitted.optim.layer_decay if layer_decay is None else layer_decay,
    )
    run = dataclasses.replace(fitted.run, validate_every=max(epochs // 10, 1))
    return dataclasses.replace(fitted, optim=optim, run=run)


def _fitted(
    recipe: StageSettings, settings: TrainSettings, plan: TrainPlan, recipes: Recipes, *, epochs: int, batch: int
) -> StageSettings:
    """Return the settings with what the plan says of both stages."""
    s = settings
    if recipes.learning_rate is not None:
        lr = recipes.learning_rate * batch / BATCH
    else:  # Adam's steps are as long whatever the batch, so the rate grows with the root of what it averages over
        lr = recipe.optim.lr * (batch / recipe.run.batch_size) ** 0.5
    at_once = max(part for part in divisors(batch) if part <= (plan.per_device_batch or batch))
    jitter = recipe.clips.jitter if plan.clips.method == "dense" else 0.0
    seconds = plan.seconds.get(recipe.TASK)
    return dataclasses.replace(
        recipe,
        clips=dataclasses.replace(plan.clips, jitter=jitter),
        loader=dataclasses.replace(recipe.loader, num_workers=s.num_workers),
        augment=dataclasses.replace(recipe.augment, mean=plan.mean, std=plan.std),
        optim=dataclasses.replace(recipe.optim, lr=lr, warmup_epochs=min(recipe.optim.warmup_epochs, epochs / 10)),
        run=dataclasses.replace(
            recipe.run,
            epochs=epochs,
            steps=None,
            budget=None if seconds is None else f"{max(seconds, 1):.1f}s",
            batch_size=batch,
            per_device_batch=at_once,
            seed=s.seed,
            device=s.device,
            precision="auto",
        ),
    )
