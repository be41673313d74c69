"""Inspect many files in processes of their own: one that crashes a decoder or never ends costs nothing but itself."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread, Timer
from typing import Any

from videomae.data.audit.inspect import VideoFacts, inspect_video
from videomae.processes import processors, search_path


def inspect_videos(
    files: Sequence[str | Path],
    *,
    thumbnails: Collection[str | Path] = (),
    fps: Mapping[str | Path, float | None] | None = None,
    workers: int | None = None,
    timeout: float = 600.0,
) -> Iterator[VideoFacts]:
    """Look at many files, each in one of a few processes.

    Args:
        files: paths.
        thumbnails: those of the files of which to keep a picture.
        fps: frames per second of those that hold no times.
        workers: number of processes; by default one per processor.
        timeout: seconds after which a file is given up.

    Yields:
        The facts, in the order of ``files``.

    Raises:
        RuntimeError: if the processes cannot be started.
    """
    workers = max(min(workers or processors(), len(files)), 1)
    inspectors = [_Inspector(timeout) for _ in range(workers)]
    idle: SimpleQueue[_Inspector] = SimpleQueue()
    for inspector in inspectors:
        idle.put(inspector)

    def inspect(file: str | Path) -> VideoFacts:
        inspector = idle.get()
        try:
            return inspector(file, thumbnail=file in thumbnails, fps=(fps or {}).get(file))
        finally:
            idle.put(inspector)

    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(inspect, files)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for inspector in inspectors:
            inspector.kill()
        pool.shutdown()
        for inspector in inspectors:
            inspector.close()


class _Inspector:
    """A process that looks at files one by one; when it dies, or has to be killed, the next file gets another."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, file: str | Path, *, thumbnail: bool, fps: float | None = None) -> VideoFacts:
        process = self.process = self.process or _start()
        is_late = Event()

        def give_up() -> None:
            is_late.set()
            process.kill()

        timer = Timer(self.timeout, give_up)
        timer.start()
        facts = _ask(process, (file, thumbnail, fps))
        timer.cancel()
        timer.join()
        if facts is not None and not is_late.is_set():
            return facts
        code = process.wait()
        self.close()
        problem, found = "crashed", f"ended the process that read it (code {code})"
        if is_late.is_set():
            problem, found = "timed-out", f"takes longer than {self.timeout:g} s to read"
        reason = f"{file} {found}. Re-encode it or leave it out, or allow more time if it is just very long."
        return facts or VideoFacts(str(file), problem=problem, reason=reason)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()

    def close(self) -> None:
        """End the process and release its pipes."""
        self.kill()
        if self.process is not None:
            self.process.__exit__(None, None, None)
        self.process = None


def _start() -> "subprocess.Popen[bytes]":
    """Start a process that answers `_ask`; unlike those of multiprocessing, it does not import the caller's script."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path()), "OMP_NUM_THREADS": "1"},
    )
    if _ask(process, None) != _READY:
        with process:
            process.kill()
        raise RuntimeError(f"{sys.executable} cannot import {__name__} in a process of its own: see the lines above.")
    return process


def _ask(process: "subprocess.Popen[bytes]", question: Any) -> Any:
    """Send a question and return the answer; None if the process has ended."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process must have pipes for its input and output.")
    try:
        pickle.dump(question, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None


def serve() -> None:
    """Answer questions from the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_READY if question is None else _inspect_safely(*question), answers)
        answers.flush()


def _follow(parent: int) -> None:
    """End this process soon after its parent, whatever it is decoding."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _inspect_safely(file: str | Path, thumbnail: bool, fps: float | None) -> VideoFacts:
    try:
        return inspect_video(file, thumbnail=thumbnail, fps=fps)
    except Exception as error:  # whatever it is, it must not end the run
        return VideoFacts(str(file), problem="unreadable", reason=f"{file}: {type(error).__name__}: {error}")


_READY = "ready"
PROGRAM = f"from {__name__} import serve; serve()"
