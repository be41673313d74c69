"""Folders of numbered pictures, each a frame of a video: they are not read, but named, with the next step."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from shlex import quote

_FRAME = re.compile(r"(?P<name>.*?)(?P<number>\d+)(?P<ending>\.(?:jpe?g|png|bmp|tiff?|webp|ppm))", re.IGNORECASE)
_FEWEST_FRAMES = 2


def folders_of_frames(files: Iterable[str]) -> dict[str, str]:
    """Return the folders, among those of some files, that hold numbered pictures, and the next step for each.

    Args:
        files: paths, relative to the folder that the command is for.
    """
    first: dict[str, re.Match[str]] = {}
    count: Counter[str] = Counter()
    for file in files:
        place, name = os.path.split(file)
        if frame := _FRAME.fullmatch(name):
            count[place] += 1
            first[place] = min(first.get(place, frame), frame, key=lambda frame: int(frame["number"]))
    return {place or ".": _as_video(place, first[place]) for place in sorted(count) if count[place] >= _FEWEST_FRAMES}


def _as_video(place: str, first: re.Match[str]) -> str:
    """Return the command that makes a video of the pictures from ``first`` on."""
    number, name = first["number"], first["name"].replace("%", "%%")
    digits = f"%0{len(number)}d" if len(number) > 1 else "%d"
    pattern = quote(os.path.join(place, f"{name}{digits}{first['ending']}"))
    video = quote(f"{place or 'video'}.mp4")
    return f"ffmpeg -framerate 25 -start_number {int(number)} -i {pattern} -pix_fmt yuv420p {video}"
