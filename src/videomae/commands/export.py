"""``videomae export``: write a model for OpenVINO, ONNX Runtime or ``torch.export``, and verify it."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

import tyro

from videomae.console import output, print_json, working
from videomae.export.run import Task, export
from videomae.inference.engines.formats import Precision
from videomae.options import Flag


@dataclasses.dataclass
class ExportSettings:
    """Write a model for another runtime: 8-bit frames in, labels and the choice of frames inside the file.

    It is shown clips beside its source, and kept if it says the same and is no slower on this machine.
    """

    model: tyro.conf.Positional[str]
    """Directory, weights file, or id on the Hugging Face Hub; a classifier, or an encoder."""

    to: Literal["openvino", "onnx", "torch"]
    """openvino (fastest on Intel's processors), onnx (ONNX Runtime, TensorRT), or torch (torch.export)."""

    out: Path | None = None
    """Directory to write to; by default that of the model, or a new one named after model and target."""

    precision: Precision = "float32"
    """int8 is the fastest on a CPU and needs --data; float16 and bfloat16 are for hardware that has them."""

    task: Task | None = None
    """What to export of a model; by default what it is for."""

    data: Path | None = None
    """Videos like those it will see, to verify with and to calibrate int8 with: a folder (with a folder per class,
    where labels are known), a CSV manifest, or an official list. By default a few made clips verify."""

    resize: str | None = None
    """Resize and crop inside the file, too, for frames of this size: HEIGHTxWIDTH, e.g. 256x340."""

    calibration_clips: int = 128
    """Clips that int8 is calibrated with."""

    verified_clips: int = 32
    """Clips that both models are shown."""

    accuracy_aware: bool | None = None
    """With int8: leave layers in floating point that cost accuracy; by default where --data has labels."""

    max_drop: float = 0.01
    """With it: the loss of top-1 that is accepted, as a fraction."""

    tolerance: float | None = None
    """Largest difference of an output, as a fraction of the largest; by default that of the precision."""

    agreement: float | None = None
    """Fraction of clips with the same best class, at least; by default that of the precision."""

    allow_slower: Flag = False
    """Keep a file that is slower than its source on this machine, for another machine."""

    json: Flag = False
    """Print the report as one JSON object."""


def main(settings: ExportSettings) -> int:
    """Export and print the report."""
    from rich.table import Table

    options = dataclasses.asdict(settings)
    as_json = options.pop("json")
    source_size = _size(options.pop("resize"))
    with working("exporting and comparing"):
        done = export(**options, source_size=source_size)
    if as_json:
        print_json({"path": str(done.path)} | dataclasses.asdict(done.verification))
        return 0
    table = Table("", "source", "exported")
    for row in done.verification.rows():
        table.add_row(*row)
    console = output()
    console.print(table)
    console.print(f"shown: {done.verification.clips}\nwritten: {done.path}", markup=False)
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    """Read HEIGHTxWIDTH."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ValueError(f"--resize must be HEIGHTxWIDTH of the frames, e.g. 256x340, got {text!r}.")
    return int(match[1]), int(match[2])
