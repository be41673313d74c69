"""Measuring a model while it is trained: the centre crop of the middle clip of each video."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest
from videomae.training.experiment import Run
from videomae.training.settings import LoaderSettings
from videomae.video.checkpoint_processor import Statistics
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    View = Callable[[Tensor], Tensor]  # (T, C, H, W) uint8 to (1, T, C, H, W)


def build_eval_loader(
    settings: LoaderSettings,
    manifest: Manifest,
    config: VideoMAEConfig,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    view: "View | None" = None,
) -> "DataLoader[Any]":
    """Return a loader of one view of each video, (B, T, C, H, W) uint8 pixels: the middle clip, the centre crop.

    Videos that cannot be read are marked. Several processes share the videos out, without doubles.
    """
    from videomae.data.dataset import VideoDataset, build_loader
    from videomae.video.augment import eval_views

    size = config.frame_size[0]
    return build_loader(
        VideoDataset(
            manifest,
            sampling=ClipSampling.of_model(config),
            clip_frames=config.num_frames,
            training=False,
            transform=view or partial(eval_views, short_side=size, image_size=size, num_crops=1),
            on_bad="mark",
            backend=settings.backend,
            square_pixels=settings.square_pixels,
        ),
        batch_size=batch_size,
        num_workers=settings.workers(world_size),
        rank=rank,
        world_size=world_size,
        pin_memory=pin_memory,
    )


def build_validation(
    settings: LoaderSettings,
    val: Manifest,
    config: VideoMAEConfig,
    statistics: Statistics,
    run: Run,
    *,
    view: "View | None" = None,
) -> "Callable[[nn.Module], dict[str, float]]":
    """Return what measures top-1 accuracy and cross-entropy of a classifier.

    ``view`` is as for `build_eval_loader`. A video that cannot be read counts as wrong, and is left out of the
    cross-entropy; ``run.unreadable`` lists it.
    """
    import torch

    from videomae.video.augment import normalize

    accelerator, batch_size = run.accelerator, run.schedule.per_device_batch
    world_size = accelerator.num_processes
    loader = build_eval_loader(
        settings,
        val,
        config,
        batch_size=batch_size,
        rank=accelerator.process_index,
        world_size=world_size,
        pin_memory=accelerator.device.type == "cuda",
        view=view,
    )
    nothing = torch.zeros(1, config.num_frames, config.num_channels, *config.frame_size)
    # Sharded weights are gathered by all processes at once: each takes part as often as the one with most batches.
    rounds = math.ceil(len(val) / (batch_size * world_size))

    @torch.no_grad()
    def validate(model: "nn.Module") -> dict[str, float]:
        sums = torch.zeros(3, device=accelerator.device)  # right, cross-entropy, videos
        failed: list[tuple[str, str]] = []
        batches = iter(loader)
        for _ in range(rounds):
            batch: dict[str, Any] = next(batches, {})
            failed += batch.get("unreadable", ())
            if "pixel_values" not in batch:
                model(nothing.to(accelerator.device))
                continue
            pixels = batch["pixel_values"].to(accelerator.device, non_blocking=True)
            pixels = normalize(pixels, mean=statistics[0], std=statistics[1])
            labels = batch["label"].to(accelerator.device, non_blocking=True)
            logits = model(pixels, return_dict=False)[0].float()
            entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([(logits.argmax(-1) == labels).sum(), entropy, entropy.new_full((), len(labels))])
        run.unreadable.note(failed, "counted as wrong in validation")
        right, entropy, videos = accelerator.reduce(sums, reduction="sum").tolist()
        return {"val_top1": right / len(val), "val_loss": entropy / max(videos, 1)}

    return validate
