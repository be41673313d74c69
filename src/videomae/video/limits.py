"""How much one video may ask for before it is refused: a bound on memory and time that a file cannot choose itself."""

import dataclasses
import os
from typing import Any, Self

BYTES_PER_SECOND = 10e6  # the least that a disk or network is expected to give; a larger file gets more time


@dataclasses.dataclass(frozen=True)
class ReadLimits:
    """The limits of reading one video; each can be set in the environment, as ``VIDEOMAE_MAX_PIXELS`` and so on."""

    max_pixels: int = 8192 * 8192
    """Pixels of a frame, as stored and with square pixels."""

    max_packets: int = 10_000_000
    """Packets of a file: 46 hours at 60 frames per second."""

    open_seconds: float = 60.0
    """Seconds to learn which frames a file holds, and one more for every 10 MB of it; and those that a network
    may take to answer."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} must be above 0, got {value}. Leave {variable(field.name)} unset.")

    @classmethod
    def from_environment(cls) -> Self:
        """Return the defaults, or what the environment says.

        Raises:
            ValueError: if a variable is no number above 0.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = os.environ.get(variable(field.name))
            if text is not None:
                kind = int if field.type is int else float
                try:
                    values[field.name] = kind(text)
                except ValueError:
                    raise ValueError(f"{variable(field.name)} must be a number above 0, got {text!r}.") from None
        return cls(**values)

    @property
    def decoder_pixels(self) -> int:
        """What FFmpeg is told, which counts padded rows: more than the limit, which is then looked after here."""
        return 2 * self.max_pixels + (1 << 20)

    def seconds_for(self, size: int) -> float:
        """Return the seconds that a file of so many bytes may take to open."""
        return self.open_seconds + size / BYTES_PER_SECOND


def variable(name: str) -> str:
    """Return the environment variable that sets a limit."""
    return f"VIDEOMAE_{name.upper()}"
