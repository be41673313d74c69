"""What answers requests: the model, what batches its clips, and the processes that decode videos."""

import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from io import FileIO
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from videomae.serving.batcher import Batcher
from videomae.serving.decoding import ClipDecoder
from videomae.serving.limits import Limits
from videomae.serving.metrics import Metrics
from videomae.serving.model import ServedModel
from videomae.serving.parameters import Classify, Place, read_parameters
from videomae.serving.pool import Decoded, DecoderPool
from videomae.serving.refusals import BAD_REQUEST, Refusal
from videomae.serving.uploads import Upload, open_upload
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from starlette.requests import Request

PlaceT = TypeVar("PlaceT", bound=Place)


class Service:
    """The parts of a server that all ways of asking share.

    Args:
        model: what is served.
        limits: how much is taken on.
        allowed_hosts: from which videos are fetched by their address.

    Attributes:
        is_draining: whether the server ends, and only answers what it has accepted.
    """

    def __init__(self, model: ServedModel, limits: Limits, *, allowed_hosts: Collection[str] = ()) -> None:
        self.model, self.limits, self.allowed_hosts = model, limits, allowed_hosts
        self.metrics = Metrics()
        config = model.config
        decoder = ClipDecoder(model.processor, ClipSampling.of_model(config), config.num_frames, limits)
        self.pool = DecoderPool(decoder, self.metrics)
        self.batcher = Batcher(model.logits, max_batch=limits.max_batch, wait=limits.batch_wait, metrics=self.metrics)
        self.is_ready = self.is_draining = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, and end it after the block."""
        self.batcher.start()
        try:
            await self.pool.start()
            self.is_ready = True
            yield
        finally:
            self.is_ready = False
            await self.pool.close()
            await self.batcher.close()

    def open_upload(self, request: "Request") -> Any:
        """Read the video that a request brings; see `uploads.open_upload`."""
        return open_upload(request, limits=self.limits, allowed_hosts=self.allowed_hosts)

    @asynccontextmanager
    async def clip(self, request: "Request", kind: type[PlaceT]) -> AsyncIterator[tuple[PlaceT, Decoded]]:
        """Read a request with a video and its parameters, and yield these and the clip that they mean."""
        async with self.open_upload(request) as upload:
            parameters = read_parameters(kind, upload.parameters)
            yield parameters, await self._decode(upload, parameters)

    async def _decode(self, upload: Upload, place: Place) -> Decoded:
        options: dict[str, Any] = {"start": place.start, "end": place.end}
        if isinstance(place, Classify):
            options["stride"] = place.frame_sampling_rate
            if place.num_frames not in (None, self.model.config.num_frames):
                raise Refusal(
                    BAD_REQUEST,
                    f"num_frames must be {self.model.config.num_frames}, which the model takes, got "
                    f"{place.num_frames}. Leave it out.",
                )
        began = time.perf_counter()
        async with self.pool.ask(upload.file.fileno(), ask="clip", **options) as answers:
            clips = [answer async for answer in answers]
        self.metrics.decode.observe(time.perf_counter() - began)
        return clips[0]


def open_pipe() -> tuple[int, FileIO]:
    """Return both ends of a pipe, the one that is written to not blocking."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    return read, FileIO(write, "w")


def best(scores: NDArray[np.float32], classes: list[str], top_k: int) -> list[dict[str, Any]]:
    """Return the best classes as the Hub's tasks give them, best first."""
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [{"label": classes[i], "score": float(scores[i])} for i in order]
