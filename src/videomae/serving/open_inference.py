"""The Open Inference Protocol, version 2, with its extension for binary tensors: clips in, scores out.

N clips · T frames of H x W pixels · L classes
"""

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.serving.model import apply
from videomae.serving.refusals import BAD_REQUEST, NOT_FOUND, TOO_LARGE, UNAVAILABLE, Refusal
from videomae.serving.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request

LENGTH_HEADER = "inference-header-content-length"
INPUT = "frames"
OUTPUTS = {"probabilities": "softmax", "logits": "none"}
VERSION = "1"  # of the model: a server has one
MAX_HEADER = 2**16


class OpenInference:
    """Answers in the Open Inference Protocol.

    Args:
        service: what answers.
        version: of the server.
    """

    def __init__(self, service: Service, version: str) -> None:
        self.service, self.model, self.version = service, service.model, version

    async def server(self, request: "Request") -> dict[str, Any]:
        """Say what the server is."""
        return {"name": "videomae", "version": self.version, "extensions": ["binary_tensor_data"]}

    async def live(self, request: "Request") -> dict[str, Any]:
        """Say that the process answers."""
        return {"live": True}

    async def ready(self, request: "Request") -> dict[str, Any]:
        """Say whether requests are taken."""
        if self.service.is_draining or not self.service.is_ready:
            raise Refusal(UNAVAILABLE, "the server ends: ask another.", retry_after=1)
        return {"ready": True}

    async def model_ready(self, request: "Request") -> dict[str, Any]:
        """Say whether the model takes requests."""
        self._check_name(request)
        return {"name": self.model.name} | await self.ready(request)

    async def metadata(self, request: "Request") -> dict[str, Any]:
        """Say which tensors the model takes and gives."""
        self._check_name(request)
        shape = [-1, len(self.model.classes)]
        return {
            "name": self.model.name,
            "versions": [VERSION],
            "platform": self.model.classifier.engine.name if self.model.classifier else "torch",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *self.model.clip_shape]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name in OUTPUTS],
            "parameters": {"labels": self.model.classes},
        }

    async def infer(self, request: "Request") -> Any:
        """Return the scores of clips."""
        from starlette.responses import JSONResponse, Response

        self._check_name(request)
        header, binary = await self._read(request)
        frames = self._frames(header, binary)
        logits = np.stack(await asyncio.gather(*(self.service.batcher(clip) for clip in frames)))
        asked = header.get("outputs") or [{"name": "probabilities"}]
        default = _flag(header, "binary_data_output")
        outputs, parts = [], []
        for output in _objects(asked, "outputs"):
            name = output.get("name")
            if name not in OUTPUTS:
                raise Refusal(BAD_REQUEST, f"outputs must be among {', '.join(OUTPUTS)}, got {name!r:.100}.")
            values = apply(OUTPUTS[name], logits).astype("<f4")
            described: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
            if _flag(output, "binary_data", default):
                parts.append(values.tobytes())
                described["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                described["data"] = values.ravel().tolist()
            outputs.append(described)
        answer = {"model_name": self.model.name, "model_version": VERSION, "outputs": outputs}
        if "id" in header:
            answer["id"] = str(header["id"])
        if not parts:
            return JSONResponse(answer)
        text = json.dumps(answer).encode()
        return Response(
            b"".join([text, *parts]),
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(len(text))},
        )

    def _check_name(self, request: "Request") -> None:
        name = request.path_params["model"]
        if name != self.model.name:
            raise Refusal(NOT_FOUND, f"there is no model {name!r:.100}: this server has {self.model.name!r}.")
        version = request.path_params.get("version", VERSION)
        if version != VERSION:
            raise Refusal(NOT_FOUND, f"{name} has no version {version!r:.100}: ask for {VERSION}, or for none.")

    async def _read(self, request: "Request") -> tuple[dict[str, Any], bytes]:
        """Return the JSON and the bytes behind it; as they are held in memory, not more than the clips can be."""
        stated = request.headers.get(LENGTH_HEADER)
        limit = MAX_HEADER + self.service.limits.max_batch * math.prod(self.model.clip_shape)
        limit = limit if stated is not None else self.service.limits.max_json_bytes
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise Refusal(
                    TOO_LARGE,
                    f"a request must have at most {self.service.limits.max_batch} clips as binary tensors ({limit} "
                    "bytes), fewer as JSON. Send fewer clips.",
                )
        try:
            length = len(body) if stated is None else int(stated)
            header = json.loads(body[:length]) if 0 <= length <= len(body) else None
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise Refusal(BAD_REQUEST, "the body must begin with an object of JSON, of the length that is stated.")
        return header, bytes(body[length:])

    def _frames(self, header: dict[str, Any], binary: bytes) -> NDArray[np.uint8]:
        """Return the clips of a request, (N, T, H, W, 3)."""
        inputs = _objects(header.get("inputs"), "inputs")
        expected = list(self.model.clip_shape)
        rule = f"inputs must be one tensor {INPUT!r} of UINT8 and the shape [N, {', '.join(map(str, expected))}]"
        if len(inputs) != 1 or inputs[0].get("name") != INPUT or inputs[0].get("datatype") != "UINT8":
            raise Refusal(BAD_REQUEST, f"{rule}.")
        shape = inputs[0].get("shape")
        if not isinstance(shape, list) or shape[1:] != expected or type(shape[0]) is not int or shape[0] < 1:
            raise Refusal(BAD_REQUEST, f"{rule}, got the shape {shape!r:.100}.")
        if shape[0] > self.service.limits.max_batch:
            raise Refusal(TOO_LARGE, f"at most {self.service.limits.max_batch} clips at once, got {shape[0]}.")
        size = math.prod(shape)
        stated = _parameters(inputs[0]).get("binary_data_size")
        if stated is not None:
            if stated != size or len(binary) != size:
                raise Refusal(
                    BAD_REQUEST, f"the tensor has {size} bytes, got {len(binary)}, stated as {stated!r:.100}."
                )
            return np.frombuffer(binary, np.uint8).reshape(shape)
        try:
            values = np.asarray(inputs[0].get("data"), np.float64).ravel()
        except (ValueError, TypeError, OverflowError):
            values = np.empty(0)
        if values.size != size or ((values < 0) | (values > 255) | (values % 1 != 0)).any():
            raise Refusal(BAD_REQUEST, f"data must be {size} whole numbers from 0 to 255, got {values.size} numbers.")
        return values.astype(np.uint8).reshape(shape)


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(BAD_REQUEST, f"{name} must be a list of objects.")
    return value


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    found = content.get("parameters", {})
    if not isinstance(found, dict):
        raise Refusal(BAD_REQUEST, "parameters must be an object.")
    return found


def _flag(content: dict[str, Any], name: str, default: bool = False) -> bool:
    found = _parameters(content).get(name, default)
    if not isinstance(found, bool):
        raise Refusal(BAD_REQUEST, f"{name} must be true or false, got {found!r:.100}.")
    return found
