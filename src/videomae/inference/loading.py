"""A checkpoint and the processor that belongs to it, opened together."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from videomae.errors import CheckpointError
from videomae.hub import split_hub_options
from videomae.inference.devices import choose_device
from videomae.video.checkpoint_processor import load_processor
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch

    from videomae.models.pretrained import PretrainedModel
    from videomae.models.weights import Checkpoint

DEFAULT_MODEL = "MCG-NJU/videomae-base-finetuned-kinetics"

# What to say where a checkpoint lacks the part of the model that a task needs.
_ADVICE = {
    "classification": f"it has no classifier: fine-tune it first, or use another, such as {DEFAULT_MODEL}",
    "pretraining": "without a decoder, it cannot reconstruct: name the pre-trained model that it was made from",
}

Model = TypeVar("Model", bound="PretrainedModel")


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel(Generic[Model]):
    """A model, ready to be asked.

    Attributes:
        model: in evaluation mode, on its device.
        processor: turns frames into its input.
        checkpoint: what both were made from.
    """

    model: Model
    processor: VideoMAEImageProcessor
    checkpoint: "Checkpoint"


def open_model(
    path_or_id: str | Path,
    model_class: type[Model],
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    processor: VideoMAEImageProcessor | None = None,
    **options: Any,
) -> LoadedModel[Model]:
    """Open a checkpoint of any family with its processor.

    Args:
        path_or_id: a directory, a weights file, or the id of a model on the Hugging Face Hub.
        model_class: such as ``VideoMAEModel``; ``PretrainedModel``, the base of all, is what the checkpoint is for.
        device: where to run; None takes a GPU if there is one.
        dtype: of the parameters, e.g. "bfloat16", or "auto" for the stored one; None is float32.
        processor: in place of the checkpoint's own.
        options: as for ``from_pretrained`` of the model.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or lacks the model's classifier or decoder.
        ValueError: if the device is not available.
    """
    from videomae.models.pretrained import PretrainedModel
    from videomae.models.videomae import MODELS
    from videomae.models.weights import open_checkpoint

    hub_options, overrides = split_hub_options(options)
    checkpoint = open_checkpoint(path_or_id, **hub_options)
    wanted: Any = MODELS[checkpoint.task] if model_class is PretrainedModel else model_class
    lacks_part = checkpoint.task != wanted.task or (
        wanted.task == "classification" and "classifier.weight" not in checkpoint.tensors
    )
    if wanted.task in _ADVICE and lacks_part:
        raise CheckpointError(f"{path_or_id} is a checkpoint for {checkpoint.task}, {_ADVICE[wanted.task]}.")
    model = wanted.from_checkpoint(checkpoint, dtype=dtype, **overrides).to(choose_device(device))
    return LoadedModel(model, processor or load_processor(path_or_id, model.config, **hub_options), checkpoint)
