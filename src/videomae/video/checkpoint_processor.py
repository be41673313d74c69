"""The processor that belongs to a checkpoint: the one stored beside it, or one that prepares frames as in training."""

import logging
from pathlib import Path
from typing import Any

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import CheckpointError
from videomae.hub import find_file
from videomae.video.processors import VideoMAEImageProcessor

log = logging.getLogger(__name__)

FILES = ("preprocessor_config.json", "processor_config.json")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation by channel, of pixels in 0-1


def load_processor(path_or_id: str | Path, config: VideoMAEConfig, **hub_options: Any) -> VideoMAEImageProcessor:
    """Load a checkpoint's processor; the families without one were trained on ImageNet's mean and standard deviation.

    Args:
        path_or_id: of the checkpoint.
        config: of the model, for the frame size where no processor is stored.
        hub_options: as for ``fetch_file``.

    Raises:
        CheckpointError: if none is stored, and the statistics of such channels are not known.
    """
    place = Path(path_or_id)
    folder = place.parent if place.is_file() else path_or_id
    if any(find_file(folder, name, **hub_options) for name in FILES):
        return VideoMAEImageProcessor.from_pretrained(folder, **hub_options)
    if config.num_channels != 3 and config.image_mean is None:
        raise CheckpointError(
            f"{path_or_id} has no processor, and the mean and standard deviation of {config.num_channels} channels are "
            "not known. Save a VideoMAEImageProcessor beside the weights."
        )
    log.warning("%s has no processor: taking ImageNet's mean and standard deviation", path_or_id)
    return make_processor(config, (config.image_mean or IMAGENET_MEAN, config.image_std or IMAGENET_STD))


def make_processor(
    config: VideoMAEConfig, statistics: Statistics, *, squeezed: int | None = None
) -> VideoMAEImageProcessor:
    """Return a processor that prepares frames as they were for training.

    Args:
        config: of the model, for the frame size.
        statistics: to normalise with.
        squeezed: whole frames are squeezed to squares of so many pixels, of which the model sees the middle; None
            resizes them so that the model sees as much of them as it can without stretching.
    """
    height, width = config.frame_size
    size = {"shortest_edge": height} if height == width else {"height": height, "width": width}
    return VideoMAEImageProcessor(
        size=size if squeezed is None else {"height": squeezed, "width": squeezed},
        crop_size={"height": height, "width": width},
        image_mean=statistics[0],
        image_std=statistics[1],
    )
