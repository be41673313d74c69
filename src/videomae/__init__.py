"""VideoMAE: from a folder of videos to a trained, measured, exported and served video model.

The public names; each is imported from its module when it is first used.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "videomae.config": ("VideoMAEConfig",),
    "videomae.errors": ("CheckpointError", "DataError", "VideoError", "VideoMAEError"),
    "videomae.auto": (
        "AutoConfig",
        "AutoImageProcessor",
        "AutoModel",
        "AutoModelForPreTraining",
        "AutoModelForVideoClassification",
        "AutoVideoProcessor",
    ),
    "videomae.models.masking": ("frame_mask", "random_mask", "running_cell_mask", "tube_mask"),
    "videomae.models.videomae": ("VideoMAEForPreTraining", "VideoMAEForVideoClassification", "VideoMAEModel"),
    "videomae.data.audit.check": ("check",),
    "videomae.inference.convert": ("convert",),
    "videomae.inference.evaluate": ("evaluate",),
    "videomae.inference.classifier": ("VideoClassifier",),
    "videomae.video.processors": ("VideoMAEImageProcessor", "VideoMAEVideoProcessor"),
    "videomae.video.reader": ("VideoReader", "read_video_pyav"),
    "videomae.video.sampling": ("sample_frame_indices",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("videomae")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'videomae' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
