"""Convert a checkpoint between families."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from videomae.errors import CheckpointError
from videomae.hub import split_hub_options


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What ``convert`` did.

    Attributes:
        source: the checkpoint that was read.
        destination: what was written.
        family: title of the family that was found.
        task: "encoder", "pretraining" or "classification".
        tensors: number of tensors, by part of the model; all of them were matched.
        parameters: number of values in them.
        settings: the sizes that were found, as fields of ``VideoMAEConfig``.
    """

    source: str
    destination: str
    family: str
    task: str
    tensors: dict[str, int]
    parameters: int
    settings: dict[str, Any]


def convert(
    source: str | Path, destination: str | Path, *, to: Literal["hf", "v1"] = "hf", **options: Any
) -> Conversion:
    """Write a checkpoint of any family as another one; every tensor is matched, or it is an error.

    Args:
        source: a directory, a weights file or the id of a model on the Hugging Face Hub.
        destination: for "hf" a directory, for "v1" a .pth file; must not exist yet.
        to: family to write: "hf" (loads here and in transformers) or "v1" (for the scripts of VideoMAE v1 and v2).
        options: as for ``from_pretrained``: what the weights do not say, such as ``image_size`` and ``num_frames``,
            and what to fetch.

    Returns:
        What was matched.

    Raises:
        CheckpointError: if the source cannot be read, does not fit, or the destination exists.
    """
    if Path(destination).exists():
        raise CheckpointError(f"{destination} exists already: name another destination.")
    from videomae.models.videomae import MODELS
    from videomae.models.weight_names import FAMILIES
    from videomae.models.weights import open_checkpoint
    from videomae.video.checkpoint_processor import load_processor

    hub_options, overrides = split_hub_options(options)
    checkpoint = open_checkpoint(source, **hub_options)
    model = MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype="auto", **overrides)
    processor = load_processor(source, model.config, **hub_options) if to == "hf" else None
    try:
        model.save_pretrained(destination, family=to)
        if processor is not None:
            processor.save_pretrained(destination)
    except BaseException:  # half a model would be in the way of the next try
        shutil.rmtree(destination, ignore_errors=True)
        raise
    return Conversion(
        source=str(source),
        destination=str(destination),
        family=FAMILIES[checkpoint.family].title,
        task=checkpoint.task,
        tensors=dict(Counter(_part(name) for name in checkpoint.tensors)),
        parameters=model.num_parameters(),
        settings={name: getattr(model.config, name) for name in _REPORTED},
    )


_REPORTED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_frames",
    "image_size",
    "patch_size",
    "num_labels",
)


def _part(name: str) -> str:
    """Return the part of the model that a tensor belongs to: "videomae.blocks", "decoder.norm", "classifier" ..."""
    return ".".join(name.split(".")[:-1][:2]) or name
