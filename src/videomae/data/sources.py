"""Where videos lie: files, and folders that are searched for them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from videomae.errors import DataError

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
    """List the videos below ``folder`` as sorted relative paths; what starts with a dot is hidden."""
    return sorted(file for file in visible_files(folder) if is_video(file))


def visible_files(folder: Path) -> Iterator[str]:
    """Yield all files below ``folder`` as relative paths; links are followed, but not into a folder they lie in."""
    for where, folders, files in os.walk(folder, followlinks=True):
        around = os.path.realpath(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not Path(around).is_relative_to(os.path.realpath(os.path.join(where, name)))
        )
        prefix = Path(where).relative_to(folder)
        yield from ((prefix / name).as_posix() for name in sorted(files) if not name.startswith("."))


def is_video(name: str) -> bool:
    """Tell by its ending whether a file is taken for a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS
