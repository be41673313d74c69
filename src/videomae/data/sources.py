"""Where videos lie: files, and folders that are searched for them. What is left out is counted and named."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from videomae.errors import DataError
from videomae.processes import rank
from videomae.video.picture_folders import folders_of_frames
from videomae.video.source import SourceKind, kind_of, protocol_of

log = logging.getLogger(__name__)

# Containers, those of broadcasting, discs and cameras, and streams without a container. Their case is of no account.
_ENDINGS = """
    mp4 m4v mov qt 3gp 3g2 f4v flv avi divx mkv webm wmv asf rm rmvb ogv ogm mxf nut ivf y4m gif
    mpg mpeg mpe mpv m1v m2v vob ts mts m2ts m2t trp tp mod tod dv dav
    264 h264 avc 265 h265 hevc mjpeg mjpg
"""
VIDEO_EXTENSIONS = frozenset(f".{ending}" for ending in _ENDINGS.split())
KNOWN_ENDINGS = f"Known endings: {' '.join(sorted(VIDEO_EXTENSIONS))}."

# Beside videos lie lists of them, and what systems leave in folders.
_COMPANIONS = re.compile(
    r"manifest\.csv|unreadable\.csv|classInd\.txt|(train|test)list\d+\.txt|.+_test_split\d\.txt|thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Folder:
    """What lies below a folder, as relative paths; what starts with a dot is hidden.

    Attributes:
        files: sorted within each folder.
        closed: folders that cannot be looked into, such as for want of rights or because they lie too deep, and why.
        special: pipes, sockets and devices, which are never opened, and what they are.
    """

    files: tuple[str, ...]
    closed: dict[str, str]
    special: dict[str, str]

    @property
    def videos(self) -> list[str]:
        """The files that are taken for videos, sorted."""
        return sorted(filter(is_video, self.files))

    @property
    def others(self) -> list[str]:
        """The files that are not looked at, without lists of videos and what systems leave in folders."""
        return [file for file in self.files if not is_video(file) and not _COMPANIONS.fullmatch(os.path.basename(file))]

    @property
    def of_frames(self) -> dict[str, str]:
        """Folders with numbered pictures and no video, which stand for a video each, and the next step."""
        with_videos = {os.path.dirname(video) or "." for video in self.videos}
        return {place: command for place, command in folders_of_frames(self.others).items() if place not in with_videos}


def find_videos(paths: Iterable[str | Path]) -> list[str | Path]:
    """List files and URLs as they are, and the videos below folders, sorted.

    Raises:
        DataError: if there is nothing to look at.
    """
    found: list[str | Path] = []
    for path in paths:
        folder = Path(path)
        if protocol_of(path) or not folder.is_dir():
            found.append(path)
        elif inside := video_files(folder):
            found += [folder / name for name in inside]
        else:
            raise DataError(f"the folder {folder} holds no videos. {KNOWN_ENDINGS}")
    if not found:
        raise DataError("name at least one video file or folder.")
    return found


def video_files(folder: Path, *, are_listed: bool = False) -> list[str]:
    """List the videos below ``folder`` as sorted relative paths, and log what is left out.

    Args:
        folder: where to look.
        are_listed: a list names the videos that matter, so that other files do not.

    Raises:
        DataError: if there are no videos, but folders of frames.
    """
    found = look_into(folder)
    if rank() > 0:
        return found.videos  # the first process says what is left out, and refuses
    for place, reason in found.closed.items():
        log.warning("%s cannot be looked into (%s): what lies in it is left out", folder / place, reason)
    if are_listed:
        return found.videos
    for file, kind in found.special.items():
        log.warning("%s is a %s, which is not opened: it is left out", folder / file, kind)
    frames = found.of_frames
    if frames and not found.videos:
        raise DataError(_frames_refused(folder, frames))
    if frames:
        log.warning("%s", _frames_refused(folder, frames))
    if others := found.others:
        log.warning("%s: %s", folder, not_looked_at(others))
    return found.videos


def not_looked_at(files: Sequence[str]) -> str:
    """Return a clause that counts and names files that are no videos by their endings."""
    counts = Counter(os.path.splitext(file)[1].lower() or "without an ending" for file in files).most_common()
    shown = [f"{count} {ending}" for ending, count in counts[:8]]
    rest = sum(count for _, count in counts[8:])
    kinds = ", ".join(shown + ([f"{rest} others"] if rest else []))
    some = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
    number = "1 file was" if len(files) == 1 else f"{len(files)} files were"
    return f"{number} not looked at: {kinds} ({some})"


def look_into(folder: Path) -> Folder:
    """List all that lies below a folder. Links are followed, but not into a folder they lie in."""
    closed: dict[str, str] = {}
    special: dict[str, str] = {}

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
        prefix, kinds = Path(where).relative_to(folder), _special_files(where)
        for name in sorted(name for name in files if not name.startswith(".")):
            file = (prefix / name).as_posix()
            if name in kinds:
                special[file] = kinds[name]
            else:
                found.append(file)
    return Folder(tuple(found), closed, special)


def is_video(name: str) -> bool:
    """Tell by its ending whether a file is taken for a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def _special_files(folder: str) -> dict[str, str]:
    """Return the names of the pipes, sockets and devices in a folder, and what they are; a dead link is a file."""
    with os.scandir(folder) as entries:  # which knows files and folders without a look at each
        odd = [entry.name for entry in entries if not entry.is_file() and not entry.is_dir()]
    kinds = {name: kind_of(os.path.join(folder, name)) for name in odd}
    return {name: kind.value for name, kind in kinds.items() if kind in (SourceKind.PIPE, SourceKind.DEVICE)}


def _frames_refused(folder: Path, frames: dict[str, str]) -> str:
    place, command = next(iter(frames.items()))
    more = f" and {len(frames) - 1} others" if len(frames) > 1 else ""
    return (
        f"{folder / place}{more} must be videos, but are folders of frames, which are not read. Make a video of each, "
        f"at its own rate, in {folder}: {command}"
    )
