"""Where a model runs: the device, and the group of processes that ``torchrun`` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(device: "torch.device | str | None") -> "torch.device":
    """Return the device asked for, or the best there is: CUDA, then MPS, then the CPU.

    Under ``torchrun`` "cuda", and None where there are GPUs, is that of the process: ``cuda:LOCAL_RANK``.
    """
    import torch

    if (
        int(os.environ.get("WORLD_SIZE", "1")) > 1
        and "LOCAL_RANK" in os.environ
        and (str(device) == "cuda" or (device is None and torch.cuda.is_available()))
    ):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device is not None:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(
                f"the device {str(device)!r} is not to be had here: use cpu, cuda, cuda:1 or mps (torchrun needs a GPU "
                "for each of its processes on a machine)"
            ) from error
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def torchrun_group(backend: str, *, timeout: timedelta | None = None) -> Iterator[int]:
    """Join the group of processes that ``torchrun`` started, if it did, and yield the rank; at the end all are awaited.

    Args:
        backend: "gloo" or "nccl".
        timeout: how long one may wait for another; None is the backend's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    import torch.distributed as dist

    dist.init_process_group(backend, timeout=timeout)
    try:
        yield dist.get_rank()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def process_of_group() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) where there is no group."""
    import torch.distributed as dist

    grouped = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
