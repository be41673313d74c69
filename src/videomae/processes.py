"""Other processes: those that a launcher such as ``torchrun`` started beside this one, and those it starts itself."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parents[1]  # where this package lies


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


def wait_passively() -> None:
    """Let threads of this process and of those that it starts sleep while they wait for each other.

    OpenMP's spin by default, so that beside another busy process they lose not its share but nearly all of their time;
    benchmarks/waiting.py shows it. It reads this when torch is imported, so call it before; what the environment says
    already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment for the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def safe_path() -> AbstractContextManager[None]:
    """Let Python processes that are started in the block import nothing from the current folder.

    It comes first for ``python -c`` and ``-m``, by which multiprocessing starts its own, and may be a folder of videos
    in which a stranger put a ``numpy.py``.
    """
    return environment("PYTHONSAFEPATH", "1")


def search_path() -> list[str]:
    """Return where modules are looked for, without the current folder, unless this package itself lies there."""
    here = Path.cwd()
    return [path for path in sys.path if path and (Path(path).resolve() != here or here == _PACKAGES)]
