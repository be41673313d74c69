"""Where a model runs: the device, and the group of processes that ``torchrun`` started."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from videomae.processes import local_rank, world_size

if TYPE_CHECKING:
    import torch


def choose_device(device: "torch.device | str | None") -> "torch.device":
    """Return the device that was named, or the best there is: CUDA, then MPS, then the CPU.

    Under ``torchrun`` "cuda", and None where there are GPUs, is that of the process: ``cuda:LOCAL_RANK``.

    Raises:
        ValueError: if the device is not available.
    """
    import torch

    may_be_cuda = str(device) == "cuda" or (device is None and torch.cuda.is_available())
    if may_be_cuda and world_size() > 1 and local_rank() is not None:
        device = f"cuda:{local_rank()}"
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"the device {str(device)!r} is not available on this machine: use cpu, cuda, cuda:1 or mps. "
            "torchrun needs a GPU for each of its processes on a machine."
        ) from error
    return chosen


def compute_dtype(device: "torch.device", parameters: "torch.dtype") -> "torch.dtype":
    """Return what a model computes in unless that is asked for: bfloat16 for float32 on a CUDA GPU that has it."""
    import torch

    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 and parameters is torch.float32 else parameters


@contextmanager
def torchrun_group(*, timeout: timedelta | None = None) -> Iterator[int]:
    """Join the group of processes that ``torchrun`` started, if it did, and yield the rank; at the end all are awaited.

    What they exchange are results, from the memory of the host: Gloo does it, which needs no GPU.

    Args:
        timeout: how long one may wait for another; None is Gloo's own, 30 minutes.
    """
    if world_size() == 1:
        yield 0
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timeout)
    try:
        yield dist.get_rank()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def process_of_group() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) where there is no group."""
    if "torch" not in sys.modules:  # which takes two seconds to import
        return 0, 1
    import torch.distributed as dist

    grouped = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
