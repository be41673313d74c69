"""What a video is read from: a file, a URL, or a device or pipe. One function decides, and nothing else is opened.

A text is a URL where it begins with one of `PROTOCOLS`; whatever else it looks like, it is the path of a file, which
FFmpeg is given as one: a colon or a ``tcp:`` in a name means nothing.
"""

import enum
import os
import re
import stat

from videomae.errors import DataError

PROTOCOLS = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp")
SEEKABLE = ("http", "https")  # the protocols of which a video can be read like a file

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_USER = re.compile(r"(://)[^/?#\s@]*(?:@[^/?#\s@]*)*@")
_SECRET = re.compile(
    r"((?:pass\w*|pwd|user\w*|token|\w*key|secret|sig\w*|auth\w*|\w+-(?:signature|credential|token))=)[^&;/#\s]*",
    re.IGNORECASE,
)


class SourceKind(enum.Enum):
    """What is read, and how."""

    FILE = "file"
    URL = "URL"
    DEVICE = "device"
    PIPE = "pipe"


def kind_of(source: str | os.PathLike[str]) -> SourceKind:
    """Tell what a source is. What is missing is a file, or a device where devices lie."""
    text = os.fspath(source)
    if protocol_of(text):
        return SourceKind.URL
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError):  # a NUL in a name is a ValueError
        return SourceKind.DEVICE if text.startswith("/dev/") else SourceKind.FILE
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return SourceKind.PIPE
    return SourceKind.DEVICE if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else SourceKind.FILE


def protocol_of(source: str | os.PathLike[str]) -> str | None:
    """Return the protocol of a URL that can be read, or None for what is no such URL."""
    found = _URL.match(os.fspath(source))
    return found[1].lower() if found and found[1].lower() in PROTOCOLS else None


def is_stream(source: str | os.PathLike[str]) -> bool:
    """Tell whether a source is a URL, a device or a pipe, which can be read only forwards."""
    return kind_of(source) is not SourceKind.FILE


def is_seekable_url(source: str | os.PathLike[str]) -> bool:
    """Tell whether a source is a URL that is read like a file."""
    return protocol_of(source) in SEEKABLE


def shown(source: str | os.PathLike[str]) -> str:
    """Return a source as it may be printed and stored: user names, passwords, keys and tokens of a URL are masked."""
    text = os.fspath(source)
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text)) if _URL.match(text) else text


def refuse_url(source: str | os.PathLike[str]) -> None:
    """Raise a DataError for a URL, where only files are of use: they are read more than once."""
    if protocol_of(source):
        raise DataError(
            f"{shown(source)} is a URL, which only predict, explain and reconstruct read. Download it first, and name "
            "the file."
        )


def not_a_file(source: str | os.PathLike[str]) -> str | None:
    """Return why a source cannot be opened as a file, as the rest of a sentence, or None."""
    text, name = os.fspath(source), shown(source)
    found = _URL.match(text)
    if found and not protocol_of(text) and not os.path.exists(text):
        return (
            f"{name} is no URL that videos are read from: these begin with {', '.join(PROTOCOLS)}. Download it first."
        )
    kind = kind_of(text)
    if kind in (SourceKind.DEVICE, SourceKind.PIPE) and os.path.exists(text):
        return f"{name} is a {kind.value}, which can be read only forwards. Use `videomae predict --window`."
    if kind is SourceKind.URL and not is_seekable_url(text):
        return f"{name} is a live stream, which can be read only forwards. Use `videomae predict --window`."
    return None
