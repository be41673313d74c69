"""The back end ``torchcodec`` of `VideoReader`: PyTorch's own decoder.

PyAV still says which frames there are, at which times and which way up, so that frame ``i`` is the same in both back
ends; a file in which torchcodec sees other frames is refused. Colours differ by a few levels, as it converts them in
another way.

Needs the package torchcodec and, unlike PyAV, FFmpeg's shared libraries on the system.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from videomae.errors import MissingPackageError, VideoError
from videomae.video.backends.orientation import FrameFormat
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.damage import OnError
from videomae.video.limits import ReadLimits

MOST_FRAMES, MOST_BYTES = 64, 1 << 26  # decoded by one call, and held in memory
SAME_TIME = 1e-3  # seconds


class TorchCodecDecoder:
    """One video stream, decoded by torchcodec, with what `VideoReader` asks of a back end."""

    def __init__(self, facts: PyAVDecoder, source: Any, *, threads: int) -> None:
        self.name, self.codec, self._frame_format = facts.name, facts.codec, facts.frame_format()
        self.times, self.last_duration = facts.times, facts.last_duration
        self.clock, self.damage = facts.clock, facts.damage
        if self._frame_format.picture_size != self._frame_format.stored_size:
            raise VideoError(
                f"{self.name} has pixels that are not square, which torchcodec does not scale. Use backend='pyav', or "
                "square_pixels=False for the stored ones."
            )
        decoder = decoder_class()
        address = f"file:{os.fspath(source)}" if isinstance(source, str | os.PathLike) else source
        options = {"dimension_order": "NHWC", "num_ffmpeg_threads": threads, "seek_mode": "exact"}
        try:
            self._decoder: Any = decoder(address, stream_index=facts.stream_index, **options)
        except Exception as error:
            raise VideoError(
                f"{self.name} must be a video that torchcodec can open ({error}). Use backend='pyav'."
            ) from error

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
        """Open a file; arguments and errors as for the back end ``pyav``."""
        about: dict[str, Any] = {"on_error": on_error, "fps": fps, "square_pixels": square_pixels, "limits": limits}
        facts = PyAVDecoder.open(path, threads=threads, **about)
        facts.frame_format()
        facts.close()
        if not isinstance(path, str | os.PathLike):
            path.seek(0)
        return cls(facts, path, threads=threads)

    def read(self, ranks: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of these rising ranks as (H, W, 3) RGB, upright."""
        size = 3 * self._frame_format.width * self._frame_format.height
        number = max(min(MOST_FRAMES, MOST_BYTES // size), 1)
        for begin in range(0, len(ranks), number):
            chunk = list(ranks[begin : begin + number])
            try:
                batch = self._decoder.get_frames_at(chunk)
            except Exception as error:
                raise VideoError(
                    f"{self.name} is damaged at one of the frames {chunk[0]} to {chunk[-1]} ({error}). Copy or "
                    "download it again, or find the frame with backend='pyav'."
                ) from error
            frames = batch.data.numpy()
            start = self.clock.seconds([self.clock.start or 0])
            is_other = np.abs(batch.pts_seconds.numpy() - start - self.times[chunk]) > SAME_TIME
            if is_other.any() or frames.shape[1:] != (self._frame_format.height, self._frame_format.width, 3):
                raise VideoError(
                    f"{self.name} must give the same frames with torchcodec as with PyAV, but does not from frame "
                    f"{chunk[int(is_other.argmax())]} on. Use backend='pyav' for this file."
                )
            yield from frames

    @property
    def has_frame_format(self) -> bool:
        """Always: it is learned when the file is opened."""
        return True

    def frame_format(self) -> FrameFormat:
        """Return the format of the frames."""
        return self._frame_format

    def close(self) -> None:
        """Release the file."""
        self._decoder = None


def decoder_class() -> Any:
    """Return torchcodec's decoder, or raise a MissingPackageError that says what to install."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingPackageError(
            "the back end 'torchcodec' needs the package torchcodec (pip install 'videomae[torchcodec]') and FFmpeg's "
            f"shared libraries (of the system, or of conda); the default back end 'pyav' needs neither. {error}"
        ) from error
    return VideoDecoder
