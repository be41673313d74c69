"""Which tubelets to hide: the masks of VideoMAE and VideoMAE V2, and the check that a mask can be used.

A mask is (B, N) bool, True = masked; N runs over (time, height, width). Every clip of a batch hides the same number.
Shapes: B clips, N tubelets, V visible, M masked; T, H, W the grid.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from videomae.config import nearest
from videomae.models.patches import cut_tubelets

Grid = tuple[int, int, int]


def tube_mask(grid: Grid, mask_ratio: float, *, batch_size: int = 1, generator: Generator | None = None) -> Tensor:
    """Hide the same random places in every time slot of a clip (VideoMAE, section 3.3).

    Args:
        grid: tubelets along (time, height, width), e.g. (8, 14, 14).
        mask_ratio: fraction of each time slot to hide; int(ratio * H * W) places are hidden.
        batch_size: number of clips.
        generator: seeded source of randomness, to repeat a mask.

    Returns:
        (B, N) bool, True = masked; every row hides the same number.

    Raises:
        ValueError: if ``mask_ratio`` hides nothing or everything.
    """
    time, height, width = grid
    slot = _random_rows(batch_size, height * width, mask_ratio, generator)
    return slot.repeat(1, time)


def random_mask(grid: Grid, mask_ratio: float, *, batch_size: int = 1, generator: Generator | None = None) -> Tensor:
    """Hide int(ratio * N) tubelets anywhere in space and time; arguments, result and errors as ``tube_mask``."""
    time, height, width = grid
    return _random_rows(batch_size, time * height * width, mask_ratio, generator)


def frame_mask(grid: Grid, mask_ratio: float, *, batch_size: int = 1, generator: Generator | None = None) -> Tensor:
    """Hide int(ratio * T) whole time slots; arguments, result and errors as ``tube_mask``."""
    time, height, width = grid
    return _random_rows(batch_size, time, mask_ratio, generator).repeat_interleave(height * width, dim=1)


def running_cell_mask(
    grid: Grid, mask_ratio: float = 0.5, *, batch_size: int = 1, generator: Generator | None = None
) -> Tensor:
    """Hide half of every 2x2 cell, moving on by one place each time slot (the decoder mask of VideoMAE V2).

    A cell's places, read row by row, take turns in a queue of two hidden and two shown ones; each clip starts the
    queue at one of its 4 phases at random.

    Args:
        grid: tubelets along (time, height, width); height and width must be even.
        mask_ratio: 0.25, 0.5 or 0.75, the fraction of a cell to hide; V2 uses 0.5.
        batch_size: number of clips.
        generator: seeded source of randomness, to repeat a mask.

    Returns:
        (B, N) bool, True = masked: the decoder drops these.

    Raises:
        ValueError: if height or width is odd, or the ratio is not a number of quarters.
    """
    phases = torch.randint(4, (batch_size,), generator=generator)
    return running_cell_maps(grid, mask_ratio)[phases]


def running_cell_maps(grid: Grid, mask_ratio: float = 0.5) -> Tensor:
    """Return the (4, N) bool masks of ``running_cell_mask``, one for each starting phase."""
    time, height, width = grid
    if height % 2 or width % 2:
        raise ValueError(f"a running-cell mask needs an even height and width, got a grid of {grid}.")
    hidden = round(4 * mask_ratio)
    if hidden != 4 * mask_ratio or hidden not in (1, 2, 3):
        raise ValueError(f"a running-cell mask hides 0.25, 0.5 or 0.75 of a cell, got {mask_ratio}.")
    queue = torch.arange(4) < hidden
    maps = torch.empty(4, time, height // 2, 2, width // 2, 2, dtype=torch.bool)
    for phase in range(4):
        for slot in range(time):
            maps[phase, slot] = queue.roll(-(phase + slot + 1)).view(1, 2, 1, 2)
    return maps.view(4, -1)


def partial_mask(mask: Tensor, drop_ratio: float, *, generator: Generator | None = None) -> Tensor:
    """Let the decoder predict a part of the hidden tubelets, drawn at random (CrossMAE's partial reconstruction).

    Args:
        mask: (B, N) bool, True = hidden from the encoder, as many in every row.
        drop_ratio: fraction of the hidden ones that is not predicted, in [0, 1).
        generator: seeded source of randomness, to repeat a mask.

    Returns:
        (B, N) bool, True = the decoder drops it: all that the encoder sees, and this part of what it does not.

    Raises:
        ValueError: for another ratio.
    """
    if not 0 <= drop_ratio < 1:
        raise ValueError(f"the decoder can drop a fraction from 0 to below 1 of the hidden tubelets, got {drop_ratio}.")
    hidden = count_masked(mask)
    draws = torch.rand(mask.shape, generator=generator).masked_fill(~mask, 2.0)  # what is seen comes last
    return draws.argsort(dim=1).argsort(dim=1) >= hidden - int(drop_ratio * hidden)


MASKS: dict[str, Callable[..., Tensor]] = {
    "tube": tube_mask,
    "random": random_mask,
    "frame": frame_mask,
    "running_cell": running_cell_mask,
}


def find_mask(name: str) -> Callable[..., Tensor]:
    """Return a mask of `MASKS` by its name.

    Raises:
        ValueError: if there is no such mask.
    """
    if name not in MASKS:
        raise ValueError(f"there is no mask {name!r}{nearest(name, MASKS)}. Known: {', '.join(MASKS)}.")
    return MASKS[name]


def check_mask(mask: Tensor, *, batch_size: int, num_tubelets: int, name: str = "bool_masked_pos") -> None:
    """Check what can be checked without looking at a mask's values.

    Args:
        mask: (B, N) bool, True = masked.
        batch_size: B.
        num_tubelets: N.
        name: of the argument, for the error.

    Raises:
        TypeError: if the mask is not boolean.
        ValueError: if its shape is wrong.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be a bool tensor (True = masked), got {mask.dtype}: convert it with `.bool()`.")
    if mask.shape != (batch_size, num_tubelets):
        raise ValueError(
            f"{name} must have one row per clip and one column per tubelet, {(batch_size, num_tubelets)}, "
            f"got {tuple(mask.shape)}."
        )


def count_masked(mask: Tensor, *, name: str = "bool_masked_pos") -> int:
    """Return how many tubelets each clip hides, M.

    Args:
        mask: (B, N) bool, True = masked.
        name: of the argument, for the error.

    Raises:
        ValueError: if clips hide different numbers, or nothing is left to see.
    """
    counts = mask.sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"every clip in a batch must hide the same number of tubelets, got {counts} masked per clip.\n"
            "Draw masks with `tube_mask`, or encode the clips one at a time."
        )
    if counts[0] == mask.shape[1]:
        raise ValueError(f"{name} hides all {mask.shape[1]} tubelets: nothing is left to see.")
    return counts[0]


def split_indices(mask: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    """Return where a mask is False and where it is True, in order, without a shape that depends on the data.

    Args:
        mask: (B, N) bool with ``num_masked`` True in every row.
        num_masked: M.

    Returns:
        (B, N - M) and (B, M) int64 positions.
    """
    length = mask.shape[1]
    order = (mask * length + torch.arange(length, device=mask.device)).argsort(dim=1)  # distinct: ONNX sorts unstably
    return order[:, : length - num_masked], order[:, length - num_masked :]


def moving_tubelets(
    pixel_values: Tensor, tubelet_shape: Grid, *, num_visible: int, jitter: float = 0.3, generator: Generator
) -> Tensor:
    """Choose the tubelets that differ most from the clip's still picture, its median over time.

    Args:
        pixel_values: (B, T, 1, H, W).
        tubelet_shape: frames, height and width of a tubelet.
        num_visible: V.
        jitter: ranks are lowered at random by up to this fraction of N, so that the choice varies.
        generator: seeded source of that randomness, on the CPU.

    Returns:
        (B, V) int64 positions, in order.
    """
    still = pixel_values.median(dim=1, keepdim=True).values
    moves = cut_tubelets((pixel_values - still).square(), tubelet_shape).flatten(2).mean(dim=2)  # (B, N)
    ranks = moves.argsort(dim=1).argsort(dim=1) / moves.shape[1]
    lowered = ranks - jitter * torch.rand(ranks.shape, generator=generator).to(ranks.device)
    return lowered.topk(num_visible, dim=1).indices.sort(dim=1).values


def _random_rows(rows: int, columns: int, mask_ratio: float, generator: Generator | None) -> Tensor:
    """Return (rows, columns) bool with int(ratio * columns) True at random places of every row."""
    hidden = int(mask_ratio * columns)
    if not 0 < hidden < columns:
        raise ValueError(
            f"a mask ratio of {mask_ratio} hides {hidden} of {columns} places: it must hide some, not all."
        )
    ranks = torch.rand(rows, columns, generator=generator).argsort(dim=1).argsort(dim=1)
    return ranks < hidden
