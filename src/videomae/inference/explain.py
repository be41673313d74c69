"""Where in a clip a classifier finds what it says.

T frames of H x W pixels · S time slots · N tubelets, S of them along the time · H heads · D width
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig, nearest
from videomae.video.clips import read_clips
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.video.processors import VideoMAEImageProcessor


Method = Literal["relevance", "rollout"]
SHOWN_CLASSES = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a clip a classifier looks.

    Attributes:
        label: name of the class that is explained.
        score: its probability in 0-1.
        predicted: name of the most probable class.
        method: "relevance" or "rollout".
        map: (S, H/patch, W/patch) float32, the fraction of each tubelet; not negative, the sum is 1.
        frames: (T, H, W, 3) uint8, the clip as the model saw it: resized and cropped.
    """

    label: str
    score: float
    predicted: str
    method: Method
    map: NDArray[np.float32]
    frames: NDArray[np.uint8]

    @property
    def fraction_by_slot(self) -> NDArray[np.float32]:
        """(S,) the fraction of each time slot."""
        return self.map.sum(axis=(1, 2))

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column, in patches, of the tubelet with the largest fraction in each time slot."""
        rows, columns = np.unravel_index(self.map.reshape(len(self.map), -1).argmax(axis=1), self.map.shape[1:])
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    @property
    def scale(self) -> float:
        """The fraction that the colours reach: the largest, but at least twice the mean, so an even map looks dull."""
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

    The encoder runs once, which keeps the input of each block, N x D. Then the blocks are visited from the last to
    the first, and the attention weights of one block at a time are computed anew: H x N x N numbers, 16 x 1568 x
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
    sampling = ClipSampling.of_model(config, stride=stride)
    clip = read_clips(video, sampling, clip_frames=config.num_frames, shrink=processor.shrink)[0]
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
            found = rollout(attentions_from_last(model, outputs.hidden_states), query)
        else:
            found = relevance(gradients_from_last(model, outputs.hidden_states, chosen), query)
    total = float(found.sum())
    if not 0 < total < float("inf"):
        raise ValueError(
            f"no attention of the model speaks for {config.id2label[chosen]!r} in this clip, so there is nothing to "
            "show. Train the classifier first, or see attention whatever the class with method='rollout'."
        )
    return Explanation(
        label=config.id2label[chosen],
        score=float(scores[chosen]),
        predicted=config.id2label[predicted],
        method=method,
        map=(found / total).view(config.grid).cpu().numpy(),
        frames=_seen(clip, processor),
    )


def check_question(model: "VideoMAEForVideoClassification", label: str | None, method: Method) -> None:
    """Raise a ValueError if a model cannot answer why it sees a class."""
    config: VideoMAEConfig = model.config
    if model.task != "classification" or not config.num_labels:
        raise ValueError(f"a {type(model).__name__} without a classifier cannot be explained: fine-tune it first.")
    if model.training:
        raise ValueError("the model is in training mode, so its answers are random: call model.eval() first.")
    if config.attentive_pooling:
        raise ValueError(
            "attentive_pooling=True cannot be explained, only models that average tokens or take the first."
        )
    if method not in ("relevance", "rollout"):
        raise ValueError(f"method must be 'relevance' or 'rollout', got {method!r}.")
    if label is not None and label not in config.label2id:
        names = list(config.label2id)
        shown = ", ".join(names[:SHOWN_CLASSES])
        more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
        raise ValueError(f"the model has no class {label!r}{nearest(label, names)}; it has {shown}{more}.")
    if label is not None and method == "rollout":
        raise ValueError("rollout is the same for every class: leave the label out, or use the method 'relevance'.")


def rollout(attentions: "Iterable[Tensor]", query: "Tensor") -> "Tensor":
    """Follow attention from the output back to the input (Abnar and Zuidema, 2020, arXiv 2005.00928).

    Every block mixes tokens by the mean A of its heads, and passes each on by its residual connection: by A + I, its
    rows normalised. The product over the blocks says how much of each input token is in each output token. It knows
    neither values nor classes.

    Args:
        attentions: (H, N, N) of each block, the last block first; rows are the tokens that look.
        query: (N,) fraction of each output token in what the classifier sees.

    Returns:
        (N,) fraction of each input token.
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
        query: (N,) fraction of each output token in what the classifier sees.

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
