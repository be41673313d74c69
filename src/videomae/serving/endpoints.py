"""The table of all that a server answers: it makes the routes, and the description of them for OpenAPI."""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from videomae.serving.hub_task import ClipQuestions
from videomae.serving.open_inference import OpenInference
from videomae.serving.parameters import Classify, Explain, Place, Reconstruct, Timeline
from videomae.serving.service import Service
from videomae.serving.timeline import TimelineQuestions

Takes = Literal["nothing", "video", "tensors"]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Something that is answered.

    Attributes:
        method: of HTTP.
        path: below the server's address.
        answer: a request to what JSON can hold, or to a response.
        about: what it is for.
        takes: what the body is.
        parameters: what may be asked.
        gives: a JSON schema of the answer.
    """

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Any], Awaitable[Any]]
    about: str
    takes: Takes = "nothing"
    parameters: type[Any] | None = None
    gives: dict[str, Any] = dataclasses.field(default_factory=lambda: {"type": "object"})


def endpoints(service: Service, version: str) -> list[Endpoint]:
    """Return what a model can be asked."""
    clip, protocol, number = ClipQuestions(service), OpenInference(service, version), {"type": "number"}

    async def about(request: Any) -> dict[str, Any]:
        return about_server(service)

    found = [
        Endpoint("GET", "/about", about, "what the server's model is, and what is asked of videos"),
        Endpoint("GET", "/v2", protocol.server, "the server"),
        Endpoint("GET", "/v2/health/live", protocol.live, "whether the process answers"),
        Endpoint("GET", "/v2/health/ready", protocol.ready, "whether requests are taken"),
        Endpoint(
            "POST", "/embed", clip.embed, "features of a clip: the mean of the encoder's tokens", "video", Place,
            _object(embedding=_array(number), times=_array(number)),
        ),
    ]  # fmt: skip
    if service.model.classifier is None:
        return [
            *found,
            Endpoint(
                "POST", "/reconstruct", clip.reconstruct, "a clip, what is shown of it, and what the model makes of it",
                "video", Reconstruct, _object(mask_ratio=number, loss=number, views={"type": "object"}),
            ),
        ]  # fmt: skip
    label = {"label": {"type": "string"}, "score": number}
    event = _object(**label, start=number, end=number, start_frame={"type": "integer"}, end_frame={"type": "integer"})
    return [
        *found,
        Endpoint(
            "POST", "/", clip.classify, "the Hub's task video-classification", "video", Classify,
            _array(_object(**label)),
        ),
        Endpoint(
            "POST", "/timeline", TimelineQuestions(service), "what happens when; with Accept: text/event-stream told "
            "while the video is read, as events start, window, end and error", "video", Timeline,
            _object(duration=number, frames={"type": "integer"}, events=_array(event)),
        ),
        Endpoint(
            "POST", "/explain", clip.explain, "where in a clip the model finds a class", "video", Explain,
            _object(**label, predicted={"type": "string"}, map=_array(_array(_array(number))), scale=number),
        ),
        *(
            endpoint
            for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
            for endpoint in _model_endpoints(model, protocol)
        ),
    ]  # fmt: skip


def _model_endpoints(path: str, protocol: OpenInference) -> list[Endpoint]:
    """Return what the Open Inference Protocol asks of a model."""
    return [
        Endpoint("GET", path, protocol.metadata, "the tensors that the model takes and gives"),
        Endpoint("GET", f"{path}/ready", protocol.model_ready, "whether the model takes requests"),
        Endpoint(
            "POST", f"{path}/infer", protocol.infer, "scores of clips, as tensors", "tensors",
            gives=_object(model_name={"type": "string"}, outputs=_array({"type": "object"})),
        ),
    ]  # fmt: skip


def about_server(service: Service) -> dict[str, Any]:
    """Say what the model is, and what is asked of videos."""
    model, limits = service.model, service.limits
    return {
        "name": model.name,
        "task": "classification" if model.classifier else "pretraining",
        "engine": model.classifier.engine.name if model.classifier else "torch",
        "classes": model.classes,
        "clip": list(model.clip_shape),
        "grid": list(model.config.grid),
        "explains": model.is_torch and model.classifier is not None,
        "max_bytes": limits.max_bytes,
        "max_seconds": limits.max_seconds,
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
