"""Look at what a pre-trained model makes of a clip that is mostly hidden from it.

C channels · T frames of H x W pixels · N tubelets of (t, p, p) pixels · K hidden ones · S time slots
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from videomae.errors import CheckpointError
from videomae.files import atomic_write
from videomae.tasks.pictures import PICTURE, check_out, plain, show_frame, show_slots, write_animation
from videomae.tasks.predict import Sampling, choose_device, load_processor

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForPreTraining

SHOWN_FRAMES, SMALLEST_SIDE = 8, 192
GREY = 0.5
DEFAULT_RATIO, DEFAULT_CELL_RATIO = 0.9, 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """A clip, what was shown of it, and what the model made of the rest. Frames are (T, H, W, 3) uint8.

    Attributes:
        original: the clip as the model's processor crops it.
        masked: the same with the hidden tubelets grey.
        predicted: visible tubelets as they are, hidden ones as predicted. A model that was trained with
            ``norm_pix_loss`` predicts each tubelet up to its brightness and contrast; here it is given those of the
            visible part of the clip, which is all that one may know.
        with_statistics: with ``norm_pix_loss``, the prediction with each hidden tubelet's true mean and deviation put
            back, as papers show it: it looks better than what the model knows. None otherwise.
        error_by_slot: (S,) mean squared error of ``predicted`` over the hidden pixels, in 0-1; NaN if none is.
        loss: the model's own loss on this clip.
    """

    original: NDArray[np.uint8]
    masked: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    with_statistics: NDArray[np.uint8] | None
    error_by_slot: NDArray[np.float64]
    loss: float

    @property
    def rows(self) -> dict[str, NDArray[np.uint8]]:
        """The views by their titles."""
        rows = {"original": self.original, "shown to the model": self.masked, "reconstruction": self.predicted}
        if self.with_statistics is not None:
            rows["with each patch's own\nmean and contrast"] = self.with_statistics
        return rows


def reconstruct(model: "VideoMAEForPreTraining", pixel_values: "Tensor", mask: "Tensor") -> Reconstruction:
    """Hide a part of a clip and let the model predict it.

        >>> import torch
        >>> from videomae import VideoMAEForPreTraining, tube_mask
        >>> model = VideoMAEForPreTraining.from_pretrained("pretrained/model")
        >>> clip = torch.zeros(1, 8, 3, 32, 32)
        >>> reconstruction = reconstruct(model, clip, tube_mask(model.config.grid, 0.75, batch_size=1))
        >>> reconstruction.predicted.shape, reconstruction.error_by_slot.shape
        ((8, 32, 32, 3), (4,))

    Args:
        model: with its decoder, of three channels.
        pixel_values: (1, T, C, H, W), normalised with the statistics of the model's config.
        mask: (1, N) bool, True = hidden.

    Raises:
        ValueError: if the model's pixel statistics are not known.
    """
    import torch

    from videomae.models.patches import cut_tubelets

    config = model.config
    if config.pixel_statistics is None:
        raise ValueError("the config must tell image_mean and image_std to turn its input back into pictures")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in config.pixel_statistics)
    with torch.inference_mode():
        outputs = model(pixel_values.to(model.device, model.dtype), mask.to(model.device), return_dict=True)
    predicted = outputs.logits[0].float().cpu().unflatten(1, (*config.tubelet_shape, -1))  # (K, t, p, p, C)
    video = pixel_values[0].float().cpu() * std + mean  # (T, C, H, W) in 0-1
    truth = cut_tubelets(video[None], config.tubelet_shape)[0].permute(0, 2, 3, 4, 1)  # (N, t, p, p, C)
    hidden = mask[0].cpu()
    restored = None
    if config.norm_pix_loss:
        target, visible = truth[hidden], truth[~hidden].flatten(0, 3)
        inside = (1, 2, 3)
        restored = predicted * (target.std(inside, keepdim=True) + 1e-6) + target.mean(inside, keepdim=True)
        predicted = predicted * visible.std(0) + visible.mean(0)
    errors = torch.zeros(len(truth)).masked_scatter(hidden, (predicted - truth[hidden]).square().flatten(1).mean(1))
    by_slot, counts = (values.view(config.grid[0], -1).sum(1) for values in (errors, hidden.float()))

    def picture(content: "Tensor | float | None") -> Any:
        if content is None:
            return None
        tubelets = truth.clone()
        tubelets[hidden] = content
        slots, rows, columns = config.grid
        frames = tubelets.unflatten(0, (slots, rows, columns)).permute(0, 3, 1, 4, 2, 5, 6)
        frames = frames.reshape(*video.shape[:1], *video.shape[2:], -1)  # (T, H, W, C)
        return (frames.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    return Reconstruction(
        original=picture(truth[hidden]),
        masked=picture(GREY),
        predicted=picture(predicted),
        with_statistics=picture(restored),
        error_by_slot=(by_slot / counts).double().numpy(),
        loss=float(outputs.loss),
    )


def load_pretrained(path_or_id: str | Path, *, device: str | None = None) -> "VideoMAEForPreTraining":
    """Load a model with its decoder; its config gets the statistics of its processor.

    Raises:
        CheckpointError: if it has no decoder.
    """
    from videomae.models.videomae import VideoMAEForPreTraining
    from videomae.models.weights import open_checkpoint

    checkpoint = open_checkpoint(path_or_id)
    if checkpoint.task == "classification":
        raise CheckpointError(
            f"{path_or_id} is a classifier without a decoder, it cannot reconstruct: name the pre-trained model that "
            "it was fine-tuned from"
        )
    processor = load_processor(path_or_id, checkpoint.resolve_config())
    statistics: dict[str, Any] = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    return VideoMAEForPreTraining.from_checkpoint(checkpoint, **statistics).to(choose_device(device))


def draw(reconstruction: Reconstruction, *, title: str = "") -> "Figure":
    """Return a sheet of some frames, a row for each view, with the error of each time slot below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = reconstruction.rows
    num_frames = len(reconstruction.original)
    times = np.linspace(0, num_frames - 1, min(SHOWN_FRAMES, num_frames)).round().astype(int)
    figure = Figure(figsize=(1.35 * len(times) + 1.6, 1.4 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows) + 1, len(times), height_ratios=[*[1] * len(rows), 0.75])
    for i, (name, frames) in enumerate(rows.items()):
        for j, time in enumerate(times):
            axes = figure.add_subplot(grid[i, j])
            show_frame(axes, frames[time], above="" if i else f"frame {time}", left="" if j else name)
    show_slots(figure.add_subplot(grid[-1, :]), reconstruction.error_by_slot, "squared error\nof hidden pixels")
    if title:
        figure.suptitle(plain(title), fontsize=10)
    return figure


def side_by_side(reconstruction: Reconstruction) -> NDArray[np.uint8]:
    """Return the views beside each other with their titles, (T, height, width, 3) uint8, sides even."""
    from PIL import Image, ImageDraw

    rows = reconstruction.rows
    height, width = reconstruction.original.shape[1:3]
    scale = max(-(-SMALLEST_SIDE // min(height, width)), 1)
    size, strip, gap = (width * scale, height * scale), 34, 6
    total = (len(rows) * (size[0] + gap) - gap, size[1] + strip)
    pictures = []
    for time in range(len(reconstruction.original)):
        sheet = Image.new("RGB", (total[0] + total[0] % 2, total[1] + total[1] % 2), "white")
        for i, (name, frames) in enumerate(rows.items()):
            left = i * (size[0] + gap)
            sheet.paste(Image.fromarray(frames[time]).resize(size, Image.Resampling.NEAREST), (left, strip))
            ImageDraw.Draw(sheet).multiline_text((left + 2, 3), name, fill="#1f2430", spacing=2)
        pictures.append(np.asarray(sheet))
    return np.stack(pictures)


@dataclasses.dataclass
class ReconstructSettings:
    """Hide most of a clip, and look at what a pre-trained model makes of it."""

    video: tyro.conf.Positional[Path]
    """Video file."""

    model: str
    """Directory, weights file, or id on the Hugging Face Hub of a pre-trained model (with its decoder)."""

    out: Path = Path("reconstruction.png")
    """A sheet (.png), or a video of the views side by side (.mp4, .gif)."""

    mask: Literal["tube", "random", "frame", "running_cell"] = "tube"
    """tube hides the same places in every time slot, random any, frame whole time slots; running_cell some of each
    2 x 2 places, in turn (--ratio 0.25, 0.5 or 0.75)."""

    ratio: float | None = None
    """Share of the tubelets to hide, by default 0.9; with running_cell 0.5."""

    stride: float | None = None
    """Distance between the frames of the clip, the middle one, in frames; by default they are chosen as in training."""

    seed: int = 0
    """Of the mask."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print loss and errors as one JSON object."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""


def run(settings: ReconstructSettings) -> Reconstruction:
    """Reconstruct the middle clip of a video and write the picture or video of it.

    Raises:
        ValueError: if the file to write is of no known kind.
        VideoError: if the video cannot be read.
        CheckpointError: if the model cannot be loaded or has no decoder.
    """
    import torch

    from videomae.models.masking import MASKS

    s = settings
    check_out(s.out, s.video)
    model = load_pretrained(s.model, device=s.device)
    config = model.config
    processor = load_processor(s.model, config)
    clip = Sampling.of(config, stride=s.stride).read(s.video)[0]
    pixel_values = processor(clip, return_tensors="pt").pixel_values
    ratio = (DEFAULT_CELL_RATIO if s.mask == "running_cell" else DEFAULT_RATIO) if s.ratio is None else s.ratio
    try:
        mask = MASKS[s.mask](config.grid, ratio, generator=torch.Generator().manual_seed(s.seed))
    except ValueError as error:
        raise ValueError(f"{error} (--mask {s.mask} --ratio {ratio:g}): name another --ratio or --mask") from error
    result = reconstruct(model, pixel_values, mask)
    with atomic_write(s.out) as temporary:
        if s.out.suffix == PICTURE:
            draw(result, title=f"{s.video.name}, {s.mask} mask {ratio:g}").savefig(temporary, dpi=120)
        else:
            write_animation(temporary, side_by_side(result), s.out.suffix)
    return result


def main(settings: ReconstructSettings) -> int:
    """Write the picture and print the error of each time slot."""
    from rich.console import Console

    result = run(settings)
    errors = [None if np.isnan(error) else round(float(error), 6) for error in result.error_by_slot]
    if settings.json:
        content = {"loss": result.loss, "error_by_slot": errors, "out": str(settings.out)}
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"loss {result.loss:.4f}; squared error of hidden pixels (0-1) by time slot: {errors}", markup=False)
    if result.with_statistics is not None:
        console.print(
            "The model predicts each patch up to brightness and contrast. One view gives all patches those of the "
            "visible part, the other each patch its true ones, which the model cannot know."
        )
    console.print(f"written: {settings.out}", markup=False)
    return 0
