"""Look at where in a clip a classifier finds what it says.

T frames of H x W pixels · S time slots · N tubelets, S of them along the time · H heads · D width
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig, nearest
from videomae.files import atomic_write
from videomae.tasks.pictures import PICTURE, check_out, plain, show_frame, show_slots, write_animation
from videomae.tasks.predict import Sampling, VideoClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.video.processors import VideoMAEImageProcessor

Method = Literal["relevance", "rollout"]

COLOURS = "inferno"
SHOWN_CLASSES, SLOTS_PER_LINE = 30, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a clip a classifier looks.

    Attributes:
        label: name of the class that is explained.
        score: its probability in 0-1.
        predicted: name of the most probable class.
        method: "relevance" or "rollout".
        map: (S, H/patch, W/patch) float32, the share of each tubelet; not negative, the sum is 1.
        frames: (T, H, W, 3) uint8, the clip as the model saw it: resized and cropped.
    """

    label: str
    score: float
    predicted: str
    method: Method
    map: NDArray[np.float32]
    frames: NDArray[np.uint8]

    @property
    def share_by_slot(self) -> NDArray[np.float32]:
        """(S,) the share of each time slot."""
        return self.map.sum(axis=(1, 2))

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column, in patches, of the tubelet with the largest share in each time slot."""
        rows, columns = np.unravel_index(self.map.reshape(len(self.map), -1).argmax(axis=1), self.map.shape[1:])
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    @property
    def scale(self) -> float:
        """The share that the colours reach: the largest one, but at least two even ones, so that even looks dull."""
        return max(float(self.map.max()), 2 / self.map.size)

    @property
    def title(self) -> str:
        """One line that says what is explained."""
        if self.method == "rollout":
            return f"{self.label} ({self.score:.1%}); where attention goes, whatever the class"
        other = "" if self.label == self.predicted else f"; predicted is {self.predicted}"
        return f"{self.label} ({self.score:.1%}){other}"


def explain(
    video: str | Path | Any,
    model: "VideoMAEForVideoClassification",
    processor: "VideoMAEImageProcessor",
    *,
    label: str | None = None,
    method: Method = "relevance",
    stride: float | None = None,
) -> Explanation:
    """Say where in the middle clip of a video a classifier looks.

        >>> import numpy as np
        >>> from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
        >>> from videomae.video.synthetic import motion_video
        >>> config = VideoMAEConfig.preset("tiny", image_size=64, num_frames=8, num_labels=3)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> processor = VideoMAEImageProcessor(size=64, crop_size=64)
        >>> video = motion_video("moving_up", rng=np.random.default_rng(0))
        >>> explanation = explain(video, model, processor, label="LABEL_2")
        >>> explanation.map.shape, explanation.label
        ((4, 4, 4), 'LABEL_2')

    The encoder runs once, which keeps the input of each block, N x D. Then the blocks are gone through from the last
    to the first, and the attention weights of one block at a time are computed anew: H x N x N numbers, 16 x 1568 x
    1568 for ViT-L or 157 MB. "rollout" takes about as long as two forward passes; "relevance" as four, and holds the
    weights, their gradients and what else one block needs for them.

    Args:
        video: a path; or its frames: uint8 (T, H, W, 3), a list of images, or what else the processor takes as a clip.
            A clip is sampled from the latter as from a file.
        model: a fine-tuned classifier, in evaluation mode.
        processor: turns frames into its input.
        label: name of the class to explain; None is the predicted one. Only "relevance" tells classes apart.
        method: see ``relevance`` and ``rollout``.
        stride: distance between the frames of the clip, in frames; by default they are chosen as in training.

    Raises:
        VideoError: if the file cannot be read.
        ValueError: if the model has no classifier, pools by attention, is in training mode or has no such class; if
            "rollout" is asked about a class; or if no attention speaks for the class.
    """
    import torch

    check_question(model, label, method)
    config = model.config
    sampling = Sampling.of(config, stride=stride)
    clip = (sampling.read(video) if isinstance(video, str | Path) else sampling.pick(video))[0]
    with torch.inference_mode(False), torch.no_grad():
        pixel_values = processor(clip, return_tensors="pt").pixel_values
        outputs = model(
            pixel_values.to(model.device, model.dtype),
            output_attentions=False,
            output_hidden_states=True,
            return_dict=True,
        )
        scores = outputs.logits[0].float().softmax(-1)
        predicted = int(scores.argmax())
        chosen = predicted if label is None else config.label2id[label]
        query = torch.zeros(config.num_tubelets, device=model.device)
        query[: None if config.use_mean_pooling else 1] = 1
        query /= query.sum()
        if method == "rollout":
            shares = rollout(attentions_from_last(model, outputs.hidden_states), query)
        else:
            shares = relevance(gradients_from_last(model, outputs.hidden_states, chosen), query)
    total = float(shares.sum())
    if not 0 < total < float("inf"):
        raise ValueError(
            f"no attention of the model speaks for {config.id2label[chosen]!r} in this clip, so there is nothing to "
            "show: is the classifier trained? method='rollout' shows attention whatever the class"
        )
    return Explanation(
        label=config.id2label[chosen],
        score=float(scores[chosen]),
        predicted=config.id2label[predicted],
        method=method,
        map=(shares / total).view(config.grid).cpu().numpy(),
        frames=_seen(clip, processor),
    )


def check_question(model: "VideoMAEForVideoClassification", label: str | None, method: Method) -> None:
    """Raise a ValueError if a model cannot answer why it sees a class."""
    config: VideoMAEConfig = model.config
    if model.task != "classification" or not config.num_labels:
        raise ValueError(f"a {type(model).__name__} without a classifier cannot be explained: fine-tune it first")
    if model.training:
        raise ValueError("the model is in training mode, so its answers are random: call model.eval() first")
    if config.attentive_pooling:
        raise ValueError(
            "attentive_pooling=True cannot be explained, only models that average tokens or take the first"
        )
    if method not in ("relevance", "rollout"):
        raise ValueError(f"method must be 'relevance' or 'rollout', got {method!r}")
    if label is not None and label not in config.label2id:
        names = list(config.label2id)
        shown = ", ".join(names[:SHOWN_CLASSES])
        more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
        raise ValueError(f"the model has no class {label!r}{nearest(label, names)}; it has {shown}{more}")
    if label is not None and method == "rollout":
        raise ValueError("rollout is the same for every class: leave the label out, or use the method 'relevance'")


def rollout(attentions: "Iterable[Tensor]", query: "Tensor") -> "Tensor":
    """Follow attention from the output back to the input (Abnar and Zuidema, 2020, arXiv 2005.00928).

    Every block mixes tokens by the mean A of its heads, and passes each on by its residual connection: by A + I, its
    rows normalised. The product over the blocks says how much of each input token is in each output token. It knows
    neither values nor classes.

    Args:
        attentions: (H, N, N) of each block, the last block first; rows are the tokens that look.
        query: (N,) share of each output token in what the classifier sees.

    Returns:
        (N,) share of each input token.
    """
    for weights in attentions:
        mixing = weights.float().mean(0)  # (N, N)
        mixing.diagonal().add_(1)
        query = query @ (mixing / mixing.sum(-1, keepdim=True))
    return query


def relevance(attentions: "Iterable[tuple[Tensor, Tensor]]", query: "Tensor") -> "Tensor":
    """Follow the attention that speaks for a class back to the input (Chefer et al., 2021, arXiv 2103.15679).

    Of each block counts the positive part of attention times its gradient, averaged over heads: A. The relevance R of
    input tokens for output tokens is the identity before the first block, and R + A R after each. What the identity
    alone gives is left out, as it says nothing: every token is relevant for itself.

    Args:
        attentions: (H, N, N) attention weights of each block and the gradient of the class's score for them, the last
            block first.
        query: (N,) share of each output token in what the classifier sees.

    Returns:
        (N,) relevance of each input token, not negative.
    """
    found = query
    for weights, gradient in attentions:
        found = found + found @ (weights.float() * gradient.float()).clamp(min=0).mean(0)
    return found - query


def attentions_from_last(
    model: "VideoMAEForVideoClassification", hidden_states: "Sequence[Tensor]"
) -> "Iterator[Tensor]":
    """Yield the attention weights (H, N, N) of each block, the last block first.

    Args:
        model: the classifier.
        hidden_states: input of the first and output of every block for one clip, each (1, N, D).
    """
    for block, x in _blocks_from_last(model, hidden_states):
        weights: list[Tensor] = []
        block.attn(block.norm1(x), attentions=weights)
        yield weights[0][0]


def gradients_from_last(
    model: "VideoMAEForVideoClassification", hidden_states: "Sequence[Tensor]", label: int
) -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield the attention weights (H, N, N) of each block and a logit's gradient for them, the last block first.

    Args:
        model: the classifier.
        hidden_states: input of the first and output of every block for one clip, each (1, N, D).
        label: number of the logit's class.
    """
    import torch

    with torch.enable_grad():
        last = hidden_states[-1].detach().requires_grad_()
        tokens = last if model.videomae.norm is None else model.videomae.norm(last)
        logit = model.classifier(model.pool(tokens))[0, label]
        (gradient,) = torch.autograd.grad(logit, last)
    for block, x in _blocks_from_last(model, hidden_states):
        weights: list[Tensor] = []
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            gradient, of_weights = torch.autograd.grad(block(x, attentions=weights), [x, *weights], gradient)
        yield weights[0][0].detach(), of_weights[0]


def _blocks_from_last(
    model: "VideoMAEForVideoClassification", hidden_states: "Sequence[Tensor]"
) -> Iterator[tuple[Any, Any]]:
    """Yield each block and its input, from the last to the first."""
    return zip(reversed(list(model.videomae.blocks)), reversed(hidden_states[:-1]), strict=True)


def _seen(clip: Any, processor: "VideoMAEImageProcessor") -> NDArray[np.uint8]:
    """Return a clip as the processor resizes and crops it, (T, H, W, 3); channels that are not RGB as their mean."""
    pixels = processor(clip, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0]
    if np.issubdtype(pixels.dtype, np.floating) and pixels.max() <= 1:
        pixels = pixels * 255
    if pixels.shape[1] != 3:
        pixels = pixels.mean(axis=1, keepdims=True).repeat(3, axis=1)
    return pixels.round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def heat_maps(explanation: Explanation) -> NDArray[np.uint8]:
    """Return the frames in grey with the map over them, (T, H, W, 3) uint8.

    One scale holds for the whole clip, from 0, which leaves a frame dark, to ``Explanation.scale``.
    """
    from matplotlib import colormaps
    from PIL import Image

    frames, shares = explanation.frames, explanation.map / np.float32(explanation.scale)
    size = frames.shape[2], frames.shape[1]
    smooth = np.stack([np.asarray(Image.fromarray(slot).resize(size, Image.Resampling.BILINEAR)) for slot in shares])
    heat = smooth.repeat(len(frames) // len(shares), axis=0)[..., None]  # (T, H, W, 1) in 0-1
    grey = frames.mean(axis=-1, keepdims=True) / 255
    opacity = 0.25 + 0.6 * heat
    mixed = (1 - opacity) * grey + opacity * colormaps[COLOURS](heat[..., 0])[..., :3]
    return (mixed * 255).round().astype(np.uint8)


def draw(explanation: Explanation, *, title: str = "") -> "Figure":
    """Return a sheet with the first frame of each time slot, the heat map below it, and the share of each slot."""
    from matplotlib.figure import Figure

    frames, heat = explanation.frames, heat_maps(explanation)
    slots = len(explanation.map)
    columns = min(slots, SLOTS_PER_LINE)
    lines = -(-slots // columns)
    height = 1.35 * frames.shape[1] / frames.shape[2]  # of a frame, in inches
    figure = Figure(figsize=(1.35 * columns + 1.8, lines * (2 * height + 0.3) + 1.7), layout="constrained")
    grid = figure.add_gridspec(2 * lines + 1, columns, height_ratios=[*[height] * 2 * lines, 0.8])
    shown = []
    for slot in range(slots):
        line, column = divmod(slot, columns)
        frame = slot * len(frames) // slots
        axes = [figure.add_subplot(grid[2 * line + view, column]) for view in range(2)]
        show_frame(axes[0], frames[frame], above=f"frame {frame}", left="" if column else "clip")
        show_frame(axes[1], heat[frame], left="" if column else explanation.method)
        shown += axes
    _show_scale(figure, explanation, shown)
    _show_shares(figure.add_subplot(grid[-1, :]), explanation)
    figure.suptitle(plain("\n".join(filter(None, [title, explanation.title]))), fontsize=10)
    return figure


def animate(explanation: Explanation, *, title: str = "") -> NDArray[np.uint8]:
    """Return the clip beside its heat map, the share of each time slot below; (T, height, width, 3) uint8, sides even.

    The bar of the time slot that is on show is dark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heat = heat_maps(explanation)
    height = 2.8 * heat.shape[1] / heat.shape[2]  # of a frame, in inches
    figure = Figure(figsize=(6.4, round(height + 2, 1)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 0.9])
    axes = [figure.add_subplot(grid[0, view]) for view in range(2)]
    pictures = [show_frame(a, frames[0]) for a, frames in zip(axes, (explanation.frames, heat), strict=True)]
    axes[0].set_title("clip", fontsize=9)
    axes[1].set_title(explanation.method, fontsize=9)
    _show_scale(figure, explanation, axes)
    bars = _show_shares(figure.add_subplot(grid[1, :]), explanation)
    figure.suptitle(plain("\n".join(filter(None, [title, explanation.title]))), fontsize=10)
    drawn = []
    for time, views in enumerate(zip(explanation.frames, heat, strict=True)):
        for picture, view in zip(pictures, views, strict=True):
            picture.set_data(view)
        for slot, bar in enumerate(bars):
            bar.set_alpha(1.0 if slot == time * len(bars) // len(heat) else 0.3)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(drawn)


def _show_scale(figure: "Figure", explanation: Explanation, axes: list[Any]) -> None:
    """Draw the scale of the colours beside frames, in multiples of an even share."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, explanation.scale * explanation.map.size), COLOURS)
    bar = figure.colorbar(colours, ax=axes, aspect=24, pad=0.01)
    bar.set_label("times an even share", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _show_shares(axes: Any, explanation: Explanation) -> Any:
    shares = explanation.share_by_slot
    bars = show_slots(axes, shares, f"share of\n{explanation.method}")
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=7, padding=1)
    axes.margins(y=0.2)
    axes.set_yticks([])  # the bars are labelled
    return bars


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

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
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
