"""``videomae pretrain``: learn from unlabelled videos by reconstructing what is hidden."""

import sys

from videomae.settings import to_toml
from videomae.training import runs
from videomae.training.pretraining import (
    PretrainSettings,
    mask_arguments,
    mask_function,
    plan_model,
    pretrain,
    probe_videos,
    split_masks,
)


def main(settings: PretrainSettings) -> int:
    """Pre-train, or print what would be done."""
    if settings.print_config:
        sys.stdout.write(to_toml(settings))
        return 0
    if settings.dry_run:
        _dry_run(settings)
        return 0
    return runs.report_end(pretrain(settings), settings.out)


def _dry_run(settings: PretrainSettings) -> None:
    import torch

    from videomae.models.videomae import VideoMAEForPreTraining

    s = settings
    probe_videos(s.probe)
    _, config, _ = plan_model(s)
    train, _ = runs.read_splits(s.data)
    masks = mask_function(s.mask, config)(torch.Generator())[None]
    hidden, masks = mask_arguments(masks), masks.to("meta")
    pixels = torch.empty(1, config.num_frames, config.num_channels, *config.frame_size, device="meta")
    runs.print_dry_run(
        runs.plan_without_devices(s.run, s.optim, len(train)),
        run=s.run,
        optim=s.optim,
        config=config,
        model=VideoMAEForPreTraining,
        loss=lambda model: model(pixels, **(hidden | split_masks(masks))).loss,
        clips_per_video=s.loader.clips_per_video * s.loader.augmentations_per_clip,
    )
