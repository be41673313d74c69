"""Where videos lie: files, and folders that are searched for them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from videomae.errors import DataError

log = logging.getLogger(__name__)

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".gif"}
    | {".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".y4m"}
)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """List files as they are, and the videos below folders, sorted.

    Raises:
        DataError: if there is nothing to look at.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path / name for name in video_files(path)] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"the folder {path} holds no videos. Known endings: {sorted(VIDEO_EXTENSIONS)}.")
        found += inside
    if not found:
        raise DataError("name at least one video file or folder.")
    return found


def video_files(folder: Path) -> list[str]:
    """List the videos below ``folder`` as sorted relative paths, and log what cannot be looked into."""
    files, closed = look_into(folder)
    for place, reason in closed.items():
        log.warning("%s cannot be looked into (%s): what lies in it is left out", folder / place, reason)
    return sorted(file for file in files if is_video(file))


def look_into(folder: Path) -> tuple[list[str], dict[str, str]]:
    """List all files below a folder; what starts with a dot is hidden.

    Links are followed, but not into a folder they lie in.

    Returns:
        The files as relative paths; and of the folders that cannot be looked into, such as for want of rights or
        because they lie too deep, the relative path and the reason.
    """
    closed: dict[str, str] = {}

    def note(error: OSError) -> None:
        closed[Path(os.path.relpath(error.filename, folder)).as_posix()] = error.strerror or type(error).__name__

    found: list[str] = []
    for where, folders, files in os.walk(folder, followlinks=True, onerror=note):
        around = os.path.realpath(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not Path(around).is_relative_to(os.path.realpath(os.path.join(where, name)))
        )
        prefix = Path(where).relative_to(folder)
        found += [(prefix / name).as_posix() for name in sorted(files) if not name.startswith(".")]
    return found, closed


def is_video(name: str) -> bool:
    """Tell by its ending whether a file is taken for a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS
