"""Tubelets: cutting them out of a clip and putting them together, embedding them, and the table of their positions.

Shapes: B clips, T frames, C channels, H x W pixels; N tubelets, K of them in use; (t, p, q) frames, height and width
of a tubelet; D width.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomae.config import VideoMAEConfig

TABLE_ROWS = 1024  # of a position table that are computed at a time: float64 takes three times its memory


def cut_tubelets(pixel_values: Tensor, tubelet_shape: tuple[int, int, int], indices: Tensor | None = None) -> Tensor:
    """Cut clips into tubelets, copying the pixels of the chosen ones only.

    Args:
        pixel_values: (B, T, C, H, W), each side divisible by that of a tubelet.
        tubelet_shape: (t, p, q).
        indices: (B, K) positions in (time, height, width) order; None takes all.

    Returns:
        (B, K, C, t, p, q).
    """
    t, p, q = tubelet_shape
    cells = pixel_values.unflatten(4, (-1, q)).unflatten(3, (-1, p)).unflatten(1, (-1, t))
    cells = cells.permute(0, 1, 4, 6, 3, 2, 5, 7)  # (B, T/t, H/p, W/q, C, t, p, q)
    if indices is None:
        return cells.flatten(1, 3)
    height, width = cells.shape[2:4]
    clip = torch.arange(cells.shape[0], device=indices.device)[:, None]
    return cells[clip, indices // (height * width), indices // width % height, indices % width]


def unpatchify(tubelets: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Put the tubelets of clips together again: the inverse of `cut_tubelets`.

    Args:
        tubelets: (B, N, C, t, p, q), all of a clip, in (time, height, width) order.
        grid: tubelets along (time, height, width).

    Returns:
        (B, T, C, H, W).
    """
    cells = tubelets.unflatten(1, grid)  # (B, T/t, H/p, W/q, C, t, p, q)
    cells = cells.permute(0, 1, 5, 4, 2, 6, 3, 7)  # (B, T/t, t, C, H/p, p, W/q, q)
    return cells.flatten(6, 7).flatten(4, 5).flatten(1, 2)


class PatchEmbed(nn.Module):
    """Linear embedding of tubelets, by the convolution that it is."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.tubelet_shape = config.tubelet_shape
        self.clip_shape = (config.num_frames, config.num_channels, *config.frame_size)
        self.proj = TubeletConv(config.num_channels, config.hidden_size, self.tubelet_shape, self.tubelet_shape)

    def forward(self, pixel_values: Tensor, indices: Tensor | None = None) -> Tensor:
        """Embed the tubelets at (B, K) ``indices``, or all: (B, T, C, H, W) to (B, K, D).

        Raises:
            TypeError: if the pixels are not floating-point numbers.
            ValueError: if the clips are not of the size that the model is made for.
        """
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"pixel_values must be normalised floats, got {pixel_values.dtype}: use the model's processor."
            )
        if pixel_values.shape[1:] != self.clip_shape:
            raise ValueError(
                "pixel_values must be (batch, frames, channels, height, width) = "
                f"(B, {', '.join(map(str, self.clip_shape))}), got {tuple(pixel_values.shape)}. For clips of another "
                "size load the model with num_frames=, image_size= or num_channels=."
            )
        tubelets = cut_tubelets(pixel_values, self.tubelet_shape, indices).to(self.proj.weight.dtype)
        return self.proj(tubelets.flatten(0, 1)).flatten(1).unflatten(0, (-1, tubelets.shape[1]))  # (B, K, D)


class TubeletConv(nn.Conv3d):
    """A convolution over whole tubelets, (N, C, t, p, q) to (N, D, 1, 1, 1): one matrix product, ten times as fast."""

    def forward(self, tubelets: Tensor) -> Tensor:
        """Convolve; what is larger than one tubelet as any convolution."""
        if tubelets.shape[2:] != self.kernel_size:
            return super().forward(tubelets)
        return F.linear(tubelets.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


class PositionTable(nn.Module):
    """The fixed position embedding of every tubelet: a 1-D sinusoid over the flattened (time, height, width) index.

    Args:
        config: its grid, and how a table for another grid than the trained one is made.
        width: D.
    """

    def __init__(self, config: VideoMAEConfig, width: int) -> None:
        super().__init__()
        self.grid, self.width = config.grid, width
        self.trained_grid = config.position_grid if config.position_embedding == "interpolate" else None
        self.table: Tensor
        self.register_buffer("table", torch.empty(config.num_tubelets, width), persistent=False)
        if not self.table.is_meta:  # accelerate may put the parameters of a model there, and nothing else
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the table; on the meta device there is none until a model is filled, and then it is on the CPU."""
        table = sinusoid_table(self.trained_grid or self.grid, self.width)
        if self.trained_grid:
            table = interpolate_table(table, self.trained_grid, self.grid)
        device = "cpu" if self.table.is_meta else self.table.device
        self.table = table.to(device=device, dtype=self.table.dtype)

    def forward(self, indices: Tensor | None = None) -> Tensor:
        """Return the embeddings (B, K, D) of the positions (B, K), or all as (N, D)."""
        return self.table if indices is None else self.table[indices]


def sinusoid_table(grid: tuple[int, int, int], width: int) -> Tensor:
    """Compute angle(n, j) = n / 10000^(2 * (j // 2) / D) in float64; sine on even j, cosine on odd j (v1, v2, HF).

    Args:
        grid: tubelets along (time, height, width); n runs over the flattened grid.
        width: D.

    Returns:
        (N, D) float32.
    """
    divisors = np.power(10000, 2 * (np.arange(width) // 2) / width)
    table = np.empty((int(np.prod(grid)), width), np.float32)
    for first in range(0, len(table), TABLE_ROWS):
        rows = table[first : first + TABLE_ROWS]
        angles = np.arange(first, first + len(rows))[:, None] / divisors  # (rows, D)
        rows[:, 0::2], rows[:, 1::2] = np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])
    return torch.from_numpy(table)


def interpolate_table(table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]) -> Tensor:
    """Resample a position table linearly along time, height and width.

    Args:
        table: (N, D) for the grid ``old``.
        old: tubelets along (time, height, width) that the table is for.
        new: the same for the result.

    Returns:
        (N', D) for the grid ``new``.
    """
    volume = table.T.unflatten(1, old)[None]  # (1, D, T, H, W)
    return F.interpolate(volume, size=new, mode="trilinear").flatten(2)[0].T.contiguous()
