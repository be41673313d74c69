"""The model that is served: a classifier on any engine, or a pre-trained model that reconstructs.

B clips · T frames of H x W pixels · L classes · D width
"""

import base64
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig
from videomae.errors import CheckpointError
from videomae.inference.classifier import VideoClassifier
from videomae.inference.engines.formats import EngineName, open_exported
from videomae.serving.refusals import BAD_REQUEST, NOT_FOUND, UNREADABLE, Refusal
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    from torch import Tensor

    from videomae.inference.loading import LoadedModel
    from videomae.models.videomae import VideoMAEForPreTraining

Clips = NDArray[np.uint8]  # (B, T, H, W, 3), resized and cropped
MaskName = Literal["tube", "random", "frame"]


class ServedModel:
    """The model that is served.

    Args:
        name: by which it is asked for.
        classifier: a fine-tuned model; or
        pretrained: one with its decoder.
    """

    def __init__(
        self,
        name: str,
        *,
        classifier: VideoClassifier | None = None,
        pretrained: "LoadedModel[VideoMAEForPreTraining] | None" = None,
    ) -> None:
        self.name, self.classifier, self.pretrained = name, classifier, pretrained
        opened: Any = classifier or pretrained
        self.config: VideoMAEConfig = opened.model.config
        self.processor: VideoMAEImageProcessor = opened.processor
        if self.config.num_channels != 3:
            raise ValueError(f"a served model sees RGB, got one of {self.config.num_channels} channels.")

    @classmethod
    def open(
        cls,
        path_or_id: str | Path,
        *,
        name: str | None = None,
        engine: EngineName | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Open a checkpoint or an exported model; arguments as for ``VideoClassifier.from_pretrained``."""
        name = name or Path(path_or_id).name
        exported = open_exported(path_or_id, "classification", engine, device=device, dtype=dtype)
        if exported is not None:
            return cls(name, classifier=VideoClassifier(exported, exported.processor))
        from videomae.inference.loading import open_model
        from videomae.inference.reconstruct import load_pretrained
        from videomae.models.pretrained import PretrainedModel

        opened: Any = open_model(path_or_id, PretrainedModel, device=device, dtype=dtype)
        if opened.model.task == "classification":
            return cls(name, classifier=VideoClassifier(opened.model, opened.processor, dtype=dtype))
        if opened.model.task == "pretraining":
            return cls(name, pretrained=load_pretrained(path_or_id, device=device))
        raise CheckpointError(
            f"{path_or_id} is an encoder: serve a classifier, or a pre-trained model with its decoder."
        )

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none of a pre-trained model."""
        return list(self.config.id2label.values()) if self.classifier else []

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3) of the clips that the model takes."""
        return self.config.num_frames, *self.config.frame_size, 3

    @property
    def is_torch(self) -> bool:
        """Whether the model can be asked for more than its answers."""
        return self.classifier is None or self.classifier.engine.name == "torch"

    def logits(self, clips: Clips) -> NDArray[np.float32]:
        """Return the logits of a classifier, (B, L)."""
        if self.classifier is None:
            raise Refusal(NOT_FOUND, f"{self.name} is a pre-trained model without classes: ask /reconstruct or /embed.")
        if clips.shape[1:] != self.clip_shape:
            raise Refusal(
                UNREADABLE,
                f"the model takes clips of {self.clip_shape}, this video gives {clips.shape[1:]}. Resize it.",
            )
        found = self.classifier.engine(clips)
        if np.isnan(found).any():
            raise ValueError("the model answers with NaN: its weights are damaged, or too large for float16.")
        return found

    def embedding(self, clip: Clips) -> NDArray[np.float32]:
        """Return the mean of the encoder's tokens for one clip, (D,)."""
        from videomae.inference.embedder import VideoEmbedder

        encoder = self._torch_model("features").videomae
        return VideoEmbedder(encoder, self.processor).encode([self._pixel_values(clip)], -1)[0].mean(axis=0)

    def explain(self, clip: Clips, label: str | None) -> dict[str, Any]:
        """Say where in a clip the classifier finds a class, ready for JSON."""
        from videomae.inference.explain import explain

        model = self._torch_model("explanations")
        try:
            found = explain(list(clip), model, self._as_it_is(), label=label, stride=1)
        except ValueError as error:
            raise Refusal(BAD_REQUEST, str(error)) from error
        return {
            "label": found.label,
            "score": found.score,
            "predicted": found.predicted,
            "map": found.map.round(7).tolist(),
            "scale": found.scale,
        }

    def reconstruct(self, clip: Clips, mask: MaskName, mask_ratio: float, seed: int) -> dict[str, Any]:
        """Hide a part of a clip and let the model predict it, ready for JSON; pictures are strips of the T frames."""
        import torch

        from videomae.inference.reconstruct import reconstruct
        from videomae.models.masking import find_mask

        if self.pretrained is None:
            raise Refusal(NOT_FOUND, f"{self.name} is a classifier, without a decoder: serve the pre-trained model.")
        generator = torch.Generator().manual_seed(seed)
        try:
            hidden = find_mask(mask)(self.config.grid, mask_ratio, generator=generator)
        except ValueError as error:
            raise Refusal(BAD_REQUEST, f"{error} Name another mask_ratio or mask.") from error
        found = reconstruct(self.pretrained.model, self._pixel_values(clip), hidden)
        return {
            "mask_ratio": float(hidden.float().mean()),
            "loss": found.loss,
            "error_by_slot": [None if np.isnan(error) else float(error) for error in found.error_by_slot],
            "frames": len(found.original),
            "views": {title.replace("\n", " "): _strip(frames) for title, frames in found.rows.items()},
        }

    def _torch_model(self, what: str) -> Any:
        if not self.is_torch:
            raise Refusal(NOT_FOUND, f"an exported model gives no {what}: serve the checkpoint that it was made from.")
        return (self.classifier or self.pretrained).model  # type: ignore[union-attr]

    def _as_it_is(self) -> VideoMAEImageProcessor:
        """Return the processor for clips that are resized and cropped."""
        return dataclasses.replace(self.processor, do_resize=False, do_center_crop=False)

    def _pixel_values(self, clip: Clips) -> "Tensor":
        return self._as_it_is()(list(clip), return_tensors="pt", input_data_format="channels_last").pixel_values


def apply(function: str, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (..., L) into scores by "softmax", "sigmoid" or "none"."""
    if function == "none":
        return logits
    if function == "sigmoid":
        return np.exp(-np.logaddexp(np.float32(0), -logits))
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _strip(frames: NDArray[np.uint8]) -> str:
    """Return frames (T, H, W, 3), one below the other, as the address of a picture."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(content, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
