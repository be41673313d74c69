"""Whatever the decoding library raises becomes a `VideoError` that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

import av

from videomae.errors import VideoError, VideoMAEError


@contextmanager
def library_errors(name: str, *, doing: str = "be decoded") -> Iterator[None]:
    """Turn any exception of the block into a VideoError; those of this package pass as they are.

    PyAV raises FFmpeg's errors, and about any of Python's own, down to AttributeError and UnicodeDecodeError.

    Args:
        name: of the file.
        doing: what cannot happen.
    """
    try:
        yield
    except VideoMAEError:
        raise
    except MemoryError as error:
        raise VideoError(out_of_memory(name)) from error
    except Exception as error:
        raise VideoError(
            f"{name} cannot {doing} ({described(error)}). Copy or download it again, or re-encode it."
        ) from error


def out_of_memory(name: str) -> str:
    """Say that a file needs more memory than there is."""
    return f"{name} needs more memory than there is. Re-encode it to a smaller size, or run fewer workers."


def described(error: Exception) -> str:
    """Return what an exception says, without the address that FFmpeg adds, which may hold a password."""
    text = error.strerror if isinstance(error, av.FFmpegError) else str(error)
    return text or type(error).__name__
