"""The fastest that a machine multiplies matrices: what a model's speed is held against."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SIZES = (512, 1024, 2048, 4096, 8192, 16384)
LONG = 0.1  # seconds of a product after which no larger one is tried


def matmul_peak(dtype: "torch.dtype", device: "torch.device", *, seconds: float = 0.5) -> float:
    """Return the FLOP/s of the fastest product of two square matrices; an addition counts as one, too.

    Args:
        dtype: of the matrices.
        device: where they lie.
        seconds: that each size is tried for, at least twice; large sizes are for fast devices only.
    """
    import torch

    best = 0.0
    for size in SIZES:
        a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
        shortest = min(_timed(a, b, device) for _ in range(2))  # the first one prepares
        until = time.perf_counter() + seconds - 2 * shortest
        while time.perf_counter() < until:
            shortest = min(shortest, _timed(a, b, device))
        best = max(best, 2 * size**3 / shortest)
        if shortest > LONG:
            break
    return best


def wait_for(device: Any) -> None:
    """Wait until a device, a ``torch.device``, has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _timed(a: "torch.Tensor", b: "torch.Tensor", device: "torch.device") -> float:
    wait_for(device)
    began = time.perf_counter()
    a @ b
    wait_for(device)
    return time.perf_counter() - began
