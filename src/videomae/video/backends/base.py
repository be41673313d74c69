"""What `VideoReader` asks of a decoding library."""

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from videomae.video.backends.orientation import FrameFormat
from videomae.video.clock import Clock
from videomae.video.damage import Damage, OnError
from videomae.video.limits import ReadLimits


class Backend(Protocol):
    """One video stream, and the library that decodes it.

    Attributes:
        name: the path, as errors give it.
        codec: FFmpeg's name of the codec, e.g. ``"h264"``.
        times: seconds of each frame on the one clock, (N,) float64, never decreasing.
        last_duration: seconds the last frame is shown, or None if the file does not say.
        clock: of the container.
        damage: stretches that did not decode, or not cleanly, as far as is known.
    """

    name: str
    codec: str
    times: NDArray[np.float64]
    last_duration: float | None
    clock: Clock
    damage: list[Damage]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        threads: int,
        on_error: OnError,
        fps: float | None = None,
        square_pixels: bool = True,
        limits: ReadLimits | None = None,
    ) -> Self:
        """Open a file, or say in a sentence why it is not a video that can be read.

        Args:
            path: the file, as for `VideoReader`.
            threads: decoding threads.
            on_error: what to do about damage, as for `VideoReader`.
            fps: frames per second, where the file holds no times.
            square_pixels: scale frames whose pixels are not square.
            limits: what the file may ask for; None takes those of the environment.
        """
        ...

    @property
    def has_frame_format(self) -> bool:
        """Whether `frame_format` can answer without decoding."""
        ...

    def frame_format(self) -> FrameFormat:
        """Return the format of the frames."""
        ...

    def read(self, ranks: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of these rising ranks, (H, W, 3) RGB, upright; each is valid until the next is taken."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...
