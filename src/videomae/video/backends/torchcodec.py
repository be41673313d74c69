"""The back end ``torchcodec`` of `VideoReader`: PyTorch's own decoder.

PyAV still says which frames there are, at which times and which way up, so that frame ``i`` is the same in both back
ends; a file in which torchcodec sees other frames is refused. Colours differ by a few levels, as it converts them in
another way.

Needs the package torchcodec and, unlike PyAV, FFmpeg's shared libraries on the system.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError

if TYPE_CHECKING:
    from videomae.video.reader import Look, _PyAV

CHUNK = 64  # frames decoded by one call, and held in memory
SAME_TIME = 1e-3  # seconds


class TorchCodec:
    """One video stream, decoded by torchcodec, with what `VideoReader` asks of a back end."""

    has_look = True

    def __init__(self, facts: "_PyAV", source: Any, *, threads: int) -> None:
        self.name, self.codec, self._look = facts.name, facts.codec, facts.look()
        self.times, self.last_duration, self.stated_rate = facts.times, facts.last_duration, facts.stated_rate
        decoder = _decoder_class()
        try:
            self._decoder: Any = decoder(source, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact")
        except (RuntimeError, ValueError) as error:
            raise VideoError(
                f"{self.name} must be a video that torchcodec can open ({error}). Use backend='pyav'."
            ) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str] | BinaryIO, *, threads: int, truncate: bool) -> Self:
        """Open a file; arguments and errors as for the back end ``pyav``."""
        from videomae.video.reader import _PyAV  # which knows this class by name

        facts = _PyAV.open(path, threads=threads, truncate=truncate)
        facts.look()
        facts.close()
        if not isinstance(path, str | os.PathLike):
            path.seek(0)
        return cls(facts, path, threads=threads)

    def read(self, ranks: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of these rising ranks as (H, W, 3) RGB, upright."""
        for begin in range(0, len(ranks), CHUNK):
            chunk = list(ranks[begin : begin + CHUNK])
            try:
                batch = self._decoder.get_frames_at(chunk)
            except (RuntimeError, IndexError) as error:
                raise VideoError(
                    f"{self.name} is damaged at one of the frames {chunk[0]} to {chunk[-1]} ({error}). Copy or "
                    "download it again, or find the frame with backend='pyav'."
                ) from error
            frames = batch.data.numpy()
            is_other = np.abs(batch.pts_seconds.numpy() - self.times[chunk]) > SAME_TIME
            if is_other.any() or frames.shape[1:] != (self._look.height, self._look.width, 3):
                raise VideoError(
                    f"{self.name} must give the same frames with torchcodec as with PyAV, but does not from frame "
                    f"{chunk[int(is_other.argmax())]} on. Use backend='pyav' for this file."
                )
            yield from frames

    def look(self) -> "Look":
        """Return what frames look like."""
        return self._look

    def close(self) -> None:
        """Release the file."""
        self._decoder = None


def _decoder_class() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            "the back end 'torchcodec' needs the package torchcodec (pip install 'videomae[torchcodec]') and FFmpeg's "
            f"shared libraries (of the system, or of conda); the default back end 'pyav' needs neither. {error}"
        ) from error
    return VideoDecoder
