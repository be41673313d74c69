"""Clips of different requests go through a model together.

L classes · T frames of H x W pixels
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from videomae.serving.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")
Waiting = tuple[NDArray[np.uint8], "asyncio.Future[NDArray[np.float32]]"]


class Batcher:
    """One thread that runs a model, and the clips that wait for it.

    While the model is busy clips gather by themselves; when it is idle, a clip waits for others for a moment. How many
    can wait is bounded where requests are let in (see `Gate`).

    Args:
        run: clips (B, T, H, W, 3) uint8 to (B, L) float32.
        max_batch: clips that go through the model at once.
        wait: seconds for which a clip waits for others.
        metrics: counts batches.
    """

    def __init__(
        self, run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], *, max_batch: int, wait: float, metrics: Metrics
    ) -> None:
        self._run, self._max_batch, self._wait, self._metrics = run, max_batch, wait, metrics
        self._waiting: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._loop = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop."""
        if self._loop is not None:
            self._loop.cancel()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def __call__(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (L,) of a clip (T, H, W, 3)."""
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((clip, future))
        return await future

    async def alone(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run something else in the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def _work(self) -> None:
        while True:
            batch = [item for item in await self._gather() if not item[1].cancelled()]
            if not batch:
                continue
            began = time.perf_counter()
            try:
                rows: Any = await self.alone(self._run, np.stack([clip for clip, _ in batch]))
            except Exception as error:  # the requests' to answer
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._metrics.model.observe(time.perf_counter() - began)
            self._metrics.batch.observe(len(batch))
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    async def _gather(self) -> list[Waiting]:
        """Wait for a clip, and take those with it that are there within the wait."""
        batch = [await self._waiting.get()]
        until = asyncio.get_running_loop().time() + self._wait
        while len(batch) < self._max_batch:
            try:
                async with asyncio.timeout_at(until):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch
