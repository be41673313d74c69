"""Classes that choose the right class for a checkpoint, by the names that transformers gives them.

This package knows one model type, so what these add is the check: a checkpoint of another model says so.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from videomae.config import VideoMAEConfig

if TYPE_CHECKING:  # named in the brackets below
    from videomae.models.videomae import (  # noqa: F401
        VideoMAEForPreTraining,
        VideoMAEForVideoClassification,
        VideoMAEModel,
    )
    from videomae.video.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor  # noqa: F401

Loaded = TypeVar("Loaded")


class _Auto(Generic[Loaded]):
    """Loads what belongs to a checkpoint.

    Attributes:
        chosen: module and name of the class of what is loaded; imported where it is needed.
    """

    chosen: ClassVar[tuple[str, str]]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Loaded:
        """Load it; arguments and errors are those of the ``from_pretrained`` of its own class."""
        return cls._class().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def _class(cls) -> Any:
        module, name = cls.chosen
        return getattr(import_module(module), name)


class _AutoModel(_Auto[Loaded]):
    @classmethod
    def from_config(cls, config: VideoMAEConfig, **changes: Any) -> Loaded:
        """Make an untrained model; ``changes`` override fields of the configuration."""
        return cls._class()._from_config(config, **changes)


class AutoConfig(_Auto[VideoMAEConfig]):
    """Load the configuration of a checkpoint, a ``VideoMAEConfig``."""

    chosen = ("videomae.config", "VideoMAEConfig")


class AutoImageProcessor(_Auto["VideoMAEImageProcessor"]):
    """Load the image processor that belongs to a checkpoint, a ``VideoMAEImageProcessor``."""

    chosen = ("videomae.video.processors", "VideoMAEImageProcessor")


class AutoVideoProcessor(_Auto["VideoMAEVideoProcessor"]):
    """Load the video processor that belongs to a checkpoint, a ``VideoMAEVideoProcessor``."""

    chosen = ("videomae.video.processors", "VideoMAEVideoProcessor")


class AutoModel(_AutoModel["VideoMAEModel"]):
    """Load the encoder of a checkpoint, a ``VideoMAEModel``."""

    chosen = ("videomae.models.videomae", "VideoMAEModel")


class AutoModelForPreTraining(_AutoModel["VideoMAEForPreTraining"]):
    """Load a checkpoint with its decoder, a ``VideoMAEForPreTraining``."""

    chosen = ("videomae.models.videomae", "VideoMAEForPreTraining")


class AutoModelForVideoClassification(_AutoModel["VideoMAEForVideoClassification"]):
    """Load a checkpoint with its classifier, a ``VideoMAEForVideoClassification``."""

    chosen = ("videomae.models.videomae", "VideoMAEForVideoClassification")
