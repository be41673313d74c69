"""Frames of videos beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videomae.files import escaped
from videomae.inference.search import Match
from videomae.plots.style import BLUE, INK
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_FRAMES, STRIP_HEIGHT = 5, 96


def contact_sheet(query: Path, matches: list[Match]) -> "Image":
    """Return a picture with a row of frames for the query and for each match."""
    from PIL import Image, ImageDraw, ImageFont

    rows: list[tuple[str, str, float, float | None]] = [(f"looked for: {query.name}", str(query), 0.0, None)]
    rows += [(f"{m.similarity:.3f}  {m.path}  {m.start:.1f} to {m.end:.1f} s", m.file, m.start, m.end) for m in matches]
    strips = [(title, frame_strip(frames_between(file, start, end))) for title, file, start, end in rows]
    width = max(strip.width for _, strip in strips) + 12
    line, gap = 18, 8
    sheet = Image.new("RGB", (width, len(strips) * (STRIP_HEIGHT + line + gap) + gap), "white")
    font = ImageFont.load_default(12)
    for i, (title, strip) in enumerate(strips):
        top = gap + i * (STRIP_HEIGHT + line + gap)
        ImageDraw.Draw(sheet).text((6, top), escaped(title), fill=BLUE if i == 0 else INK, font=font)
        sheet.paste(strip, (6, top + line))
    return sheet


def frames_between(file: str | Path, start: float, end: float | None) -> NDArray[np.uint8]:
    """Return some frames of a video, spread from one second to another (None: its end), (F, H, W, 3)."""
    with VideoReader(file) as reader:
        last = reader.end if end is None else min(end, reader.end)
        times = np.linspace(max(start, reader.start), last, SHEET_FRAMES + 2)
        return reader.frames_at_times(times[1:-1])


def frame_strip(frames: NDArray[np.uint8]) -> "Image":
    """Return frames (F, H, W, 3) beside each other."""
    from PIL import Image

    width = round(STRIP_HEIGHT * frames.shape[2] / frames.shape[1])
    strip = Image.new("RGB", (len(frames) * (width + 3) - 3, STRIP_HEIGHT), "white")
    for i, frame in enumerate(frames):
        resized = Image.fromarray(frame).resize((width, STRIP_HEIGHT), Image.Resampling.BILINEAR)
        strip.paste(resized, (i * (width + 3), 0))
    return strip
