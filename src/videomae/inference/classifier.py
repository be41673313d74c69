"""A fine-tuned model with its processor: a video in, labels out."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from videomae.inference.loading import DEFAULT_MODEL, open_model
from videomae.inference.protocols import Sampling
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

Frames = np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and its score.

    Attributes:
        label: name of the class.
        score: probability in 0-1, the mean of the softmax over all views.
    """

    label: str
    score: float


class VideoClassifier:
    """A fine-tuned model with its processor: a video in, labels out.

        >>> classify = VideoClassifier.from_pretrained("run/model")
        >>> [(p.label, 0 < p.score < 1) for p in classify("clip.mp4", top_k=1)]
        [('moving_up', True)]

    Args:
        model: the classifier, on the device where it should run.
        processor: turns frames into its input.
    """

    def __init__(self, model: "VideoMAEForVideoClassification", processor: VideoMAEImageProcessor) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path = DEFAULT_MODEL,
        *,
        device: "torch.device | str | None" = None,
        dtype: "torch.dtype | str | None" = None,
        **options: Any,
    ) -> Self:
        """Load a fine-tuned checkpoint of any family.

        Args:
            path_or_id: a directory, a weights file, or the id of a model on the Hugging Face Hub.
            device: where to run; None takes a GPU if there is one.
            dtype: of the parameters, e.g. "bfloat16"; None is float32.
            options: as for ``VideoMAEForVideoClassification.from_pretrained``.

        Raises:
            CheckpointError: if the checkpoint cannot be read, or has no classifier.
        """
        from videomae.models.videomae import VideoMAEForVideoClassification

        opened = open_model(path_or_id, VideoMAEForVideoClassification, device=device, dtype=dtype, **options)
        return cls(opened.model, opened.processor)

    def __call__(
        self, video: str | Path | Any, *, top_k: int = 5, views: str = "1x1", stride: float | None = None
    ) -> list[Prediction]:
        """Classify one video.

        Args:
            video: a path; or its frames: uint8 (T, H, W, 3), a list of images, or what else the processor takes as a
                clip. Frames are sampled from the latter as from a file.
            top_k: how many classes to return.
            views: "TxS", clips spread over the time x crops spread over the long side; "1x1" is the middle of both.
            stride: distance between the frames of a clip, in frames; by default they are chosen as in training
                (``config.clip_sampling``, ``clip_stride`` and ``clip_fps``).

        Returns:
            The ``top_k`` best classes, best first.

        Raises:
            VideoError: if the file cannot be read.
            ValueError: if ``top_k`` or ``views`` makes no sense.
        """
        sampling = Sampling.of(self.model.config, views=views, stride=stride)
        clips = sampling.read(video) if isinstance(video, str | Path) else sampling.pick(video)
        return self.rank(self.scores(clips, crops=sampling.num_crops), top_k)

    def scores(self, clips: Sequence[Any], *, crops: int = 1) -> "torch.Tensor":
        """Return the probability of every class, (L,) float32, averaged over clips and crops.

        Args:
            clips: of one video, each a (T, H, W, C) array or a list of images.
            crops: crops spread over the long side of a frame; 1 is the centre.
        """
        import torch

        total = torch.zeros(self.model.config.num_labels)
        with torch.inference_mode():
            for clip in clips:
                for pixel_values in self.crops_of(clip, crops):
                    outputs = self.model(pixel_values.to(self.model.device, self.model.dtype), return_dict=True)
                    logits = outputs.logits
                    total += logits.float().softmax(-1)[0].cpu()
        return check_finite(total / (len(clips) * crops))

    def crops_of(self, clip: Any, crops: int) -> Iterator["torch.Tensor"]:
        """Yield the processed crops of a clip, each (1, T, C, H, W) float32."""
        if crops == 1:
            yield self.processor(clip, return_tensors="pt").pixel_values
            return
        whole = self.processor(clip, do_center_crop=False, return_tensors="pt").pixel_values
        height, width = self.model.config.frame_size
        room = (whole.shape[-2] - height, whole.shape[-1] - width)
        if min(room) < 0:
            raise ValueError(
                f"several crops need frames of at least {(height, width)} pixels after resizing, got "
                f"{tuple(whole.shape[-2:])}: set the processor's size, or use one crop"
            )
        for i in range(crops):
            # The long side is walked from end to end, the other one stays in the middle.
            top, left = (round(i * free / (crops - 1)) if free == max(room) else free // 2 for free in room)
            yield whole[..., top : top + height, left : left + width]

    def rank(self, scores: "torch.Tensor", top_k: int) -> list[Prediction]:
        """Return the ``top_k`` best classes of (L,) scores, best first."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        best = scores.topk(min(top_k, len(scores)))
        labels = self.model.config.id2label
        return [Prediction(labels[i], s) for s, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def check_finite(scores: "torch.Tensor") -> "torch.Tensor":
    """Return scores as they are, or raise a ValueError if they are no numbers."""
    if not scores.isfinite().all():
        raise ValueError("the model answers with NaN: its weights are damaged, or too large for float16 (try float32)")
    return scores
