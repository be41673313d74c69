"""The video that a request brings, in each way in which the Hub's clients send one.

It lies in a file without a name: when the request ends, or the server is killed, nothing is left of it.
"""

import asyncio
import base64
import binascii
import json
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from videomae.serving.fetching import fetch
from videomae.serving.limits import Limits
from videomae.serving.refusals import BAD_REQUEST, Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_FIELDS = 20


class Upload(NamedTuple):
    """What a request brings.

    Attributes:
        file: the video; it has no name.
        parameters: what is asked about it, not yet checked.
    """

    file: IO[bytes]
    parameters: dict[str, Any]


@asynccontextmanager
async def open_upload(request: "Request", *, limits: Limits, allowed_hosts: Collection[str]) -> AsyncIterator[Upload]:
    """Read the body of a request: a video, a form with one, or JSON with one or with its address.

    Raises:
        Refusal: if it is none of these.
    """
    parameters: dict[str, Any] = dict(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with tempfile.TemporaryFile() as file:
        if kind == "multipart/form-data":
            async with _form(request) as (sent, fields):
                yield _complete(sent, parameters | fields)
            return
        if kind == "application/json":
            address, content, named = _from_json(await request.body())
            parameters |= named
            if address:
                await asyncio.to_thread(fetch, address, file, allowed=allowed_hosts, limits=limits)
            file.write(content)
        else:
            async for part in request.stream():
                file.write(part)
        yield _complete(file, parameters)


def _complete(file: IO[bytes], parameters: dict[str, Any]) -> Upload:
    file.flush()
    if not file.seek(0, 2):
        raise Refusal(BAD_REQUEST, "the request brings no video: send one as the body, in a form, or in JSON.")
    return Upload(file, parameters)


@asynccontextmanager
async def _form(request: "Request") -> AsyncIterator[tuple[IO[bytes], dict[str, Any]]]:
    """Read a form: a file under any name, and parameters as fields, or as JSON in a field "parameters"."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    except (HTTPException, ValueError) as error:
        reason = getattr(error, "detail", error)
        raise Refusal(BAD_REQUEST, f"the form cannot be read ({reason}): send one video in it, whole.") from error
    try:
        sent = next((value for value in form.values() if isinstance(value, UploadFile)), None)
        if sent is None:
            raise Refusal(BAD_REQUEST, "the form holds no file: add the video as one.")
        fields: dict[str, Any] = {name: value for name, value in form.items() if isinstance(value, str)}
        fields |= _object(fields.pop("parameters", "{}"), "parameters")
        spooled: Any = sent.file
        spooled.rollover()
        yield spooled, fields
    finally:
        await form.close()


def _from_json(body: bytes) -> tuple[str | None, bytes, dict[str, Any]]:
    """Return the address or the content of the video, and the parameters."""
    request = _object(body, "the body")
    inputs, parameters = request.get("inputs"), request.get("parameters") or {}
    if not isinstance(inputs, str) or not isinstance(parameters, dict) or request.keys() - {"inputs", "parameters"}:
        raise Refusal(BAD_REQUEST, 'JSON must be {"inputs": the video in base64, or its address, "parameters": {...}}.')
    if inputs.startswith(("http://", "https://")):
        return inputs, b"", parameters
    encoded = inputs.partition(";base64,")[2] if inputs.startswith("data:") else inputs
    try:
        return None, base64.b64decode(encoded, validate=True), parameters
    except (binascii.Error, ValueError) as error:
        raise Refusal(BAD_REQUEST, f"inputs must be a video in base64, or its address ({error}).") from error


def _object(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(BAD_REQUEST, f"{name} must be JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Refusal(BAD_REQUEST, f"{name} must be an object of JSON, got {type(found).__name__}.")
    return found
