"""The engine that every checkpoint runs on.

B clips · T frames · H height and W width in pixels · C channels
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig
from videomae.inference.protocols import ViewTransform
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """A PyTorch model, on the device where it is.

    Args:
        model: classifier or encoder.
        processor: turns frames into its input.
    """

    name: ClassVar[str] = "torch"
    views: ClassVar[type[ViewTransform]] = ViewTransform

    def __init__(self, model: Any, processor: VideoMAEImageProcessor) -> None:
        self.model, self.processor = model, processor

    @property
    def config(self) -> VideoMAEConfig:
        """Sizes of the model, names of its classes, and how the frames of a clip are chosen."""
        return self.model.config

    def load(self) -> None:
        """Do nothing: a model is ready."""

    def __call__(self, frames: "NDArray[np.uint8] | torch.Tensor") -> NDArray[np.float32]:
        """Run the model on (B, T, H, W, C) uint8, or on a tensor (B, T, C, H, W): uint8, or normalised floats.

        Returns:
            Logits (B, L) of a classifier, tokens (B, N, D) of an encoder, float32.
        """
        import torch

        pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3) if isinstance(frames, np.ndarray) else frames
        with torch.inference_mode():
            pixels = pixels.to(self.model.device)
            if pixels.dtype == torch.uint8:
                mean, std = (torch.from_numpy(v).to(pixels.device).view(-1, 1, 1) for v in self.processor.normalization)
                pixels = pixels.float().sub_(mean).div_(std)
            outputs = self.model(pixels.to(dtype=self.model.dtype), return_dict=True)
            found = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
            return found.float().cpu().numpy()


class ProcessedEngine(TorchEngine):
    """A PyTorch model with its processor before it, for frames that are yet to be resized and cropped."""

    def __call__(self, frames: "NDArray[np.uint8] | torch.Tensor") -> NDArray[np.float32]:
        """Process (B, T, H, W, C) uint8 frames of any size, then run the model."""
        return super().__call__(self.processor([list(clip) for clip in frames], return_tensors="pt").pixel_values)
