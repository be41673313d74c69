"""Frames -> an H.264 file: the one place where this package encodes video.

T frames · H height and W width in pixels
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.files import atomic_write

MOST_TICKS = 2**31 - 1  # from frame to frame, in an MP4
SILENCE_RATE, SILENCE_SAMPLES = 8000, 1024


class VideoWriter:
    """An H.264 file (yuv420p, no sound) that takes one frame after the other; a context manager.

    Args:
        path: where; an existing file is replaced.
        size: height and width of the file's frames, even.
        fps: frames per second; what is not a ratio of small numbers becomes the nearest such.
        crf: quality, x264's constant rate factor: 0 is the best, 51 the worst.
        clock: ticks per second in which frames are stamped; None shows them at ``fps``, one after the other.
        options: more of x264's.
        container_options: of the container, such as ``{"movflags": "faststart"}``.
        format: of the container; None goes by the file's name.
        comment: kept in the file.
        threads: of the encoder; None leaves the choice to it.
        name: what errors call the file, where ``path`` is a temporary one.

    Raises:
        VideoError: if the file cannot be written; so do `write` and the end of the block.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: float | Fraction,
        crf: int = 23,
        clock: int | None = None,
        options: Mapping[str, str] | None = None,
        container_options: Mapping[str, str] | None = None,
        format: str | None = None,
        comment: str | None = None,
        threads: int | None = None,
        name: str | Path | None = None,
    ) -> None:
        self.name = str(name or path)
        self._clock = clock
        self._tick: int | None = None  # of the last frame
        with self._errors_named():
            self._container = av.open(str(path), "w", format=format, options=dict(container_options or {}))
        if comment is not None:
            self._container.metadata["comment"] = comment
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": str(crf), **(options or {})})
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        if clock is not None:
            self._stream.codec_context.time_base = Fraction(1, clock)
        if threads is not None:
            self._stream.codec_context.thread_count = threads

    def write(self, image: NDArray[np.uint8], *, tick: int | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB; of another size than the file's, it is resized.
            tick: when it is shown, on the ``clock``; later than the frame before. None where there is no clock.

        Raises:
            ValueError: if a tick is given without a clock, or the other way round.
            VideoError: if the frame cannot be written, such as one that comes hours after the one before.
        """
        if (tick is None) != (self._clock is None):
            raise ValueError(
                f"frames need ticks exactly where the file has a clock, got tick {tick} and clock {self._clock}. "
                "Give both, or neither."
            )
        height, width = self._stream.height, self._stream.width
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(width, height, "yuv420p")
        if self._clock is not None and tick is not None:
            self._keep_time(tick, self._clock)
            frame.pts, frame.time_base = tick, Fraction(1, self._clock)
        with self._errors_named():
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with self._errors_named():
                try:
                    self._container.mux(self._stream.encode())
                finally:
                    self._container.close()
        else:
            with suppress(av.FFmpegError):  # of the file that is given up; the first error is the one to tell
                self._container.close()

    def _keep_time(self, tick: int, clock: int) -> None:
        """Let the file start at 0 where its first frame comes later, and refuse a pause that it cannot hold."""
        if self._tick is None and tick > 0:
            self._add_silence()
        elif self._tick is not None and tick - self._tick > MOST_TICKS:
            raise VideoError(
                f"{self.name} cannot hold frames {(tick - self._tick) / clock:.0f} s apart: in this file they must "
                f"follow within {MOST_TICKS / clock:.0f} s. Cut the video where its clock jumps, at "
                f"{self._tick / clock:.2f} s."
            )
        self._tick = tick

    def _add_silence(self) -> None:
        """Add a moment of sound at 0: a player takes the start of the first stream for that of the file."""
        with self._errors_named():
            stream = self._container.add_stream("aac", rate=SILENCE_RATE, layout="mono")
            samples = np.zeros((1, SILENCE_SAMPLES), np.float32)
            silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            silence.sample_rate, silence.pts = SILENCE_RATE, 0
            self._container.mux([*stream.encode(silence), *stream.encode()])

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"cannot write {self.name} ({error.strerror}). Look at the rights and the free space of its folder, "
                "and at the size and the times of the frames."
            ) from error


def write_video(path: str | Path, frames: NDArray[np.uint8], *, fps: float = 16, key_frame_distance: int = 12) -> None:
    """Encode frames as an H.264 file, which appears whole or not at all.

    Args:
        path: where; an existing file is replaced.
        frames: (T, H, W, 3) uint8 RGB; height and width must be even.
        fps: frames per second.
        key_frame_distance: frames from one that decodes by itself to the next, at most; 1 makes all of them such.
    """
    height, width = frames.shape[1:3]
    options = {"g": str(key_frame_distance)}
    with (
        atomic_write(path) as temporary,
        VideoWriter(temporary, size=(height, width), fps=fps, crf=20, options=options) as writer,
    ):
        for frame in frames:
            writer.write(frame)
