"""Where videos lie: files, and folders that are searched for them."""

from collections.abc import Iterable
from pathlib import Path

from videomae.data.manifest import video_files
from videomae.errors import DataError


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """List files as they are, and the videos below folders, sorted.

    Raises:
        DataError: if there is nothing to look at.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path / name for name in video_files(path)] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"the folder {path} holds no videos")
        found += inside
    if not found:
        raise DataError("name at least one video file or folder")
    return found
