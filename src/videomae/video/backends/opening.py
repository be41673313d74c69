"""The one place where a video is opened: what FFmpeg may read for it, how long that may take, and which stream it is.

FFmpeg follows what a file says: a playlist names other files and addresses, and a name that looks like a URL is one.
Here a file is opened as a file, a URL by the protocols of the network only, and a playlist never.
"""

import os
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from videomae.errors import VideoError
from videomae.video.backends.failures import described, out_of_memory
from videomae.video.limits import ReadLimits
from videomae.video.picture_folders import folders_of_frames
from videomae.video.source import SEEKABLE, SourceKind, is_stream, kind_of, not_a_file, protocol_of, shown

PLAYLISTS = {".m3u8": "hls", ".mpd": "dash", ".ffconcat": "concat"}
ALLOW_PLAYLIST = "Name the video itself, or, if you trust what it names, say --window 2s --follow-playlist."
# Demuxers that open further files, addresses or devices.
FOLLOWING = frozenset(
    {"concat", "hls", "dash", "imf", "image2", "sdp", "rtsp", "rtp", "sap", "webm_dash_manifest", "vobsub", "lavfi"}
    | {"alsa", "fbdev", "kmsgrab", "oss", "x11grab", "avisynth", "vapoursynth", "tedcaptions"}
)
NETWORK = "http,https,httpproxy,rtsp,rtsps,rtp,rtmp,rtmps,rtmpt,rtmpts,srt,srtp,udp,tcp,tls,crypto"
PLAYLIST_HEADS = {b"#EXTM3U": "an HLS playlist", b"ffconcat": "a playlist of FFmpeg", b"<MPD": "a DASH playlist"} | {
    b"[playlist]": "a playlist",
    b"<ASX": "a playlist",
    b"v=0": "a session description (SDP)",
}
BARE_PICTURES = {".mjpeg": "mjpeg", ".mjpg": "mjpeg"}  # FFmpeg's probe takes a file of JPEGs for a single one
NOT_THE_VIDEO = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


def open_file(source: str | BinaryIO, name: str, limits: ReadLimits) -> InputContainer:
    """Open a file, a URL that can be sought in, or a file object.

    Raises:
        VideoError: if it is none of these, no video, or not opened in the time that the limits allow.
    """
    options = {"format_whitelist": _formats(), "max_pixels": str(limits.decoder_pixels), "protocol_whitelist": "none"}
    address, size, layout = source, 0, None
    if isinstance(source, str):
        if reason := not_a_file(source):
            raise VideoError(reason)
        if kind_of(source) is SourceKind.URL:
            options["protocol_whitelist"] = NETWORK
        else:
            address, options["protocol_whitelist"] = f"file:{source}", "file"
            size = os.path.getsize(source) if os.path.exists(source) else 0
            layout = BARE_PICTURES.get(os.path.splitext(source)[1].lower())
    allowed = limits.seconds_for(size)
    try:
        return av.open(
            address,
            mode="r",
            format=layout,
            options=options,
            metadata_errors="replace",  # titles of old files are often not UTF-8
            timeout=(allowed, allowed),
        )
    except FileNotFoundError as error:
        raise VideoError(f"{name} must be an existing file, but there is none. Check the path.") from error
    except IsADirectoryError as error:
        raise VideoError(_folder(name, source)) from error
    except av.error.ExitError as error:
        raise VideoError(too_slow(name, allowed)) from error
    except MemoryError as error:
        raise VideoError(out_of_memory(name)) from error
    except Exception as error:
        if playlist := _playlist(source):
            raise VideoError(
                f"{name} is {playlist}, not a video: what it names is not opened. Download the videos themselves."
            ) from error
        is_empty = isinstance(source, str) and os.path.exists(source) and os.path.getsize(source) == 0
        found = "is empty (0 bytes)" if is_empty else f"is not one that FFmpeg can open ({described(error)})"
        raise VideoError(f"{name} must be a video file, but {found}. Copy or download it again.") from error


@contextmanager
def open_stream(
    source: str,
    *,
    timeout: tuple[float, float],
    limits: ReadLimits,
    reconnect: float | None = None,
    follow_playlist: bool = False,
) -> Iterator[InputContainer]:
    """Open a URL, a device, a pipe or a playlist, to be read forwards, until the block ends.

    Args:
        source: what `kind_of` does not call a file, or a playlist.
        timeout: seconds until it answers, and until each further piece of it comes.
        limits: of its pictures.
        reconnect: seconds for which FFmpeg may ask again for the rest of a file whose server breaks off.
        follow_playlist: the source is a playlist, which may be followed: one of the network to addresses of the
            network, one on this machine to files beside it.

    Raises:
        VideoError: if it is a playlist.
        FFmpegError: PyAV's, if it cannot be opened.
        TimeoutError: if a pipe sends nothing; PyAV's ExitError, if the network does not.
    """
    kind, layout = kind_of(source), _layout_of_playlist(source)
    if follow_playlist and layout is None:
        raise VideoError(
            f"{shown(source)} is no playlist by its ending, which must be one of {', '.join(PLAYLISTS)}. "
            "Leave out that it is one."
        )
    if layout and not follow_playlist:
        raise VideoError(f"{shown(source)} is a playlist, which names further addresses. {ALLOW_PLAYLIST}")
    protocols = NETWORK if kind is SourceKind.URL else "none" if kind is SourceKind.PIPE else "file,crypto"
    options = {
        "format_whitelist": _formats(),
        "max_pixels": str(limits.decoder_pixels),
        "protocol_whitelist": protocols,
    }
    if layout:
        options["format_whitelist"] = f"{layout},{_formats()}"
    if reconnect is not None and protocol_of(source) in SEEKABLE:
        options |= {
            "reconnect": "1",
            "reconnect_on_network_error": "1",
            "reconnect_delay_total_max": f"{reconnect:.0f}",
        }
    if protocol_of(source) in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "format_whitelist": f"rtsp,rtp,sdp,{_formats()}"}
    if kind is SourceKind.DEVICE and source.startswith("/dev/video"):
        layout = "v4l2"
    with ExitStack() as opened:
        if kind is SourceKind.FILE:
            address: Any = f"file:{source}"
        elif kind is SourceKind.URL or layout == "v4l2":
            address = source
        else:
            address = opened.enter_context(closing(_Pipe(source, timeout)))
        about: dict[str, Any] = {"format": layout, "options": options, "timeout": timeout}
        yield opened.enter_context(av.open(address, mode="r", metadata_errors="replace", **about))


def choose_stream(container: InputContainer) -> VideoStream | None:
    """Return the stream that is the video, by one rule everywhere; None if there is none.

    Never a cover or a thumbnail, and a single picture only where nothing moves; then what the file says is shown by
    default, what FFmpeg calls best, and the first.
    """
    streams = moving_pictures(container)
    best = container.streams.best("video")
    return max(
        streams,
        key=lambda stream: (
            stream.codec_context is not None,
            stream.frames != 1,
            bool(stream.disposition & Disposition.default),
            best is not None and stream.index == best.index,
            -stream.index,
        ),
        default=None,
    )


def moving_pictures(container: InputContainer) -> list[VideoStream]:
    """Return the video streams, without covers and thumbnails, which are stored as such."""
    return [stream for stream in container.streams.video if not stream.disposition & NOT_THE_VIDEO]


def _folder(name: str, source: str | BinaryIO) -> str:
    """Say that a folder is no video, and what to do if it holds the frames of one."""
    frames = folders_of_frames(os.listdir(source)) if isinstance(source, str) else {}
    if frames:
        return f"{name} must be a video, but is a folder of frames, which are not read. In it: {frames['.']}"
    return f"{name} must be a video file, but is a folder. Name the files in it."


def too_slow(name: str, seconds: float) -> str:
    """Say that a file was given up."""
    return (
        f"{name} takes longer than {seconds:.3g} s to open. Re-encode it, or allow more time with "
        "VIDEOMAE_OPEN_SECONDS."
    )


@cache
def _formats() -> str:
    """Return the formats that hold a video themselves, as FFmpeg lists them."""
    return ",".join(sorted(name for name in av.formats_available if name not in FOLLOWING))


def _layout_of_playlist(source: str) -> str | None:
    """Return FFmpeg's name of the kind of playlist that a source is by its ending, or None."""
    return PLAYLISTS.get(os.path.splitext(source.partition("?")[0] if protocol_of(source) else source)[1].lower())


def _playlist(source: str | BinaryIO) -> str | None:
    """Return what kind of playlist a file is, by its first bytes, or None."""
    if not isinstance(source, str) or is_stream(source):
        return None
    try:
        with open(source, "rb") as file:
            head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return None
    return next(
        (what for mark, what in PLAYLIST_HEADS.items() if head.startswith(mark) or mark == b"<MPD" in head), None
    )


class _Pipe:
    """A pipe, or a device that gives bytes, as a file object that waits so long and no longer for them.

    FFmpeg would wait for ever: it cannot be interrupted in a read.
    """

    def __init__(self, path: str, timeout: tuple[float, float]) -> None:
        self.name, self._timeout = path, timeout
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._was_read = False

    def read(self, size: int) -> bytes:
        """Return up to so many bytes; none at the end."""
        allowed = self._timeout[self._was_read]
        end = time.monotonic() + allowed
        while time.monotonic() < end:
            if select.select([self._descriptor], [], [], max(end - time.monotonic(), 0))[0]:
                found = os.read(self._descriptor, size)
                if found or self._was_read:
                    self._was_read = True
                    return found
                time.sleep(0.01)  # nobody has opened the other end yet
        raise TimeoutError(f"{self.name} sent nothing for {allowed:g} s.")

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)
