"""What stands before every request: its token, room for it, and how much it may send."""

import asyncio
import hmac
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from videomae.serving.limits import Limits
from videomae.serving.metrics import Metrics
from videomae.serving.pages import PAGES
from videomae.serving.refusals import BUSY, COMPRESSED, TIMED_OUT, TOO_LARGE, UNAUTHORIZED, Refusal

# What anyone may see: the page without any content, and whether the server lives.
OPEN_PATHS = frozenset({*PAGES, "/openapi.json"})
OPEN_PREFIX = "/v2/health/"
SECURITY = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; media-src blob:"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
DRAIN_SECONDS, DRAIN_BYTES = 3.0, 8 * 2**20


class Gate:
    """Lets in as many requests as there is room for.

    Args:
        room: requests at once.
        metrics: shows how many there are.
    """

    def __init__(self, room: int, metrics: Metrics) -> None:
        self.room, self.metrics = room, metrics
        self.active = 0
        self.usual_seconds = 1.0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place for the block.

        Raises:
            Refusal: if there is none.
        """
        if self.active >= self.room:
            wait = max(math.ceil(self.usual_seconds / 2), 1)
            raise Refusal(BUSY, f"{self.room} requests are being worked on: ask again in {wait} s.", retry_after=wait)
        self.active += 1
        self.metrics.active.set(self.active)
        began = time.monotonic()
        try:
            yield
        finally:
            self.usual_seconds += 0.1 * (time.monotonic() - began - self.usual_seconds)
            self.active -= 1
            self.metrics.active.set(self.active)


class Body:
    """The body of a request, of bounded length, that must come in time.

    Args:
        receive: as of ASGI.
        limit: bytes.
        seconds: in which all must have come; see ``be_live``.
    """

    def __init__(self, receive: Any, limit: int, seconds: float) -> None:
        self._receive, self.limit, self.seconds = receive, limit, seconds
        self._deadline = time.monotonic() + seconds
        self._is_live = False
        self.received, self.is_complete = 0, False

    def be_live(self) -> None:
        """Let it take as long as it likes, with pauses that are not too long."""
        self._is_live = True

    async def receive(self) -> Any:
        """Return the next message of ASGI.

        Raises:
            Refusal: if there is too much, or it takes too long.
        """
        if self.is_complete:
            return await self._receive()
        left = self.seconds if self._is_live else self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(left):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                TIMED_OUT, f"the upload must come within {self.seconds:g} s. Send a smaller copy, or a part."
            ) from None
        self.received += len(message.get("body", b""))
        self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self.received > self.limit:
            raise Refusal(
                TOO_LARGE, f"a body of this kind must have at most {self.limit} bytes. Send a smaller copy, or a part."
            )
        return message

    async def drain(self) -> None:
        """Read on for a moment: a client that still sends would not see an answer before the connection ends."""
        taken = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.is_complete and taken < DRAIN_BYTES:
                    message = await self._receive()
                    taken += len(message.get("body", b""))
                    self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        except TimeoutError:
            return


class Guards:
    """Middleware of ASGI that asks for the token, holds a place, bounds the body, and counts.

    Args:
        app: what is guarded.
        limits: how much a request may send.
        gate: how many requests may do so.
        metrics: count the answers.
        token: that a client must show, or None.
        paths: that are counted by their names.
    """

    def __init__(
        self, app: Any, *, limits: Limits, gate: Gate, metrics: Metrics, token: str | None, paths: frozenset[str]
    ) -> None:
        self.app, self.limits, self.gate, self.metrics = app, limits, gate, metrics
        self._token = None if token is None else f"Bearer {token}".encode()
        self._paths = paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_json = headers.get(b"content-type", b"").startswith(b"application/json")
        limit = self.limits.max_json_bytes if is_json else self.limits.max_bytes
        body = scope["body"] = Body(receive, limit, self.limits.upload_seconds)
        path = scope["path"] if scope["path"] in self._paths else "other"
        began = time.perf_counter()

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.drain()
                message["headers"] = [*message.get("headers", ()), *SECURITY]
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        try:
            self._check_token(scope, headers)
            if (encoding := headers.get(b"content-encoding", b"identity")) != b"identity":
                raise Refusal(COMPRESSED, f"a body must come as it is, got one in {encoding.decode('latin-1'):.100}.")
            if scope["method"] == "POST":
                with self.gate.enter():
                    await self.app(scope, body.receive, answer)
            else:
                await self.app(scope, body.receive, answer)
        except Refusal as refusal:
            await response_of(refusal)(scope, body.receive, answer)
        finally:
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)

    def _check_token(self, scope: Any, headers: dict[bytes, bytes]) -> None:
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_PREFIX)
        if self._token is None or (is_open and scope["method"] in ("GET", "HEAD")):
            return
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            raise Refusal(UNAUTHORIZED, "this server asks for a token: send it as Authorization: Bearer TOKEN.")


def response_of(refusal: Refusal) -> Any:
    """Return the answer that says what is refused."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": refusal.message}, refusal.status, headers=refusal.headers)
