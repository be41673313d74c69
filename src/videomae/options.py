"""Kinds of command-line options that several settings share."""

import re
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""``--json`` without a ``--no-json`` beside it."""

_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_seconds(text: str) -> float:
    """Read "2s" or "2" as 2.0.

    Raises:
        ValueError: if it is no number of seconds.
    """
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        raise ValueError(f"{text!r} is no number of seconds: write it as 2s or 2.") from None


def parse_duration(text: str, *, name: str) -> float:
    """Return the seconds that "90s", "45m" or "1.5h" stand for.

    Args:
        text: what to read.
        name: of the option, for the error.

    Raises:
        ValueError: if it is none of these, or nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{name} must be a number with s, m or h, such as 45m, got {text!r}.")
    return float(match[1]) * _UNITS[match[2]]


Seconds = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SECONDS",
        instance_from_str=lambda words: parse_seconds(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [f"{value:g}"],
    ),
]
"""A length of time, such as ``2s`` or ``2``."""

Device = Annotated[str | None, tyro.conf.arg(help="cpu, cuda, cuda:1, mps; by default a GPU if there is one.")]
"""Where a command runs its model."""

Dtype = Annotated[
    str | None,
    tyro.conf.arg(
        help="float32, bfloat16, float16, or auto for the stored one: of the parameters and of the computation. By "
        "default parameters are float32, and a CUDA GPU computes in bfloat16 where it has that: float32 is exact. An "
        "exported file is in its own."
    ),
]
"""What a command's model computes in."""
