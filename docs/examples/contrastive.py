"""A training method of one's own: a supervised contrastive encoder (SupCon, arXiv 2004.11362), as an `Experiment`.

    python docs/examples/contrastive.py DATA --out RUN [--recipe FILE] [any setting, see --help]

Clips of one class are drawn together, clips of different classes apart. What is saved is an encoder, for
`videomae embed`, `search` and `probe`, and for `videomae finetune --init`.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae import VideoMAEModel
from videomae.data.mirroring import resolve_mirroring
from videomae.settings import parse_settings
from videomae.training.experiment import (
    Batch,
    Experiment,
    Run,
    empty_clips,
)
from videomae.training.finetuning import labelled_splits
from videomae.training.launch import launch
from videomae.training.settings import LoaderSettings, TrainingSettings
from videomae.video.augment import finetune_augmentation
from videomae.video.augment_settings import FinetuneAugmentation


@dataclasses.dataclass
class ContrastiveSettings(TrainingSettings):
    """Learn features by which clips of one class are alike."""

    TASK: ClassVar[str] = "contrastive"

    temperature: float = 0.1
    """Similarities are divided by this: less makes the nearest clips count for more."""

    augment: FinetuneAugmentation = dataclasses.field(default_factory=FinetuneAugmentation)
    loader: LoaderSettings = dataclasses.field(default_factory=lambda: LoaderSettings(augmentations_per_clip=2))


class Contrastive(Experiment):
    """Supervised contrastive learning on the mean of the encoder's tokens."""

    title = "contrastive training"
    settings: ContrastiveSettings

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__(settings)
        if settings.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {settings.temperature}. Take 0.1, say.")
        self.train, _ = labelled_splits(settings.data)
        self.samples = self.train.samples
        self.flip, self.mirroring = resolve_mirroring(settings.augment.flip, self.train.classes)
        self.config = self.resolve_config(**settings.clips.config_fields())
        self.statistics = self.resolve_statistics(self.config)

    def model_class(self) -> type[VideoMAEModel]:
        return VideoMAEModel

    def build_model(self) -> VideoMAEModel:
        if self.checkpoint is None:
            return VideoMAEModel(self.config)
        return VideoMAEModel.from_checkpoint(self.checkpoint, config=self.config)

    def transform(self) -> Callable[[Tensor], Tensor]:
        mean, std = self.statistics
        augment = dataclasses.replace(self.settings.augment, flip=self.flip)
        return finetune_augmentation(augment, mean=mean, std=std, image_size=self.config.frame_size[0])

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        features = model(batch["pixel_values"], return_dict=False)[0].mean(dim=1)  # (B, D)
        return contrastive_loss(features, batch["label"], temperature=self.settings.temperature)

    def example_loss(self, model: VideoMAEModel, num_clips: int) -> Tensor:
        return model(empty_clips(model, num_clips), return_dict=False)[0].mean()

    def describe(self, model: nn.Module, run: Run) -> list[str]:
        return [f"{len(self.train)} videos of {len(self.train.classes)} classes on {run.accelerator.device}"]


def contrastive_loss(features: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Return SupCon's loss (equation 2) over the clips that have another of their class in the batch.

    Args:
        features: (B, D).
        labels: (B,) int64.
        temperature: above 0.

    Returns:
        A scalar, float32; 0 where no class comes twice.
    """
    features = F.normalize(features.float(), dim=1)
    similar = features @ features.T / temperature  # (B, B)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_share = similar - similar.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    alike = (labels[:, None] == labels) & ~itself
    count = alike.sum(dim=1)
    per_clip = -log_share.masked_fill(~alike, 0.0).sum(dim=1) / count.clamp(min=1)
    return (per_clip * (count > 0)).sum() / (count > 0).sum().clamp(min=1)


if __name__ == "__main__":
    sys.exit(launch(parse_settings(ContrastiveSettings, sys.argv[1:], prog="contrastive.py"), Contrastive))
