"""The settings that both stages of training start from, by the preset of the model."""

import dataclasses
from typing import NamedTuple

from videomae.config import PRESETS, VideoMAEConfig
from videomae.settings import from_recipe
from videomae.training.finetuning import FinetuneSettings
from videomae.training.pretraining import PretrainSettings
from videomae.training.schedule import REFERENCE_BATCH

OWN = {"nano": ("pretrain-small-data", "finetune-small-data")}
# Presets without recipes of their own take those of tiny, at these learning rates for BATCH videos a step.
USUAL = ("pretrain-tiny", "finetune-tiny")
LEARNING_RATES = {"nano": 1.4e-3, "tiny": 1e-3, "small": 5e-4, "base": 3e-4}
BATCH = 32
# Of fine-tuning checkpoints that were pre-trained at scale, at REFERENCE_BATCH videos a step, and the layer decay: v1
# on Kinetics-400; giant V2 on UCF101.
PUBLISHED_RATES = {
    "small": (5e-4, 0.75),
    "base": (5e-4, 0.75),
    "large": (2e-3, 0.75),
    "huge": (1e-3, 0.75),
    "giant": (1e-3, 0.9),
}


@dataclasses.dataclass(frozen=True)
class Recipes:
    """What a model is trained with before a plan is made; shared, so never written to.

    Attributes:
        pretrain: of the first stage.
        finetune: of the second.
        learning_rate: of both, at BATCH videos a step; None where the recipes are made for this preset.
    """

    pretrain: PretrainSettings
    finetune: FinetuneSettings
    learning_rate: float | None

    @property
    def are_own(self) -> bool:
        """Whether they are made for this preset."""
        return self.learning_rate is None


def recipes_of(preset: str | None) -> Recipes:
    """Return the recipes for a preset; None stands for a checkpoint."""
    pretrain, finetune = OWN.get(preset or "", USUAL)
    recipes = Recipes(
        from_recipe(PretrainSettings, pretrain),
        from_recipe(FinetuneSettings, finetune),
        None if preset in OWN else LEARNING_RATES[preset or "base"],
    )
    if not recipes.are_own:
        recipes.pretrain.loader.augmentations_per_clip = 1
    return recipes


class FinetuningRate(NamedTuple):
    """The learning rate of fine-tuning a given checkpoint, its layer decay (None: the recipe's), and why."""

    lr: float
    layer_decay: float | None
    reason: str


def finetuning_rate(config: VideoMAEConfig, batch_size: int) -> FinetuningRate:
    """Return the learning rate to fine-tune a given checkpoint with."""
    preset = min(PRESETS, key=lambda name: abs(VideoMAEConfig.preset(name).hidden_size - config.hidden_size))
    if preset not in PUBLISHED_RATES:
        usual = LEARNING_RATES[preset]
        reason = f"this project's for {preset} models: {usual:g} at {BATCH} videos a step"
        return FinetuningRate(usual * batch_size / BATCH, None, reason)
    published, decay = PUBLISHED_RATES[preset]
    reason = f"as published for {preset} models pre-trained at scale: {published:g} at {REFERENCE_BATCH} videos a step"
    return FinetuningRate(published * batch_size / REFERENCE_BATCH, decay, reason)
