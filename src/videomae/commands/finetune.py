"""``videomae finetune``: train a classifier, from a checkpoint or from random weights."""

import sys

from videomae.settings import to_toml
from videomae.training import runs
from videomae.training.finetuning import ENCODER, FinetuneSettings, balanced, finetune, labelled_splits, plan_model


def main(settings: FinetuneSettings) -> int:
    """Fine-tune, or print what would be done."""
    if settings.print_config:
        sys.stdout.write(to_toml(settings))
        return 0
    if settings.dry_run:
        _dry_run(settings)
        return 0
    return runs.report_end(finetune(settings), settings.out)


def _dry_run(settings: FinetuneSettings) -> None:
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

    s = settings
    train, _ = labelled_splits(s)
    _, config, _ = plan_model(s, train.classes)
    samples = balanced(train) if s.head.balance == "sampling" else train.samples
    pixels = torch.empty(1, config.num_frames, config.num_channels, *config.frame_size, device="meta")
    labels = torch.zeros(1, dtype=torch.int64, device="meta")
    runs.print_dry_run(
        runs.plan_without_devices(s.run, s.optim, len(samples)),
        run=s.run,
        optim=s.optim,
        config=config,
        model=VideoMAEForVideoClassification,
        loss=lambda model: model(pixels, labels).loss,
        clips_per_video=s.loader.clips_per_video * s.loader.augmentations_per_clip,
        freeze=ENCODER if s.head.train in ("linear", "attentive") else None,  # with LoRA less than this is trained
    )
