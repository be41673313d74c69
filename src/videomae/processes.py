"""The processes that a launcher such as ``torchrun`` or ``accelerate launch`` started, as it tells each of them."""

import os


def world_size() -> int:
    """Return the number of processes; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """Return the number of this process on its machine, from 0; None without a launcher."""
    local = os.environ.get("LOCAL_RANK")
    return None if local is None else int(local)


def local_world_size(default: int) -> int:
    """Return the number of processes on this machine, or the default where the launcher does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", default))
