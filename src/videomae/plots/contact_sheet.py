"""Frames of videos beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from videomae.inference.search import Match
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_FRAMES, SHEET_HEIGHT = 5, 96


def contact_sheet(query: Path, matches: list[Match]) -> "Image":
    """Return a picture with a row of frames for the query and for each match."""
    from PIL import Image, ImageDraw, ImageFont

    rows: list[tuple[str, str, float, float | None]] = [(f"looked for: {query.name}", str(query), 0.0, None)]
    rows += [(f"{m.similarity:.3f}  {m.path}  {m.start:.1f} to {m.end:.1f} s", m.file, m.start, m.end) for m in matches]
    strips = [(title, _frames(file, start, end)) for title, file, start, end in rows]
    width = max(strip.width for _, strip in strips) + 12
    line, gap = 18, 8
    sheet = Image.new("RGB", (width, len(strips) * (SHEET_HEIGHT + line + gap) + gap), "white")
    font = ImageFont.load_default(12)
    for i, (title, strip) in enumerate(strips):
        top = gap + i * (SHEET_HEIGHT + line + gap)
        ImageDraw.Draw(sheet).text((6, top), title, fill="#3b6fd4" if i == 0 else "#1f2430", font=font)
        sheet.paste(strip, (6, top + line))
    return sheet


def _frames(file: str, start: float, end: float | None) -> "Image":
    from PIL import Image

    with VideoReader(file) as reader:
        first = float(reader.times[0])
        last = first + reader.duration
        times = np.linspace(max(start, first), last if end is None else min(end, last), SHEET_FRAMES + 2)
        frames = [Image.fromarray(frame) for frame in reader.frames_at_times(times[1:-1])]
    width = round(SHEET_HEIGHT * frames[0].width / frames[0].height)
    strip = Image.new("RGB", (SHEET_FRAMES * (width + 3) - 3, SHEET_HEIGHT), "white")
    for i, frame in enumerate(frames):
        strip.paste(frame.resize((width, SHEET_HEIGHT), Image.Resampling.BILINEAR), (i * (width + 3), 0))
    return strip
