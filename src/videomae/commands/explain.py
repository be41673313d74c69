"""``videomae explain``: show where in a clip a classifier finds what it says."""

import dataclasses
import json
import sys
from pathlib import Path

import tyro

from videomae.files import atomic_write
from videomae.inference.classifier import VideoClassifier
from videomae.inference.explain import Explanation, Method, explain
from videomae.options import Flag
from videomae.plots.explanation import animate, draw
from videomae.plots.style import PICTURE, check_out, write_animation


@dataclasses.dataclass
class ExplainSettings:
    """Show where in a clip a classifier finds what it says: a heat map over the frames."""

    video: tyro.conf.Positional[Path]
    """Video file; its middle clip is looked at."""

    model: str
    """Directory, weights file, or id on the Hugging Face Hub of a fine-tuned model."""

    label: str | None = None
    """Class to look for; by default the predicted one. For the method relevance."""

    method: Method = "relevance"
    """relevance is what speaks for one class (attention weighted by its gradient). rollout follows attention alone and
    is not class-specific: it is the same picture whatever the class."""

    out: Path = Path("explanation.png")
    """A sheet of frames (.png), or the clip beside its heat map (.mp4, .gif)."""

    stride: float | None = None
    """Distance between the frames of the clip, in frames; by default they are chosen as in training."""

    json: Flag = False
    """Print label, score, and the share and most relevant place of each time slot as one JSON object."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""


def run(settings: ExplainSettings) -> Explanation:
    """Explain the middle clip of a video and write the picture or video of it.

    Raises:
        CheckpointError: if the model cannot be loaded or has no classifier.
        VideoError: if the video cannot be read.
        ValueError: if the file to write is of no known kind, or as for ``explain``.
    """
    s = settings
    check_out(s.out, s.video)
    classifier = VideoClassifier.from_pretrained(s.model, device=s.device)
    result = explain(s.video, classifier.model, classifier.processor, label=s.label, method=s.method, stride=s.stride)
    with atomic_write(s.out) as temporary:
        if s.out.suffix == PICTURE:
            draw(result, title=s.video.name).savefig(temporary, dpi=120)
        else:
            write_animation(temporary, animate(result, title=s.video.name), s.out.suffix)
    return result


def main(settings: ExplainSettings) -> int:
    """Write the picture, and print the share of each time slot and the place that counts most in it."""
    from rich.console import Console
    from rich.table import Table

    result = run(settings)
    shares = [round(float(share), 6) for share in result.share_by_slot]
    if settings.json:
        content = {
            "label": result.label,
            "score": result.score,
            "predicted": result.predicted,
            "method": result.method,
            "grid": result.map.shape,
            "share_by_slot": shares,
            "place_by_slot": result.places,
            "out": str(settings.out),
        }
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
        return 0
    console = Console(highlight=False, soft_wrap=True)
    console.print(result.title, markup=False)
    rows, columns = result.map.shape[1:]
    table = Table("time slot", "share", f"most in row, column (of {rows} x {columns}, from 0)")
    for slot, (share, (row, column)) in enumerate(zip(shares, result.places, strict=True)):
        table.add_row(str(slot), f"{share:.1%}", f"{row}, {column}")
    console.print(table)
    console.print(f"written: {settings.out}", markup=False)
    return 0
