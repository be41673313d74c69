"""``videomae convert``: write a checkpoint of one family as another."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from videomae.console import output, working
from videomae.inference.convert import convert


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
    """Frames of a clip, where the checkpoint does not say and it is not 16."""

    image_size: tuple[int, ...] | None = None
    """Height and width of a frame (or one number), where the checkpoint does not say and it is not 224."""

    num_attention_heads: int | None = None
    """Heads of the encoder, where the checkpoint does not say and it is none of the published sizes."""

    decoder_num_attention_heads: int | None = None
    """Heads of the decoder, likewise."""


def main(settings: ConvertSettings) -> int:
    """Convert and print the report."""
    overrides = dataclasses.asdict(settings)
    source, destination, to = (overrides.pop(name) for name in ("source", "destination", "to"))
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if len(overrides.get("image_size", ())) == 1:
        overrides["image_size"] = overrides["image_size"][0]
    with working("converting"):
        done = convert(source, destination, to=to, **overrides)
    console = output()
    console.print(f"{done.source}: {done.family}, {done.task}, {done.parameters / 1e6:.2f} M parameters", markup=False)
    for part, number in done.tensors.items():
        console.print(f"  {part}: {number} tensors, all matched", markup=False)
    console.print("  " + ", ".join(f"{name}={value}" for name, value in done.settings.items()), markup=False)
    console.print(f"written: {done.destination}", markup=False)
    return 0
