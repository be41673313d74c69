"""``videomae explain``: show where in a clip a classifier finds what it says."""

import dataclasses
from pathlib import Path

import tyro

from videomae.console import output, print_json, working
from videomae.inference.explain import Method, explain
from videomae.inference.loading import open_model
from videomae.options import Device, Flag
from videomae.plots.animation import check_out, write_clip
from videomae.plots.explanation import animate, draw
from videomae.video.source import shown


@dataclasses.dataclass
class ExplainSettings:
    """Show where in a clip a classifier finds what it says: a heat map over the frames."""

    video: tyro.conf.Positional[str]
    """Video file, or an http or https URL; its middle clip counts."""

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
    """Print label, score, and the fraction and most relevant place of each time slot as one JSON object."""

    device: Device = None


def main(settings: ExplainSettings) -> int:
    """Write the picture, and print the fraction of each time slot and the place that counts most in it."""
    from rich.table import Table

    from videomae.models.videomae import VideoMAEForVideoClassification

    s = settings
    check_out(s.out, s.video)
    with working("explaining"):
        opened = open_model(s.model, VideoMAEForVideoClassification, device=s.device)
        result = explain(s.video, opened.model, opened.processor, label=s.label, method=s.method, stride=s.stride)
        title = Path(shown(s.video)).name
        write_clip(s.out, lambda: draw(result, title=title), lambda: animate(result, title=title))
    fractions = [round(float(fraction), 6) for fraction in result.fraction_by_slot]
    if s.json:
        content = {
            "label": result.label,
            "score": result.score,
            "predicted": result.predicted,
            "method": result.method,
            "grid": result.map.shape,
            "fraction_by_slot": fractions,
            "place_by_slot": result.places,
            "out": str(s.out),
        }
        print_json(content)
        return 0
    console = output()
    console.print(result.title, markup=False)
    rows, columns = result.map.shape[1:]
    table = Table("time slot", "fraction", f"most in row, column (of {rows} x {columns}, from 0)")
    for slot, (fraction, (row, column)) in enumerate(zip(fractions, result.places, strict=True)):
        table.add_row(str(slot), f"{fraction:.1%}", f"{row}, {column}")
    console.print(table)
    console.print(f"written: {s.out}", markup=False)
    return 0
