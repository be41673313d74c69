"""Frames of files, cameras and network streams, one after the other, each decoded once."""

import os
import stat
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from videomae.errors import VideoError
from videomae.video.reader import VideoReader

Frame = NDArray[np.uint8]


def is_stream(source: str | os.PathLike[str]) -> bool:
    """Tell whether a source is a URL, a device or a pipe, which can be read only forwards."""
    text = os.fspath(source)
    return "://" in text or _is_forward_only(text)


def stream_frames(source: str | os.PathLike[str]) -> Iterator[tuple[float, Frame]]:
    """Yield the time of each frame in seconds, from 0, and the upright frame, (H, W, 3) uint8.

    Only one frame is held at a time. A file is read with `VideoReader`; a stream as it comes, without its rotation.

    Args:
        source: a file, a URL such as ``rtsp://...``, a device such as ``/dev/video0``, or a pipe.

    Raises:
        VideoError: if it cannot be opened, holds no video, or breaks off within a frame.
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
    try:
        with av.open(text, format=layout, options=options) as container:
            if not container.streams.video:
                raise VideoError(f"{text} holds no video: name another source")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first = None
            for number, frame in enumerate(container.decode(stream)):
                seconds = frame.time if frame.time is not None else number / float(stream.average_rate or 25)
                first = seconds if first is None else first
                yield seconds - first, frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except av.FFmpegError as error:
        raise VideoError(f"cannot read {text}: {error.strerror}. Is the address right, and does it send?") from error


def _is_forward_only(text: str) -> bool:
    """Tell a device or pipe from a file; what is not there is a device if it lies where devices do."""
    try:
        mode = os.stat(text).st_mode
    except OSError:
        return text.startswith("/dev/")
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
