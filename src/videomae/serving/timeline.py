"""What happens when in a video, told while it is read: server-sent events, or one answer at the end."""

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.inference.timeline import Window, merge_events
from videomae.serving.model import apply
from videomae.serving.parameters import Timeline, read_parameters
from videomae.serving.pool import Decoded
from videomae.serving.refusals import UNREADABLE, Refusal
from videomae.serving.service import Service, best, open_pipe

if TYPE_CHECKING:
    from starlette.requests import Request

Event = tuple[str, dict[str, Any]]
Feed = Callable[[], Coroutine[Any, Any, None]]
EVENT_STREAM = "text/event-stream"
MEDIA = {"content-type": EVENT_STREAM, "cache-control": "no-store", "x-accel-buffering": "no"}


class TimelineQuestions:
    """Answers about the whole of a video.

    Args:
        service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, request: "Request") -> Any:
        """Return the events of a video, or a stream that tells the windows as they are seen and the events at the end.

        What is wrong from the start is refused by its status; what turns out to be wrong later is an event "error".
        """
        live = request.query_params.get("live", "").lower() in ("true", "1")
        resources = AsyncExitStack()
        try:
            if live:
                p, messages, feed = await self._live(request, resources)
            else:
                p, messages = await self._whole(request, resources)
                feed = partial(_disconnected, request)
            first = await anext(messages)
            events = self._events(p, first, messages)
            if EVENT_STREAM in request.headers.get("accept", ""):
                return EventStream(events, feed, resources.pop_all())
            async with aclosing(events):
                feeding = asyncio.create_task(feed()) if live else None
                found = [event async for event in events]
            if feeding is not None:
                feeding.cancel()
            windows = [content for name, content in found if name == "window"]
            return found[-1][1] | {"windows": windows}
        finally:
            await resources.aclose()

    async def _whole(self, request: "Request", resources: AsyncExitStack) -> tuple[Timeline, AsyncIterator[Decoded]]:
        upload = await resources.enter_async_context(self.service.open_upload(request))
        p = read_parameters(Timeline, upload.parameters)
        return p, await self._ask(upload.file.fileno(), p, resources)

    async def _live(
        self, request: "Request", resources: AsyncExitStack
    ) -> tuple[Timeline, AsyncIterator[Decoded], Feed]:
        p = read_parameters(Timeline, request.query_params)
        request.scope["body"].be_live()
        read, write = open_pipe()
        resources.callback(write.close)
        try:
            messages = await self._ask(read, p, resources)
        finally:
            os.close(read)  # the process has its own
        return p, messages, partial(_feed, request, write)

    async def _ask(self, file: int, p: Timeline, resources: AsyncExitStack) -> AsyncIterator[Decoded]:
        hop = p.window / 2 if p.hop is None else p.hop
        asked = self.service.pool.ask(file, ask="windows", window=p.window, hop=hop, live=p.live)
        return await resources.enter_async_context(asked)

    async def _events(
        self, p: Timeline, first: Decoded, messages: AsyncIterator[Decoded]
    ) -> AsyncGenerator[Event, None]:
        yield "start", first[0]
        classes = self.service.model.classes
        pending: deque[tuple[float, asyncio.Task[NDArray[np.float32]]]] = deque()
        windows: list[Window] = []
        about, times = first

        async def next_window() -> Event:
            begin, scoring = pending.popleft()
            window = Window(begin, begin + p.window, apply("softmax", await scoring))
            windows.append(window)
            top = best(window.scores, classes, p.top_k)
            return "window", {"start": window.start, "end": window.end, **top[0], "top": top}

        try:
            async for about, content in messages:
                if "start" not in about:
                    times = content
                    continue
                pending.append((about["start"], asyncio.create_task(self.service.batcher(content))))
                # Some windows at once make a batch; of a camera each is told as soon as it is known.
                while pending and (p.live or len(pending) >= self.service.limits.max_batch or pending[0][1].done()):
                    yield await next_window()
            while pending:
                yield await next_window()
        finally:
            for _, scoring in pending:
                scoring.cancel()
        if not windows:
            raise Refusal(UNREADABLE, "the video has no frames to look at. Send another.")
        yield "end", _summary(p, windows, classes, about, times)


def _summary(
    p: Timeline, windows: list[Window], classes: list[str], about: dict[str, Any], times: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the events, in seconds and in frames, and what is odd about the video."""
    hop = p.window / 2 if p.hop is None else p.hop
    thresholds = {"threshold": p.threshold, "exit_threshold": p.exit_threshold, "min_length": p.min_length}
    events = merge_events(windows, classes, hop=hop, end=about["end"], gaps=about["gaps"], **thresholds)  # type: ignore[arg-type]
    return {
        "duration": about["end"],
        "notes": about["notes"],
        "gaps": [{"start": start, "end": end} for start, end in about["gaps"]],
        "frames": len(times),
        "events": [
            {
                "label": event.label,
                "start": event.start,
                "end": event.end,
                "score": event.score,
                "start_frame": int(np.searchsorted(times, event.start - 1e-3)),
                "end_frame": int(np.searchsorted(times, event.end - 1e-3)),
            }
            for event in events
        ],
    }


class EventStream:
    """An answer of server-sent events, that ends when the client is gone.

    Args:
        events: to tell.
        feed: starts what goes on meanwhile: bringing the upload, or waiting for the client to go.
        resources: closed at the end.
    """

    def __init__(self, events: AsyncGenerator[Event, None], feed: Feed, resources: AsyncExitStack) -> None:
        self._events, self._feed, self._resources = events, feed, resources

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Tell the events."""
        headers = [(name.encode(), value.encode()) for name, value in MEDIA.items()]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            telling = asyncio.create_task(self._tell(send))
            feeding = asyncio.create_task(self._feed())
            try:
                await asyncio.wait({telling, feeding}, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done() and not telling.done():
                    feeding.result()  # raises if the client is gone; an upload that has ended is told to its end
                    await telling
            finally:
                feeding.cancel()
                telling.cancel()
                with suppress(asyncio.CancelledError, _Gone):
                    await telling
        except _Gone:
            return
        finally:
            await self._resources.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Any) -> None:
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await _send_event(send, *event)
            except Refusal as refusal:
                await _send_event(send, "error", {"error": refusal.message, "status": refusal.status})


async def _send_event(send: Any, name: str, content: dict[str, Any]) -> None:
    body = f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


class _Gone(Exception):  # noqa: N818 - nothing went wrong
    """The client has ended the connection."""


async def _disconnected(request: "Request") -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise _Gone


async def _feed(request: "Request", pipe: FileIO) -> None:
    """Pass an upload on to the process that reads it, as fast as that reads."""
    from anyio import wait_writable
    from starlette.requests import ClientDisconnect

    try:
        async for part in request.stream():
            rest = memoryview(part)
            while rest:
                written = pipe.write(rest)
                if written is None:  # it is full
                    await wait_writable(pipe)
                else:
                    rest = rest[written:]
    except BrokenPipeError:  # it has seen enough, or says what is wrong
        return
    except ClientDisconnect:
        raise _Gone from None
    finally:
        pipe.close()
