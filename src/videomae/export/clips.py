"""The clips that an export is calibrated and verified with: the user's, or made ones.

B clips · T frames · H height and W width in pixels · C channels
"""

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest, Sample
from videomae.errors import DataError, VideoError
from videomae.inference.engines.base import ModelCard
from videomae.inference.evaluate import match_classes
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import MOTIONS, motion_video

log = logging.getLogger(__name__)
MADE_CLIPS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Clips as an exported model takes them.

    Attributes:
        frames: (B, T, H, W, C) uint8.
        labels: (B,) int64, numbered as the model does; None where they are not known.
        source: where they are from.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    source: str


def made_clips(card: ModelCard) -> Clips:
    """Make a few clips of things that move, for a model that is given none."""
    height, width = card.frame_size
    rng = np.random.default_rng(0)
    videos = (
        motion_video(motion, rng=rng, num_frames=card.config.num_frames, size=max(height, width))
        for motion in spread(tuple(MOTIONS), MADE_CLIPS)
    )
    frames = np.stack([video[:, :height, :width] for video in videos])
    channels = np.resize(np.arange(3), card.config.num_channels)
    return Clips(np.ascontiguousarray(frames[..., channels]), None, f"{len(frames)} made clips")


def read_samples(videos: Manifest, card: ModelCard, count: int) -> Clips:
    """Read the middle clips of up to ``count`` videos, spread over the list; those that cannot be read are left out.

    Args:
        videos: with labels, or without.
        card: of the exported model: how clips are chosen, and of which size they are.
        count: how many.

    Raises:
        DataError: if none can be read, or the labels are not those of the model.
    """
    labelled = card.task == "classification" and all(sample.label is not None for sample in videos)
    videos = match_classes(videos, card.config, allow_missing=True) if labelled else videos
    found = [
        (sample, frames) for sample in spread(videos.samples, count) if (frames := _read(sample, card)) is not None
    ]
    if not found:
        raise DataError(f"none of the {len(videos)} videos can be read: run `videomae check` on them.")
    labels = np.array([sample.label for sample, _ in found], np.int64) if labelled else None
    return Clips(np.stack([frames for _, frames in found]), labels, f"{len(found)} clips of {videos.root}")


def split(clips: Clips, verified: int) -> tuple[Clips, Clips]:
    """Return clips to calibrate with and others to verify with; where there are too few, all are both."""
    if len(clips.frames) < 2 * verified:
        return clips, clips
    held_out = np.zeros(len(clips.frames), bool)
    held_out[spread(range(len(held_out)), verified)] = True
    return _take(clips, ~held_out), _take(clips, held_out)


def _take(clips: Clips, chosen: NDArray[np.bool_]) -> Clips:
    labels = None if clips.labels is None else clips.labels[chosen]
    return Clips(clips.frames[chosen], labels, f"{int(chosen.sum())} of {clips.source}")


def _read(sample: Sample, card: ModelCard) -> NDArray[np.uint8] | None:
    config = card.config

    def middle_clip(reader: VideoReader) -> NDArray[np.uint8]:
        stretch = sample.some_frames_of(reader.times)
        chosen = ClipSampling.of_model(config)(len(stretch), video_fps=reader.fps, clip_frames=config.num_frames)[0]
        shrink = None if card.source_size else card.processor.shrink_eight_bit
        return reader.frames_at(stretch.start + chosen, shrink=shrink)

    try:
        frames, _ = sample.read(middle_clip)
    except VideoError as error:
        log.warning("left out: %s", error)
        return None
    if card.source_size is None:
        return card.processor.eight_bit(frames)
    if frames.shape[1:3] != card.source_size:
        log.warning("left out: %s has frames of %d x %d, not of the given size", sample.file, *frames.shape[1:3])
        return None
    return frames
