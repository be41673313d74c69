"""Decoding processes: a file that crashes or hangs one costs that process and one answer, nothing else."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.processes import search_path
from videomae.serving.channel import receive_async, send
from videomae.serving.decoding import ClipDecoder
from videomae.serving.metrics import Metrics
from videomae.serving.refusals import UNAVAILABLE, UNREADABLE, Refusal
from videomae.serving.worker import PROGRAM
from videomae.video.limits import variable

log = logging.getLogger(__name__)
START_SECONDS = 120.0
DTYPES = {"uint8": np.uint8, "float64": np.float64}
LOST = "the upload ended the process that decoded it. Re-encode it, and send it again."

Decoded = tuple[dict[str, Any], NDArray[Any]]


class DecoderPool:
    """A few decoding processes.

    Args:
        decoder: what each of them does.
        metrics: counts those that are lost.
    """

    def __init__(self, decoder: ClipDecoder, metrics: Metrics) -> None:
        self.decoder, self.metrics = decoder, metrics
        self.workers = [_Worker(decoder) for _ in range(decoder.limits.num_workers)]
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes.

        Raises:
            Refusal: if one cannot be started.
        """
        await asyncio.gather(*(worker.start() for worker in self.workers))
        for worker in self.workers:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        """End all processes."""
        for task in list(self._starting):
            task.cancel()
        for worker in self.workers:
            worker.end()

    @asynccontextmanager
    async def ask(self, file: int, **question: Any) -> AsyncIterator[AsyncIterator[Decoded]]:
        """Ask a process about an upload; where the block ends before the answer, the process is ended, too.

        Args:
            file: descriptor of the open file, or of a pipe.
            question: what to do, and its options; see `worker.serve`.

        Yields:
            The clips as they come, each with what is said about it. They raise a Refusal, for what the upload is.
        """
        worker = await self._idle.get()
        worker.is_busy = True
        try:
            if not worker.is_alive:
                await worker.start()
            send(worker.channel, question, files=[file])
            waits = self.decoder.limits.decode_seconds
            waits += self.decoder.limits.upload_seconds if question.get("live") else 0
            yield self._answers(worker, waits)
        finally:
            if worker.is_busy:
                worker.end()
                self.metrics.workers_lost.inc()
                task = asyncio.create_task(self._restart(worker))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            else:
                self._idle.put_nowait(worker)

    async def _answers(self, worker: "_Worker", waits: float) -> AsyncIterator[Decoded]:
        while True:
            try:
                async with asyncio.timeout(waits):
                    about, content = await receive_async(worker.reader)
            except TimeoutError:
                raise Refusal(
                    UNREADABLE, f"the upload takes longer than {waits:g} s to decode. Re-encode it, or send a part."
                ) from None
            except (EOFError, ConnectionError):
                raise Refusal(UNREADABLE, LOST) from None
            if about.get("last"):
                worker.is_busy = False
                if "error" in about:
                    raise Refusal(int(about["status"]), str(about["error"]))
                return
            try:
                array = np.frombuffer(content, DTYPES[about.pop("dtype")]).reshape(about.pop("shape"))
            except (KeyError, TypeError, ValueError):
                raise Refusal(UNREADABLE, LOST) from None
            yield about, array

    async def _restart(self, worker: "_Worker") -> None:
        try:
            await worker.start()
        except Refusal as error:
            log.error("%s", error.message)
        self._idle.put_nowait(worker)  # the next question tries again


class _Worker:
    """A decoding process and the socket through which it answers."""

    def __init__(self, decoder: ClipDecoder) -> None:
        self.decoder = decoder
        self.is_busy = False
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket
        self.reader: asyncio.StreamReader

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Start the process, in place of one that ended."""
        self.end()
        self.channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the server's
                env=_environment(self.decoder.limits.max_pixels),
            )
        self.reader, self._writer = await asyncio.open_connection(sock=self.channel.dup(), limit=2**22)
        send(self.channel, self.decoder.to_dict())
        try:
            async with asyncio.timeout(START_SECONDS):
                await receive_async(self.reader)
        except (TimeoutError, EOFError, ConnectionError):
            self.end()
            raise Refusal(
                UNAVAILABLE, f"{sys.executable} cannot start a process that decodes: see the server's log."
            ) from None

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self._writer.close()
            self.channel.close()
            self.process.kill()
            self.process.wait()
            self.process = None


def _environment(max_pixels: int) -> dict[str, str]:
    """Return an environment without what a process that reads hostile files must not know."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("VIDEOMAE_", "HF_"))}
    ours = {"PYTHONPATH": os.pathsep.join(search_path()), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    return known | ours | {variable("max_pixels"): str(max_pixels)}
