"""How much a server takes on: bytes, seconds, pixels and requests, with defaults for a machine of one's own."""

import dataclasses
import math

from videomae.processes import processors

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much a server takes on. What is above is refused with a sentence, and costs nobody else."""

    max_bytes: int = 64 * MIB
    """Of an upload."""

    max_json_bytes: int = 16 * MIB
    """Of a request in JSON, which is held in memory: larger videos come as a raw body or a form."""

    max_seconds: float = 600.0
    """Length of a video."""

    max_pixels: int = 3840 * 2160
    """Of a frame."""

    max_windows: int = 2000
    """Windows of a timeline."""

    upload_seconds: float = 60.0
    """In which an upload must have come; one that is streamed live may pause that long."""

    decode_seconds: float = 20.0
    """A decoding process that gives nothing for so long is killed."""

    decode_memory: int = 2048 * MIB
    """Bytes that a decoding process may take for a video."""

    max_requests: int = 32
    """Requests that are worked on or wait at once; further ones are answered with 429 and Retry-After."""

    workers: int | None = None
    """Decoding processes; by default one per processor, from 2 to 8."""

    max_batch: int = 8
    """Clips of different requests that go through the model at once; 1 does not batch."""

    batch_wait: float = 0.003
    """Seconds that a clip waits for others, while the model is idle."""

    drain_seconds: float = 60.0
    """After SIGTERM, how long requests that were accepted may still take."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "batch_wait" else 1
            if value is not None and not (least <= value < math.inf):
                raise ValueError(f"limits: {field.name} must be at least {least} and finite, got {value}.")

    @property
    def num_workers(self) -> int:
        """Decoding processes."""
        return self.workers or min(max(processors(), 2), 8)
