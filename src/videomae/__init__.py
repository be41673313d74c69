"""VideoMAE: from a folder of videos to a trained, measured, exported and served video model.

The public names. Each is imported from its module when it is first used, so that importing the package costs nothing;
type checkers see them in the block below (`tests/unit/test_public_names.py` keeps both lists the same).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videomae.auto import AutoConfig as AutoConfig
    from videomae.auto import AutoImageProcessor as AutoImageProcessor
    from videomae.auto import AutoModel as AutoModel
    from videomae.auto import AutoModelForPreTraining as AutoModelForPreTraining
    from videomae.auto import AutoModelForVideoClassification as AutoModelForVideoClassification
    from videomae.auto import AutoVideoProcessor as AutoVideoProcessor
    from videomae.config import VideoMAEConfig as VideoMAEConfig
    from videomae.data.audit.check import check as check
    from videomae.data.copies import prepare as prepare
    from videomae.data.dataset import VideoDataset as VideoDataset
    from videomae.data.dataset import build_loader as build_loader
    from videomae.data.manifest import Manifest as Manifest
    from videomae.data.manifest import Sample as Sample
    from videomae.data.manifest import read_manifest as read_manifest
    from videomae.data.settings import DataSettings as DataSettings
    from videomae.errors import CheckpointError as CheckpointError
    from videomae.errors import DataError as DataError
    from videomae.errors import MissingPackageError as MissingPackageError
    from videomae.errors import VideoError as VideoError
    from videomae.errors import VideoMAEError as VideoMAEError
    from videomae.inference.classifier import VideoClassifier as VideoClassifier
    from videomae.inference.classifier import predict as predict
    from videomae.inference.convert import convert as convert
    from videomae.inference.embed import embed as embed
    from videomae.inference.embedder import FeatureKind as FeatureKind
    from videomae.inference.embedder import VideoEmbedder as VideoEmbedder
    from videomae.inference.evaluate import evaluate as evaluate
    from videomae.inference.explain import explain as explain
    from videomae.inference.feature_store import read_features as read_features
    from videomae.inference.probe import probe as probe
    from videomae.inference.protocols import Protocol as Protocol
    from videomae.inference.reconstruct import reconstruct as reconstruct
    from videomae.inference.search import search as search
    from videomae.inference.timeline import read_timeline as read_timeline
    from videomae.models.masking import frame_mask as frame_mask
    from videomae.models.masking import random_mask as random_mask
    from videomae.models.masking import running_cell_mask as running_cell_mask
    from videomae.models.masking import tube_mask as tube_mask
    from videomae.models.videomae import VideoMAEForPreTraining as VideoMAEForPreTraining
    from videomae.models.videomae import VideoMAEForVideoClassification as VideoMAEForVideoClassification
    from videomae.models.videomae import VideoMAEModel as VideoMAEModel
    from videomae.pipeline.run import train as train
    from videomae.pipeline.settings import TrainSettings as TrainSettings
    from videomae.training.distillation import DistillSettings as DistillSettings
    from videomae.training.distillation import distill as distill
    from videomae.training.finetuning import FinetuneSettings as FinetuneSettings
    from videomae.training.finetuning import finetune as finetune
    from videomae.training.pretraining import PretrainSettings as PretrainSettings
    from videomae.training.pretraining import pretrain as pretrain
    from videomae.training.settings import TrainingDataSettings as TrainingDataSettings
    from videomae.video.processors import VideoMAEImageProcessor as VideoMAEImageProcessor
    from videomae.video.processors import VideoMAEVideoProcessor as VideoMAEVideoProcessor
    from videomae.video.reader import VideoReader as VideoReader
    from videomae.video.reader import read_video_pyav as read_video_pyav
    from videomae.video.sampling import ClipSampling as ClipSampling
    from videomae.video.sampling import sample_frame_indices as sample_frame_indices

_PUBLIC = {
    "videomae.auto": (
        "AutoConfig",
        "AutoImageProcessor",
        "AutoModel",
        "AutoModelForPreTraining",
        "AutoModelForVideoClassification",
        "AutoVideoProcessor",
    ),
    "videomae.config": ("VideoMAEConfig",),
    "videomae.data.audit.check": ("check",),
    "videomae.data.copies": ("prepare",),
    "videomae.data.dataset": (
        "VideoDataset",
        "build_loader",
    ),
    "videomae.data.manifest": (
        "Manifest",
        "Sample",
        "read_manifest",
    ),
    "videomae.data.settings": ("DataSettings",),
    "videomae.errors": (
        "CheckpointError",
        "DataError",
        "MissingPackageError",
        "VideoError",
        "VideoMAEError",
    ),
    "videomae.inference.classifier": (
        "VideoClassifier",
        "predict",
    ),
    "videomae.inference.convert": ("convert",),
    "videomae.inference.embed": ("embed",),
    "videomae.inference.embedder": ("FeatureKind", "VideoEmbedder"),
    "videomae.inference.evaluate": ("evaluate",),
    "videomae.inference.explain": ("explain",),
    "videomae.inference.feature_store": ("read_features",),
    "videomae.inference.probe": ("probe",),
    "videomae.inference.protocols": ("Protocol",),
    "videomae.inference.reconstruct": ("reconstruct",),
    "videomae.inference.search": ("search",),
    "videomae.inference.timeline": ("read_timeline",),
    "videomae.models.masking": (
        "frame_mask",
        "random_mask",
        "running_cell_mask",
        "tube_mask",
    ),
    "videomae.models.videomae": (
        "VideoMAEForPreTraining",
        "VideoMAEForVideoClassification",
        "VideoMAEModel",
    ),
    "videomae.pipeline.run": ("train",),
    "videomae.pipeline.settings": ("TrainSettings",),
    "videomae.training.distillation": (
        "DistillSettings",
        "distill",
    ),
    "videomae.training.finetuning": (
        "FinetuneSettings",
        "finetune",
    ),
    "videomae.training.pretraining": (
        "PretrainSettings",
        "pretrain",
    ),
    "videomae.training.settings": ("TrainingDataSettings",),
    "videomae.video.processors": (
        "VideoMAEImageProcessor",
        "VideoMAEVideoProcessor",
    ),
    "videomae.video.reader": (
        "VideoReader",
        "read_video_pyav",
    ),
    "videomae.video.sampling": (
        "ClipSampling",
        "sample_frame_indices",
    ),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)

if not TYPE_CHECKING:  # or a misspelt name would be taken for one of these

    def __getattr__(name):
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
