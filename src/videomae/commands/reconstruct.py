"""``videomae reconstruct``: hide most of a clip, and look at what a model makes of it."""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from videomae.console import output, print_json, working
from videomae.inference.reconstruct import load_pretrained, reconstruct
from videomae.options import Device, Flag
from videomae.plots.animation import check_out, write_clip
from videomae.plots.reconstruction import draw, side_by_side
from videomae.video.clips import read_clips
from videomae.video.sampling import ClipSampling
from videomae.video.source import shown

DEFAULT_RATIO, DEFAULT_CELL_RATIO = 0.9, 0.5


@dataclasses.dataclass
class ReconstructSettings:
    """Hide most of a clip, and look at what a pre-trained model makes of it."""

    video: tyro.conf.Positional[str]
    """Video file, or an http or https URL."""

    model: str
    """Directory, weights file, or id on the Hugging Face Hub of a pre-trained model (with its decoder)."""

    out: Path = Path("reconstruction.png")
    """A sheet (.png), or a video of the views side by side (.mp4, .gif)."""

    mask: str = "tube"
    """tube hides the same places in every time slot, random any, frame whole time slots; running_cell some of each
    2 x 2 places, in turn (--ratio 0.25, 0.5 or 0.75)."""

    ratio: float | None = None
    """Fraction of the tubelets to hide, by default 0.9; with running_cell 0.5."""

    stride: float | None = None
    """Distance between the frames of the clip, the middle one, in frames; by default they are chosen as in training."""

    seed: int = 0
    """Of the mask."""

    json: Flag = False
    """Print loss and errors as one JSON object."""

    device: Device = None


def main(settings: ReconstructSettings) -> int:
    """Write the picture and print the error of each time slot."""
    import torch

    from videomae.models.masking import find_mask

    s = settings
    check_out(s.out, s.video)
    draw_mask = find_mask(s.mask)
    with working("loading the model"):
        opened = load_pretrained(s.model, device=s.device)
    config = opened.model.config
    sampling = ClipSampling.of_model(config, stride=s.stride)
    clip = read_clips(s.video, sampling, clip_frames=config.num_frames, shrink=opened.processor.shrink)[0]
    pixel_values = opened.processor(clip, return_tensors="pt").pixel_values
    ratio = (DEFAULT_CELL_RATIO if s.mask == "running_cell" else DEFAULT_RATIO) if s.ratio is None else s.ratio
    try:
        mask = draw_mask(config.grid, ratio, generator=torch.Generator().manual_seed(s.seed))
    except ValueError as error:
        raise ValueError(f"{error} (--mask {s.mask} --ratio {ratio:g}): name another --ratio or --mask.") from error
    with working("reconstructing"):
        result = reconstruct(opened.model, pixel_values, mask)
        title = f"{Path(shown(s.video)).name}, {s.mask} mask {ratio:g}"
        write_clip(s.out, lambda: draw(result, title=title), lambda: side_by_side(result))
    errors = [None if np.isnan(error) else round(float(error), 6) for error in result.error_by_slot]
    if s.json:
        print_json({"loss": result.loss, "error_by_slot": errors, "out": str(s.out)})
        return 0
    console = output()
    console.print(f"loss {result.loss:.4f}; squared error of hidden pixels (0-1) by time slot: {errors}", markup=False)
    if result.with_statistics is not None:
        console.print(
            "The model predicts each patch up to brightness and contrast. One view gives all patches those of the "
            "visible part, the other each patch its true ones, which the model cannot know."
        )
    console.print(f"written: {s.out}", markup=False)
    return 0
