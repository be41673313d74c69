"""The description of a server for OpenAPI, made from the table of its endpoints."""

import re
from collections.abc import Iterable
from typing import Any

from videomae.serving.endpoints import Endpoint
from videomae.serving.parameters import schemas_of

REFUSALS = {
    "400": "the request is malformed",
    "401": "the token is missing or wrong",
    "403": "videos are not fetched from that host",
    "404": "there is no such model, or it cannot do this",
    "408": "the upload takes too long",
    "413": "the video is too large or too long",
    "415": "the body is compressed",
    "422": "the upload cannot be read as a video",
    "429": "too many requests are worked on; Retry-After says when to ask again",
    "503": "the server ends",
}
BINARY = {"type": "string", "format": "binary"}


def describe(endpoints: Iterable[Endpoint], *, title: str, version: str, token: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        endpoints: all of them.
        title: of the document.
        version: of the server.
        token: whether one is asked for.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    schemes = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"securitySchemes": schemes} if token else {},
        "security": [{"token": []}] if token else [],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    schemas = schemas_of(endpoint.parameters) if endpoint.parameters else {}
    parameters: list[dict[str, Any]] = [{"name": n, "in": "query", "schema": schema} for n, schema in schemas.items()]
    for name in re.findall(r"{(\w+)}", endpoint.path):
        parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    refused = _object_with(error={"type": "string"})
    responses: dict[str, dict[str, Any]] = {
        "200": {"description": "the answer", "content": {"application/json": {"schema": endpoint.gives}}}
    } | {
        status: {"description": about, "content": {"application/json": {"schema": refused}}}
        for status, about in REFUSALS.items()
    }
    operation: dict[str, Any] = {"summary": endpoint.about, "parameters": parameters, "responses": responses}
    if endpoint.takes == "video":
        operation["requestBody"] = {"required": True, "content": _video_bodies(schemas)}
        if endpoint.path == "/timeline":
            responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    elif endpoint.takes == "tensors":
        operation["requestBody"] = {"required": True, "content": _tensor_bodies()}
        responses["200"]["content"]["application/octet-stream"] = {"schema": BINARY}
    return operation


def _video_bodies(schemas: dict[str, Any]) -> dict[str, Any]:
    as_json = _object_with(inputs={"type": "string", "description": "the video in base64, or its address"})
    as_json["properties"]["parameters"] = {"type": "object", "properties": schemas}
    form = _object_with(file=BINARY)
    form["properties"] |= schemas
    return {
        "video/mp4": {"schema": BINARY},
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": as_json},
    }


def _tensor_bodies() -> dict[str, Any]:
    tensor = _object_with(
        name={"type": "string"}, datatype={"type": "string"}, shape={"type": "array", "items": {"type": "integer"}}
    )
    return {
        "application/json": {"schema": _object_with(inputs={"type": "array", "items": tensor})},
        "application/octet-stream": {"schema": BINARY},
    }


def _object_with(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}
