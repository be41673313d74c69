"""A model behind its processor, as one module: 8-bit frames in, what the model says out.

B clips · T frames · H height and W width in pixels · C channels
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.models.pretrained import PretrainedModel
from videomae.video.processors import VideoMAEImageProcessor

FILTERS = {2: "bilinear", 3: "bicubic"}  # by Pillow's number, those that are a matrix in torch, too


class FramesIn(nn.Module):
    """Normalise frames, and on request resize and crop them, inside the model.

    Args:
        model: classifier or encoder, in evaluation mode.
        processor: of the model.
        source_size: (height, width) of frames that are resized and cropped here; None takes frames of the model's size.

    Raises:
        ValueError: if the processor resizes with a filter that is no matrix here.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: PretrainedModel,
        processor: VideoMAEImageProcessor,
        *,
        source_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.from_numpy(values).view(-1, 1, 1) for values in processor.normalization)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.resize = None if source_size is None else ResizeAndCrop(processor, source_size)

    def forward(self, frames: Tensor) -> Tensor:
        """Run the model on (B, T, H, W, C) uint8; logits (B, L) or tokens (B, N, D), float32."""
        pixels = frames.permute(0, 1, 4, 2, 3).to(torch.float32)  # (B, T, C, H, W)
        if self.resize is not None:
            pixels = self.resize(pixels)
        pixels = (pixels - self.mean) / self.std
        outputs = self.model(pixels.to(self.model.dtype), return_dict=True)
        found = outputs.logits if self.model.task == "classification" else outputs.last_hidden_state
        return found.to(torch.float32)


class ResizeAndCrop(nn.Module):
    """Resize and crop frames of one size as a processor does: antialiased resizing is a matrix for each axis.

    Args:
        processor: says how.
        source_size: (height, width) of the frames.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, processor: VideoMAEImageProcessor, source_size: tuple[int, int]) -> None:
        super().__init__()
        sizes, crops = processor.sizes_of(*source_size)
        filters = int(processor.resample)
        if filters not in FILTERS:
            raise ValueError(
                f"the processor's filter, Pillow's number {filters}, cannot be exported: resize frames first."
            )
        rows, columns = (
            crop_rows(resize_matrix(source, size, FILTERS[filters]), crop)
            for source, size, crop in zip(source_size, sizes, crops, strict=True)
        )
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (..., H, W) in 0-255 to the processor's size; rounded after each axis, as 8-bit frames are."""
        across = (pixels @ self.columns).round().clamp(0, 255)
        return (self.rows @ across).round().clamp(0, 255)


def resize_matrix(source: int, size: int, mode: str) -> Tensor:
    """Return the (size, source) weights with which torch resizes one axis, antialiased."""
    if source == size:
        return torch.eye(source)
    return F.interpolate(torch.eye(source)[None, None], (size, source), mode=mode, align_corners=False, antialias=True)[
        0, 0
    ]


def crop_rows(matrix: Tensor, count: int) -> Tensor:
    """Keep the middle ``count`` rows; where there are fewer, put zeros around them."""
    missing = max(count - len(matrix), 0)
    matrix = F.pad(matrix, (0, 0, missing // 2, (missing + 1) // 2))
    start = (len(matrix) - count) // 2
    return matrix[start : start + count]
