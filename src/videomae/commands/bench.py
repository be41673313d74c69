"""``videomae bench``: how fast this machine is, for a model and a recipe."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from videomae.console import output, print_json
from videomae.options import Flag


@dataclasses.dataclass
class BenchSettings:
    """Measure this machine: the fastest product of matrices, what a model reaches of it, how fast videos are read, and
    what limits a training recipe."""  # noqa: D205, D209

    model: tyro.conf.Positional[str | None] = None
    """A preset (nano, tiny, small, base, large, huge, giant), a checkpoint or an exported model; by default base, and
    the recipe's own."""

    recipe: str | None = None
    """Built-in recipe or TOML file of pretrain or finetune, of which a clip is read and learnt."""

    data: Path | None = None
    """Videos to read: a folder, or a list. By default a few made ones, which are easy to decode."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one. Exported models run as they do by default."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's parameters; an exported model is in its own."""

    json: Flag = False
    """Print one JSON object."""


def main(settings: BenchSettings) -> int:
    """Measure, and print what was found."""
    from rich.table import Table

    from videomae.pipeline.bench import bench

    s = settings
    found = bench(s.model, recipe=s.recipe, data=s.data, device=s.device, dtype=s.dtype)
    if s.json:
        print_json(dataclasses.asdict(found))
        return 0
    table = Table(show_header=False)
    table.add_row("machine", found.machine)
    for dtype, peak in found.peaks.items():
        table.add_row(f"matrices of {dtype}", f"{peak / 1e9:.4g} GFLOP/s")
    table.add_row("model", f"{found.model}, {found.parameters / 1e6:.2f} M parameters")
    for name, speed in (("a clip forward", found.inference), ("a training step", found.training)):
        if speed is not None:
            reached = "" if speed.fraction is None else f", {speed.fraction:.0%} of the peak of {speed.dtype}"
            table.add_row(name, f"{speed.flops / 1e9:.4g} GFLOPs in {1000 * speed.seconds:.4g} ms{reached}")
    read = found.reading
    table.add_row("reading", f"{read.frames_per_second:.0f} frames/s of {read.width} x {read.height}, {read.videos}")
    if (recipe := found.recipe) is not None:
        table.add_row(
            recipe.recipe,
            f"a clip is read in {1000 * recipe.reading_seconds:.4g} ms ({recipe.workers} processes), learnt in "
            f"{1000 * recipe.model_seconds:.4g} ms ({recipe.parameters / 1e6:.2f} M parameters)",
        )
        share = recipe.reading_fraction if recipe.limited_by == "reading" else 1 - recipe.reading_fraction
        table.add_row(
            "limited by", f"{recipe.limited_by} ({share:.0%} of both), {recipe.clips_per_second:.3g} clips/s at most"
        )
    output().print(table)
    return 0
