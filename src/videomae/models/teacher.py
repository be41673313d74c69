"""A small (2+1)-D convolutional network, which learns a few hundred videos sooner than a transformer does.

Neighbouring pixels and frames matter to it from the first step, where a transformer has to find out that they do. It is
the teacher of `videomae.training.distillation`, and is thrown away after that.

Shapes: B clips, T frames, C channels, H x W pixels; N tubelets; F features of a stage; L classes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: of red, green and blue


def to_grey(pixel_values: Tensor) -> Tensor:
    """Weight the channels of clips by their luma: (B, T, 3, H, W) to (B, T, 1, H, W); grey ones stay as they are."""
    if pixel_values.shape[2] == 1:
        return pixel_values
    luma = torch.tensor(LUMA, device=pixel_values.device, dtype=pixel_values.dtype)
    return torch.einsum("btchw,c->bthw", pixel_values, luma)[:, :, None]


class Stage(nn.Module):
    """A convolution in space, then one in time, each with half the resolution, beside a linear short cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(inputs, outputs, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.space_norm = nn.BatchNorm3d(outputs)
        self.time = nn.Conv3d(outputs, outputs, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False)
        self.time_norm = nn.BatchNorm3d(outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Halve time, height and width."""
        moved = self.time_norm(self.time(F.relu(self.space_norm(self.space(x)))))
        return F.relu(moved + self.shortcut(x))


class Teacher(nn.Module):
    """Classify clips, and show what two stages make of each place.

    The second stage has a stride of 4 frames and 8 x 8 pixels: the grid of the tokens of a model with such tubelets.
    For other grids features are interpolated.

    Args:
        num_labels: L.
        grid: tubelets along (time, height, width), for which features are returned.
        width: channels of the stem, which double at each stage; 16 makes 0.3 M parameters.
        dropout: before the classifier.
    """

    def __init__(self, num_labels: int, grid: tuple[int, int, int], *, width: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        self.grid = grid
        self.feature_widths = (4 * width, 8 * width)
        self.stem = nn.Conv3d(1, width, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)
        self.stem_norm = nn.BatchNorm3d(width)
        self.stages = nn.ModuleList(Stage(width * 2**i, width * 2 ** (i + 1)) for i in range(3))
        # What is regressed has mean 0 and deviation 1 over the training clips.
        self.feature_norms = nn.ModuleList(nn.BatchNorm3d(features, affine=False) for features in self.feature_widths)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(8 * width, num_labels)
        self.to(memory_format=torch.channels_last_3d)  # a third faster on a CPU

    def forward(self, pixel_values: Tensor, return_dict: Any = None) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, L), and standardised features (B, N, F) after the second and the third stage.

        Args:
            pixel_values: (B, T, 3 or 1, H, W), normalised.
            return_dict: has no effect; there for what calls models.
        """
        x = to_grey(pixel_values).transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)  # (B, 1, T, H, W)
        first = self.stages[0](F.relu(self.stem_norm(self.stem(x))))
        second = self.stages[1](first)
        third = self.stages[2](second)
        logits = self.classifier(self.dropout(third.mean(dim=(2, 3, 4))))
        return logits, [self._at_tokens(i, x.detach()) for i, x in enumerate((second, third))]

    def _at_tokens(self, stage: int, features: Tensor) -> Tensor:
        """Standardise the features of a stage and bring them to the grid: (B, F, ...) to (B, N, F)."""
        features = self.feature_norms[stage](features)
        if features.shape[2:] != self.grid:
            features = F.interpolate(features, self.grid, mode="trilinear")
        return features.flatten(2).transpose(1, 2)
