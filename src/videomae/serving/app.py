"""The application: the table of endpoints, the page, and the guards before them, as ASGI."""

import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from videomae.packages import require
from videomae.serving.endpoints import Endpoint, endpoints
from videomae.serving.guards import Gate, Guards, response_of
from videomae.serving.openapi import describe
from videomae.serving.pages import PAGES
from videomae.serving.refusals import Refusal
from videomae.serving.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)


def make_app(service: Service, *, token: str | None = None) -> "Starlette":
    """Make the application of a service.

    Args:
        service: what answers.
        token: that a client must show, or None.

    Raises:
        MissingPackageError: if a package of the extra "serve" is missing.
    """
    for package, name in (("starlette", "Starlette"), ("uvicorn", "uvicorn"), ("python_multipart", "python-multipart")):
        require(package, extra="serve", purpose=f"serving needs {name}")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    release = version("videomae")
    table = endpoints(service, release)
    document = describe(table, title=f"videomae serve: {service.model.name}", version=release, token=token is not None)

    async def openapi(request: "Request") -> Response:
        return JSONResponse(document)

    async def metrics(request: "Request") -> Response:
        content, media_type = service.metrics.page()
        return Response(content, headers={"content-type": media_type})

    routes = [Route(path, partial(_page, path), methods=["GET"]) for path in PAGES]
    routes += [Route("/openapi.json", openapi, methods=["GET"]), Route("/metrics", metrics, methods=["GET"])]
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in table:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    routes += [Route(e.path, _answering(e), methods=[e.method]) for e in table]
    guards = Middleware(
        Guards,
        limits=service.limits,
        gate=Gate(service.limits.max_requests, service.metrics),
        metrics=service.metrics,
        token=token,
        paths=frozenset([*PAGES, "/openapi.json", "/metrics", *by_path]),
    )

    @asynccontextmanager
    async def lifespan(app: "Starlette") -> Any:
        async with service.running():
            yield

    return Starlette(
        routes=routes,
        middleware=[guards],
        lifespan=lifespan,
        exception_handlers={Refusal: _refused, Exception: _failed, 404: _unknown, 405: _unknown},
    )


def _answering(endpoint: Endpoint) -> Callable[["Request"], Any]:
    """Return a handler that makes JSON of what an endpoint answers."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response

    async def handle(request: "Request") -> Any:
        try:
            found = await endpoint.answer(request)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        return JSONResponse(found) if isinstance(found, dict | list) else found

    return handle


async def _page(path: str, request: "Request") -> "Response":
    from starlette.responses import Response

    file, media_type = PAGES[path]
    return Response(file.read_bytes(), media_type=media_type)


async def _refused(request: "Request", error: Any) -> Any:
    return response_of(error)


async def _unknown(request: "Request", error: Any) -> "Response":
    from starlette.responses import JSONResponse

    advice = "see /docs for what there is"
    return JSONResponse({"error": f"{error.detail}: {advice}."}, error.status_code, headers=error.headers)


async def _failed(request: "Request", error: Exception) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse({"error": "the server failed: see its log."}, 500)
