"""Video file -> frames with their times.

`VideoReader` is what the rest of the package uses: it checks what is asked for and says what is wrong with a file. A
back end below it knows one decoding library (`backends/`).

T frames · H height · W width · N frames in the file
"""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
from av.container import InputContainer
from numpy.typing import ArrayLike, NDArray

from videomae.errors import VideoError
from videomae.processes import processors
from videomae.video.backends import BACKENDS
from videomae.video.backends.base import Backend
from videomae.video.backends.failures import library_errors
from videomae.video.backends.orientation import FrameFormat
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.clock import Clock, gaps_between
from videomae.video.damage import Damage, OnError, check_on_error
from videomae.video.limits import ReadLimits

T = TypeVar("T")

Shrink = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What is done to each frame, (H, W, 3), as soon as it is decoded, such as resize it to (h, w, 3)."""

TIME_TOLERANCE = 1e-6  # seconds; a time computed as i / fps must not fall on the frame before by a rounding error

# More threads only help videos larger than this package's use, and each adds a frame of delay before the first one.
MAX_THREADS = 8


class VideoReader:
    """The frames of a video file, by number, by time or as a stream.

    Frame ``i`` is the i-th that decoding the file from its start gives. To get there, the reader seeks to the key frame
    before it, and checks the stamp of every frame on the way; where a file's stamps prove wrong or are missing it
    decodes from the start instead. So frames are right in either case, and fast in a sound file. Only in a damaged one
    that FFmpeg decodes without an error may a patched picture depend on the way to it.

    Opening reads the file once without decoding it, and decodes the first frame (see ``peek``). A reader is a context
    manager, and not for use from several threads at once.

    Args:
        path: the file: a path, an http or https URL, or a seekable binary file object (it is not closed).
        threads: decoding threads; by default one per processor, at most 8. Use 1 in workers of a data loader.
        on_error: ``"raise"``; ``"skip"`` to leave out what does not decode and go on behind it; or ``"truncate"`` to
            keep the frames before the first damage: the video then ends there. To find the damage, both decode the
            whole file when it is opened; `damage` tells where it is.
        fps: frames per second of a file that holds no times, such as a raw ``.h264`` or ``.mjpeg``; by default what
            FFmpeg assumes (see ``assumed_fps``). Others keep their own.
        backend: the decoding library, ``"pyav"``, or ``"torchcodec"`` where that is installed.
        peek: decode the first frame at once. Without, a file that is damaged there is opened all the same, and size,
            rotation and pixel format are only known once a frame was decoded, or are asked for; a clip from the middle
            is there sooner.
        square_pixels: scale frames whose pixels are not square, as players do; False gives the stored pixels, as the
            published evaluations see them.
        limits: what a file may ask for; None takes those of the environment.

    Attributes:
        name: the path, as errors give it.
        codec: FFmpeg's name of the codec, e.g. ``"h264"``.
        on_error: what is done about damage.
        closed: whether `close` was called.

    Raises:
        VideoError: if the file is missing, not a video, or damaged before its first frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        threads: int | None = None,
        on_error: OnError = "raise",
        fps: float | None = None,
        backend: str = "pyav",
        peek: bool = True,
        square_pixels: bool = True,
        limits: ReadLimits | None = None,
    ) -> None:
        check_on_error(on_error)
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {tuple(BACKENDS)}, got {backend!r}.")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}. Leave it out for one per processor.")
        check_fps(fps)
        threads = threads or min(processors(), MAX_THREADS)
        self._backend: Backend = BACKENDS[backend].open(
            path, threads=threads, on_error=on_error, fps=fps, square_pixels=square_pixels, limits=limits
        )
        self.name = self._backend.name
        self.codec = self._backend.codec
        self._fps = fps
        self.on_error: OnError = on_error
        self.closed = False
        if peek:
            try:
                self._frame_format()
            except BaseException:
                self.close()
                raise

    def __len__(self) -> int:
        return len(self._backend.times)

    @property
    def num_frames(self) -> int:
        """Number of frames N, counted, not read from the header."""
        return len(self)

    @property
    def width(self) -> int:
        """Pixels of an upright frame, after the rotation that the file asks for and with square pixels."""
        return self._frame_format().width

    @property
    def height(self) -> int:
        """Pixels of an upright frame."""
        return self._frame_format().height

    @property
    def rotation(self) -> int:
        """Degrees clockwise, 0, 90, 180 or 270, by which the stored frames are turned to be upright.

        Mirroring is undone too. Other angles are taken to the nearest of these.
        """
        return self._frame_format().rotation

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the stored pixel format, e.g. ``"yuv420p"``."""
        return self._frame_format().pixel_format

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds at which each frame is shown, (N,) float64, never decreasing.

        As a player shows them: 0 is the start of the container, so that the first frame may come later, after the
        sound. See `videomae.video.clock` for restarts and gaps.
        """
        return self._backend.times

    @property
    def assumed_fps(self) -> float | None:
        """The rate that `times` follow from, where the file holds none and no ``fps`` was given; else None."""
        clock = self.clock
        return None if clock.is_stamped or self._fps is not None else clock.fps

    @property
    def fps(self) -> float:
        """Average frames per second outside gaps: the header's rate where it agrees with the times, else theirs."""
        stated, steps = self._backend.clock.fps, np.diff(self.times)
        steps = steps[steps <= self.longest_step]
        span = float(steps.sum())
        measured = len(steps) / span if span > 0 else stated
        return stated if abs(stated - measured) <= 0.01 * measured else measured

    @property
    def clock(self) -> Clock:
        """What the container says about time."""
        return self._backend.clock

    @property
    def damage(self) -> list[Damage]:
        """The stretches that did not decode, or that the decoder patched, as far as they were met."""
        return self._backend.damage

    @property
    def longest_step(self) -> float:
        """Seconds from frame to frame; more is a gap."""
        clock = self.clock
        return float(clock.longest_step * clock.tick)

    def is_gap(self, before: float, after: float) -> bool:
        """Tell whether there is a gap between the times of a frame and the next."""
        return after - before > self.longest_step

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Seconds from and to which there is no picture between frames, because the clock jumps there."""
        before, times = gaps_between(self.times, self.longest_step), self.times
        return [(float(times[i]) + 1 / self.fps, float(times[i + 1])) for i in before]

    @property
    def start(self) -> float:
        """Second at which the first frame is shown."""
        return float(self.times[0])

    @property
    def end(self) -> float:
        """Second after the last frame."""
        return float(self.times[-1]) + (self._backend.last_duration or 1 / self.fps)

    @property
    def duration(self) -> float:
        """Seconds of pictures: from the start of the first frame to the end of the last, less the gaps."""
        return self.end - self.start - sum(end - start for start, end in self.gaps)

    def frames_at(
        self, indices: Sequence[int] | NDArray[np.integer], *, shrink: Shrink | None = None
    ) -> NDArray[np.uint8]:
        """Return the frames of these numbers.

        Args:
            indices: T integers from 0 to N - 1, in any order, repeats allowed.
            shrink: what is done to each frame as it is decoded, so that one of full size is in memory at a time.

        Returns:
            (T, H, W, 3) uint8 RGB, in the order asked for; the values of PyAV's ``to_ndarray(format="rgb24")``, or of
            what ``shrink`` makes of them.

        Raises:
            VideoError: if there is no frame of that number, or it cannot be decoded.
        """
        wanted = self._existing(indices)
        return _gather(self._open_backend(), wanted, shrink)

    def frames_in_turn(self, indices: Sequence[int] | NDArray[np.integer]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of these rising numbers, (H, W, 3) uint8 RGB, each valid until the next is taken.

        Raises:
            VideoError: if there is no frame of that number, or it cannot be decoded.
        """
        return self._open_backend().read(self._existing(indices).tolist())

    def frames_at_times(self, seconds: ArrayLike, *, shrink: Shrink | None = None) -> NDArray[np.uint8]:
        """Return the frame a player shows at each of these times.

        Args:
            seconds: T times on the clock of `times`, from 0 to `end` (before the first frame's time, that frame is
                shown; in a gap, the one before it).
            shrink: as for `frames_at`.

        Returns:
            (T, H, W, 3) uint8 RGB.

        Raises:
            VideoError: if a time is negative or after the end, or a frame cannot be decoded.
        """
        wanted = np.asarray(seconds, dtype=np.float64)
        begin, end = min(0.0, self.start), self.end
        outside = wanted[~((wanted >= begin) & (wanted < end))]
        if outside.size:
            raise VideoError(
                f"{self.name} shows nothing at {outside[0]} s: it runs from {begin:g} s to {end:.6g} s. "
                "Take times in this range."
            )
        ranks = np.searchsorted(self.times, wanted + TIME_TOLERANCE, side="right") - 1
        return self.frames_at(ranks.clip(min=0), shrink=shrink)

    def __iter__(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds, (H, W, 3) uint8 RGB) for every frame in turn, holding one frame at a time."""
        return self.frames()

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds, (H, W, 3) uint8 RGB) for the frames of a stretch in turn, holding one frame at a time.

        Args:
            first: number of the first frame; the reader seeks to it.
            last: number of the frame after the last one; None reads to the end.

        Raises:
            VideoError: if there is no such stretch, or a frame cannot be decoded.
        """
        last = len(self) if last is None else last
        if not 0 <= first <= last <= len(self):
            raise VideoError(
                f"{self.name} has no frames {first} to {last}: it has {len(self)}, numbered from 0. "
                "Take 0 <= first <= last <= len(reader)."
            )
        ranks = range(first, last)
        for rank, frame in zip(ranks, self._open_backend().read(ranks), strict=True):
            yield float(self.times[rank]), frame.copy()

    def close(self) -> None:
        """Release the file; what was learned about it stays readable."""
        self.closed = True
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frame_format(self) -> FrameFormat:
        return (self._backend if self._backend.has_frame_format else self._open_backend()).frame_format()

    def _existing(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        wanted = _whole_numbers(indices)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise VideoError(
                f"{self.name} has no frame {outside[0]}: frames are numbered from 0 to {len(self) - 1}. "
                "Take indices below len(reader)."
            )
        return wanted

    def _open_backend(self) -> Backend:
        if self.closed:
            raise ValueError(f"{self.name} is closed. Read frames inside the `with` block.")
        return self._backend


def check_fps(fps: float | None) -> None:
    """Raise a ValueError for what is no rate."""
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps must be above 0 and finite, got {fps}.")


def past_damage(
    path: str | os.PathLike[str], read: Callable[[VideoReader], T], *, on_error: OnError = "skip", **options: Any
) -> tuple[T, list[Damage]]:
    """Read a file as a sound one, and only where this fails look for its damage, which costs decoding all of it.

    Args:
        path: the file.
        read: what to do with a reader; called a second time where it raises a VideoError.
        on_error: as for `VideoReader`; with ``"raise"`` there is no second time.
        options: further ones of `VideoReader`.

    Returns:
        What ``read`` returns, and the damage that was met.

    Raises:
        VideoError: if the file cannot be read so either.
    """
    check_on_error(on_error)
    try:
        with VideoReader(path, **options) as reader:
            return read(reader), reader.damage
    except VideoError:
        if on_error == "raise":
            raise
    with VideoReader(path, on_error=on_error, **options) as reader:
        return read(reader), reader.damage


def read_video_pyav(container: InputContainer, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """Decode frames of an open PyAV container, as the usage example of VideoMAE's documentation does.

    Unlike there, repeated indices give repeated frames, their order is kept, a short video repeats its last frame, and
    frames are turned upright.

    Args:
        container: what ``av.open(path)`` returns; it stays open.
        indices: T integers, 0 or more.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        VideoError: if an index is negative, or the video cannot be decoded.
    """
    wanted = _whole_numbers(indices)
    if (wanted < 0).any():
        raise VideoError(f"indices must be 0 or more, got {wanted.min()}. Count frames from the start of the video.")
    with library_errors(container.name, doing="go back to its start"):
        container.seek(0)
    video = PyAVDecoder(container, container.name)
    try:
        return _gather(video, wanted.clip(max=len(video.times) - 1))
    finally:
        video.end_reading()


def _whole_numbers(indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    return np.asarray([operator.index(index) for index in indices], dtype=np.int64)


def _gather(video: Backend, indices: NDArray[np.int64], shrink: Shrink | None = None) -> NDArray[np.uint8]:
    """Decode each frame once, in rising order, and put it wherever it is wanted."""
    ranks, number_of = np.unique(indices, return_inverse=True)
    frames = None
    for number, frame in enumerate(video.read(ranks.tolist())):
        frame = frame if shrink is None else shrink(frame)
        if frames is None:
            frames = np.empty((len(indices), *frame.shape), np.uint8)
        for place in np.flatnonzero(number_of == number):
            frames[place] = frame
    if frames is None:
        return np.empty((0, video.frame_format().height, video.frame_format().width, 3), np.uint8)
    return frames
