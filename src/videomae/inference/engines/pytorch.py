"""The engine that every checkpoint runs on.

B clips · T frames · H height and W width in pixels · C channels
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from videomae.config import VideoMAEConfig
from videomae.inference.devices import compute_dtype
from videomae.inference.protocols import ViewTransform
from videomae.video.processors import VideoMAEImageProcessor

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """A PyTorch model, on the device where it is.

    Args:
        model: classifier or encoder.
        processor: turns frames into its input.
        dtype: that was asked for, in which the parameters are; None leaves it to the device, see `compute_dtype`.
    """

    name: ClassVar[str] = "torch"
    views: ClassVar[type[ViewTransform]] = ViewTransform

    def __init__(
        self, model: Any, processor: VideoMAEImageProcessor, *, dtype: "torch.dtype | str | None" = None
    ) -> None:
        self.model, self.processor = model, processor
        self._is_exact = dtype is not None

    @property
    def config(self) -> VideoMAEConfig:
        """Sizes of the model, names of its classes, and how the frames of a clip are chosen."""
        return self.model.config

    @property
    def dtype(self) -> str:
        """What the model computes in, such as "torch.bfloat16"."""
        return str(self._compute_dtype)

    @property
    def _compute_dtype(self) -> "torch.dtype":
        return self.model.dtype if self._is_exact else compute_dtype(self.model.device, self.model.dtype)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Let the model compute without gradients, in ``dtype``."""
        import torch

        dtype, device = self._compute_dtype, self.model.device.type
        autocast = torch.autocast(device, dtype) if dtype != self.model.dtype else nullcontext()
        with torch.inference_mode(), autocast:
            yield

    def load(self) -> None:
        """Do nothing: a model is ready."""

    def __call__(self, frames: "NDArray[np.uint8] | torch.Tensor") -> NDArray[np.float32]:
        """Run the model on (B, T, H, W, C) uint8, or on a tensor (B, T, C, H, W): uint8, or normalised floats.

        Returns:
            Logits (B, L) of a classifier, tokens (B, N, D) of an encoder, float32.
        """
        import torch

        pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3) if isinstance(frames, np.ndarray) else frames
        with self.computing():
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
