"""Other processes: those that a launcher such as ``torchrun`` started beside this one, and those it starts itself."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from videomae.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # in a container: microseconds of processor time, in so many
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
    """Return the number of processes on this machine, or the default where neither torchrun nor srun says."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    tasks = re.match(r"\d+", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))  # such as "8(x4)"
    return int(tasks[0]) if tasks else default


def processors() -> int:
    """Return how many processors this process may use: by its affinity, and by its container's share of time."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(min(affinity, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return affinity


def own_processors(num_processes: int) -> int:
    """Return the part of `processors` that is this process's own, beside others that a launcher started here.

    Args:
        num_processes: how many there are in all, where the launcher does not say how many are on this machine.
    """
    here = processors()
    # srun gives each task its own processors, unless it is told not to bind them; torchrun shares all.
    is_bound = here < int(os.environ.get("SLURM_CPUS_ON_NODE", "0"))
    return here if is_bound else max(here // local_world_size(num_processes), 1)


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


@contextmanager
def working_in(folder: Path, *, alone: bool = True) -> Iterator[None]:
    """Make a folder if need be, and be the only one that works in it for the block.

    The lock is the system's and ends with this process, however that ends; over NFS as far as its server keeps locks.
    On Windows there is none.

    Args:
        folder: that is written to.
        alone: False for all but one of several processes that share the work.

    Raises:
        CheckpointError: if another process is at work there, or the folder cannot be written to.
    """
    if not alone or fcntl is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {folder} ({error}): correct the rights, or name another --out."
        ) from error
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(lock, 200, 0).decode(errors="replace")
            raise CheckpointError(
                f"another process, {holder}, is at work in {folder}: wait until it ends, or name another --out."
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(lock)


def search_path() -> list[str]:
    """Return where modules are looked for, without the current folder, unless this package itself lies there."""
    here = Path.cwd()
    return [path for path in sys.path if path and (Path(path).resolve() != here or here == _PACKAGES)]
