"""How training clips are varied: the settings of `videomae.video.augment`, which need no PyTorch."""

from dataclasses import dataclass


@dataclass
class PretrainAugmentation:
    """How clips are cropped, mirrored and normalised in pre-training (VideoMAE, appendix; v1: no flip)."""

    scales: tuple[float, ...] = (1, 0.875, 0.75, 0.66)
    """Crop sizes as fractions of the short side."""

    flip: float = 0.0
    """Probability of mirroring left and right."""

    mean: tuple[float, ...] | None = None
    """Of each channel, in pixels scaled to 0-1; None is the checkpoint's own, or ImageNet's."""

    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""


@dataclass
class DistillAugmentation:
    """How clips are varied mildly, for a model that hardly fits its videos: one draw for all frames of a clip."""

    zoom: float = 0.15
    """The crop is up to e^zoom times larger or smaller than that of a test."""

    stretch: float = 0.1
    """Its height and width are stretched against each other by up to e^stretch each."""

    turn: float = 8.0
    """It is turned by up to so many degrees."""

    shift: float = 0.07
    """It is shifted by up to this fraction of the frame."""

    contrast: float = 0.3
    """The contrast is changed by up to this fraction."""

    flip: float | None = None
    """Probability of mirroring left and right, and with it the labels of classes such as ``Swiping_Left``; None is 0.5,
    or 0 where a class names a side and none the other."""

    label_smoothing: float = 0.1
    """Fraction of each label that the loss spreads over all classes."""

    mean: tuple[float, ...] | None = None
    """Of each channel, in pixels scaled to 0-1; None is that of the training videos."""

    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""


@dataclass
class FinetuneAugmentation:
    """How clips are varied in fine-tuning, and mixed in pairs (v1)."""

    randaugment_ops: int = 4
    """RandAugment operations per clip; 0 is off."""

    randaugment_magnitude: float = 7.0
    """Their mean strength, 0 to 10."""

    randaugment_std: float = 0.5
    """Standard deviation of the strength."""

    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation; 0 is off."""

    max_short_side: int = 320
    """Larger frames are shrunk to this short side first, pixels. The published data was 320 or smaller."""

    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest fraction of the frame that a crop covers."""

    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest crop, width / height."""

    flip: float | None = None
    """Probability of mirroring left and right, and with it the labels of classes such as ``Swiping_Left``; None is 0.5,
    or 0 where a class names a side and none the other."""

    erasing: float = 0.25
    """Probability of replacing a rectangle by noise."""

    mixup: float = 0.8
    """Parameter of the Beta distribution of mixup's weights; 0 is off."""

    cutmix: float = 1.0
    """Likewise for cutmix's area; 0 is off."""

    switch: float = 0.5
    """Probability of cutmix where both are on."""

    label_smoothing: float = 0.1
    """Fraction of each label that the loss spreads over all classes."""

    mean: tuple[float, ...] | None = None
    """Of each channel, in pixels scaled to 0-1; None is the checkpoint's own, or ImageNet's."""

    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""
