"""Frames of files, cameras and network streams, one after the other, each decoded once."""

import logging
import os
import stat
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.backends.orientation import orientation_of, upright
from videomae.video.reader import VideoReader

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]

OPEN_TIMEOUT, READ_TIMEOUT = 30.0, 60.0  # seconds without an answer, or without data
LONGEST_STEP = 10.0  # seconds from frame to frame; more is a jump of the clock
USUAL_RATE = 25


def is_stream(source: str | os.PathLike[str]) -> bool:
    """Tell whether a source is a URL, a device or a pipe, which can be read only forwards."""
    text = os.fspath(source)
    return "://" in text or _is_forward_only(text)


def stream_frames(source: str | os.PathLike[str]) -> Iterator[tuple[float, Frame]]:
    """Yield the time of each frame in seconds, from 0, and the upright frame, (H, W, 3) uint8.

    Only one frame is held at a time. A file is read with `VideoReader`; a stream as it comes. Where the stamps of a
    stream go back or jump (a camera was restarted, its clock was set), time goes on from frame to frame.

    Args:
        source: a file, a URL such as ``rtsp://...``, a device such as ``/dev/video0``, or a pipe.

    Raises:
        VideoError: if it cannot be opened, holds no video, sends nothing for a minute, or breaks off within a frame.
    """
    if not is_stream(source):
        with VideoReader(source) as reader:
            start = float(reader.times[0])
            for seconds, file_frame in reader:
                yield seconds - start, file_frame
        return
    text = os.fspath(source)
    options = {"rtsp_transport": "tcp"} if text.startswith("rtsp://") else {}
    layout = "v4l2" if text.startswith("/dev/video") else None
    timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if "://" in text else None
    try:
        with av.open(text, format=layout, options=options, timeout=timeout) as container:
            if not container.streams.video:
                raise VideoError(f"{text} holds no video. Name another source.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            clock = _Clock(text, step=1 / float(stream.average_rate or USUAL_RATE))
            for frame in container.decode(stream):
                image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                yield clock(frame.time), np.ascontiguousarray(upright(image, orientation_of(frame)[1]))
    except av.error.ExitError as error:
        raise VideoError(
            f"{text} gave no answer for {OPEN_TIMEOUT:g} s, or sent nothing for {READ_TIMEOUT:g} s. Check the "
            "address, and that it sends."
        ) from error
    except av.FFmpegError as error:
        raise VideoError(f"cannot read {text}: {error.strerror}. Check the address, and that it sends.") from error


class _Clock:
    """Turns the stamps of a stream into seconds from 0 that never go back or jump.

    Args:
        name: of the stream, for warnings.
        step: seconds from frame to frame where the stamps do not tell.
    """

    def __init__(self, name: str, *, step: float) -> None:
        self._name, self._step = name, step
        self._longest = max(LONGEST_STEP, 2 * step)
        self._time: float | None = None  # of the last frame
        self._offset: float | None = None  # what is added to a stamp

    def __call__(self, stamp: float | None) -> float:
        following = 0.0 if self._time is None else self._time + self._step
        time = following if stamp is None or self._offset is None else stamp + self._offset
        if self._time is not None and not 0 <= time - self._time <= self._longest:
            jump = time - self._time
            log.warning(
                "%s: the stamps jump by %.3f s after %.3f s; time goes on from there", self._name, jump, self._time
            )
            time, self._offset = following, None
        if stamp is not None and self._offset is None:
            self._offset = time - stamp
        self._time = time
        return time


def _is_forward_only(text: str) -> bool:
    """Tell a device or pipe from a file; what is not there is a device if it lies where devices do."""
    try:
        mode = os.stat(text).st_mode
    except OSError:
        return text.startswith("/dev/")
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
