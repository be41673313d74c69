"""Classes that choose the right class for a checkpoint, by the names that transformers gives them.

This package knows one model type, so what these add is the check: a checkpoint of another model says so.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae.config import VideoMAEConfig

if TYPE_CHECKING:
    from videomae.models.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
    from videomae.video.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor


class AutoConfig:
    """Load the configuration of a checkpoint."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> VideoMAEConfig:
        """Load a ``VideoMAEConfig``; arguments and errors are those of ``VideoMAEConfig.from_pretrained``."""
        return VideoMAEConfig.from_pretrained(path_or_id, **options)


class AutoImageProcessor:
    """Load the image processor that belongs to a checkpoint."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> "VideoMAEImageProcessor":
        """Load a ``VideoMAEImageProcessor``; arguments and errors are those of its ``from_pretrained``."""
        from videomae.video.processors import VideoMAEImageProcessor

        return VideoMAEImageProcessor.from_pretrained(path_or_id, **options)


class AutoVideoProcessor:
    """Load the video processor that belongs to a checkpoint."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> "VideoMAEVideoProcessor":
        """Load a ``VideoMAEVideoProcessor``; arguments and errors are those of its ``from_pretrained``."""
        from videomae.video.processors import VideoMAEVideoProcessor

        return VideoMAEVideoProcessor.from_pretrained(path_or_id, **options)


class AutoModel:
    """Load the encoder of a checkpoint."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> "VideoMAEModel":
        """Load a ``VideoMAEModel``; arguments and errors are those of its ``from_pretrained``."""
        from videomae.models.videomae import VideoMAEModel

        return VideoMAEModel.from_pretrained(path_or_id, **options)

    @staticmethod
    def from_config(config: VideoMAEConfig, **changes: Any) -> "VideoMAEModel":
        """Make an untrained ``VideoMAEModel``; ``changes`` override fields of the configuration."""
        from videomae.models.videomae import VideoMAEModel

        return VideoMAEModel._from_config(config, **changes)


class AutoModelForPreTraining:
    """Load a checkpoint with its decoder."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> "VideoMAEForPreTraining":
        """Load a ``VideoMAEForPreTraining``; arguments and errors are those of its ``from_pretrained``."""
        from videomae.models.videomae import VideoMAEForPreTraining

        return VideoMAEForPreTraining.from_pretrained(path_or_id, **options)

    @staticmethod
    def from_config(config: VideoMAEConfig, **changes: Any) -> "VideoMAEForPreTraining":
        """Make an untrained ``VideoMAEForPreTraining``; ``changes`` override fields of the configuration."""
        from videomae.models.videomae import VideoMAEForPreTraining

        return VideoMAEForPreTraining._from_config(config, **changes)


class AutoModelForVideoClassification:
    """Load a checkpoint with its classifier."""

    @staticmethod
    def from_pretrained(path_or_id: str | Path, **options: Any) -> "VideoMAEForVideoClassification":
        """Load a ``VideoMAEForVideoClassification``; arguments and errors are those of its ``from_pretrained``."""
        from videomae.models.videomae import VideoMAEForVideoClassification

        return VideoMAEForVideoClassification.from_pretrained(path_or_id, **options)

    @staticmethod
    def from_config(config: VideoMAEConfig, **changes: Any) -> "VideoMAEForVideoClassification":
        """Make an untrained ``VideoMAEForVideoClassification``; ``changes`` override fields of the configuration."""
        from videomae.models.videomae import VideoMAEForVideoClassification

        return VideoMAEForVideoClassification._from_config(config, **changes)
