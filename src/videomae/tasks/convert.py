"""Convert a checkpoint between families."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import tyro

from videomae.errors import CheckpointError
from videomae.hub import split_hub_options


@dataclasses.dataclass
class ConvertSettings:
    """Write a checkpoint of any family as another one, and report what was matched."""

    source: tyro.conf.Positional[str]
    """Directory, weights file (.pth, .bin, .safetensors), or id on the Hugging Face Hub."""

    destination: tyro.conf.Positional[Path]
    """For hf a directory, for v1 a .pth file; must not exist yet."""

    to: Literal["hf", "v1"] = "hf"
    """Family to write: hf loads here and in transformers, v1 in the scripts of VideoMAE v1 and v2."""

    num_frames: int | None = None
    """Frames of a clip, where the checkpoint does not tell and it is not 16."""

    image_size: tuple[int, ...] | None = None
    """Height and width of a frame (or one number), where the checkpoint does not tell and it is not 224."""

    num_attention_heads: int | None = None
    """Heads of the encoder, where the checkpoint does not tell and it is none of the published sizes."""

    decoder_num_attention_heads: int | None = None
    """Heads of the decoder, likewise."""


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
        options: as for ``from_pretrained``: what the weights do not tell, such as ``image_size`` and ``num_frames``,
            and what to fetch.

    Returns:
        What was matched.

    Raises:
        CheckpointError: if the source cannot be read, does not fit, or the destination exists.
    """
    if Path(destination).exists():
        raise CheckpointError(f"{destination} exists already: name a new place")
    from videomae.models.videomae import MODELS
    from videomae.models.weights import FAMILIES, open_checkpoint
    from videomae.tasks.predict import load_processor

    hub_options, overrides = split_hub_options(options)
    checkpoint = open_checkpoint(source, **hub_options)
    model = MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype="auto", **overrides)
    model.save_pretrained(destination, family=to)
    if to == "hf":
        load_processor(source, model.config, **hub_options).save_pretrained(destination)
    return Conversion(
        source=str(source),
        destination=str(destination),
        family=FAMILIES[checkpoint.family].title,
        task=checkpoint.task,
        tensors=dict(Counter(_part(name) for name in checkpoint.tensors)),
        parameters=model.num_parameters(),
        settings={name: getattr(model.config, name) for name in _REPORTED},
    )


def main(settings: ConvertSettings) -> int:
    """Convert and print the report."""
    from rich.console import Console

    overrides = dataclasses.asdict(settings)
    source, destination, to = (overrides.pop(name) for name in ("source", "destination", "to"))
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if len(overrides.get("image_size", ())) == 1:
        overrides["image_size"] = overrides["image_size"][0]
    done = convert(source, destination, to=to, **overrides)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{done.source}: {done.family}, {done.task}, {done.parameters / 1e6:.2f} M parameters", markup=False)
    for part, number in done.tensors.items():
        console.print(f"  {part}: {number} tensors, all matched", markup=False)
    console.print("  " + ", ".join(f"{name}={value}" for name, value in done.settings.items()), markup=False)
    console.print(f"written: {done.destination}", markup=False)
    return 0


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
