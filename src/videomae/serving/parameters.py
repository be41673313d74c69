"""What a request may ask: a dataclass for each kind, read from a query, a form or JSON, and described for OpenAPI."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from videomae.config import nearest
from videomae.serving.refusals import BAD_REQUEST, Refusal

P = TypeVar("P")
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def parameter(default: Any, about: str, *, least: float | None = None, most: float | None = None) -> Any:
    """Return a field with what it means and, for a number, its range."""
    return dataclasses.field(default=default, metadata={"about": about, "least": least, "most": most})


@dataclasses.dataclass(frozen=True)
class Place:
    """Which frames of a video make the clip."""

    start: float | None = parameter(None, "with end: spread the frames over these seconds of the video", least=0)
    end: float | None = parameter(None, "see start", least=0)

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end go together: give both, or none for the middle of the video.")


@dataclasses.dataclass(frozen=True)
class Classify(Place):
    """Parameters of the Hub's task "video-classification"."""

    top_k: int = parameter(5, "how many classes to return", least=1, most=100_000)
    num_frames: int | None = parameter(None, "frames of a clip: those of the model, or leave it out", least=1)
    frame_sampling_rate: float | None = parameter(
        None, "frames from one of the clip to the next; by default as in training", least=0.01, most=100_000
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] = parameter("softmax", "what makes logits to scores")


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Parameters of a timeline."""

    window: float = parameter(2.0, "seconds that a window spans", least=0.02, most=600)
    hop: float | None = parameter(None, "seconds from one window to the next; by default half a window", least=0.01)
    threshold: float = parameter(0.5, "score at which an event begins", least=1e-6, most=1)
    exit_threshold: float | None = parameter(
        None, "score below which it ends; by default six tenths of the threshold", least=1e-6, most=1
    )
    min_length: float = parameter(0.0, "events that are shorter are left out, seconds", least=0)
    top_k: int = parameter(5, "how many classes to return of each window", least=1, most=100)
    live: bool = parameter(False, "look at the video while it is uploaded; for what can be read forwards")

    def __post_init__(self) -> None:
        from videomae.inference.timeline import check_thresholds

        check_thresholds(self.threshold, self.exit_threshold)


@dataclasses.dataclass(frozen=True)
class Explain(Place):
    """Parameters of an explanation."""

    label: str | None = parameter(None, "class to look for; by default the predicted one")


@dataclasses.dataclass(frozen=True)
class Reconstruct(Place):
    """Parameters of a reconstruction."""

    mask_ratio: float = parameter(0.9, "fraction of the clip to hide", least=0.01, most=0.99)
    mask: Literal["tube", "random", "frame"] = parameter("tube", "how the hidden places are chosen")
    seed: int = parameter(0, "of the mask", least=0, most=2**31 - 1)


def read_parameters(kind: type[P], given: Mapping[str, Any]) -> P:
    """Make parameters from what a request says, in words or in JSON.

    Raises:
        Refusal: for a name that there is not, or a value that it cannot have.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in given.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise Refusal(BAD_REQUEST, f"there is no parameter {name!r}{nearest(name, fields)}: there are {known}.")
        if value is not None:
            values[name] = _converted(name, value, hints[name], fields[name].metadata)
    try:
        return kind(**values)
    except ValueError as error:
        raise Refusal(BAD_REQUEST, str(error)) from error


def schemas_of(kind: type[Any]) -> dict[str, dict[str, Any]]:
    """Return each parameter's schema, for OpenAPI."""
    hints = typing.get_type_hints(kind)
    return {field.name: _schema(field, hints[field.name]) for field in dataclasses.fields(kind)}


def _schema(field: Any, hint: Any) -> dict[str, Any]:
    hint = _without_none(hint)
    choices = typing.get_args(hint)
    schema: dict[str, Any] = {"type": "string", "enum": list(choices)} if choices else {"type": _JSON_TYPES[hint]}
    schema["description"] = field.metadata["about"]
    for bound, name in (("least", "minimum"), ("most", "maximum")):
        if field.metadata[bound] is not None:
            schema[name] = field.metadata[bound]
    return schema | ({} if field.default is None else {"default": field.default})


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(choice for choice in typing.get_args(hint) if choice is not types.NoneType)
    return hint


def _converted(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    hint = _without_none(hint)
    choices = typing.get_args(hint)
    if choices or hint is str:
        if not isinstance(value, str) or (choices and value not in choices):
            expected = f"one of {', '.join(choices)}" if choices else "a text"
            raise Refusal(BAD_REQUEST, f"{name} must be {expected}, got {value!r:.100}.")
        return value
    if hint is bool:
        read = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
        if read is None:
            raise Refusal(BAD_REQUEST, f"{name} must be true or false, got {value!r:.100}.")
        return read
    number = _number(value, hint)
    least, most = metadata["least"], metadata["most"]
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        kind = "a whole number" if hint is int else "a number"
        bounds = f" of at least {least:g}" if least is not None else ""
        bounds += f" and at most {most:g}" if most is not None else ""
        raise Refusal(BAD_REQUEST, f"{name} must be {kind}{bounds}, got {value!r:.100}.")
    return number


def _number(value: Any, kind: type) -> int | float | None:
    """Return a finite number; None where the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    return int(number) if kind is int else number
