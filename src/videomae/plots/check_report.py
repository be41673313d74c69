"""The page that tells what is wrong with a data set, and the sheets of thumbnails beside it."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from videomae.data.audit.check import SHEET_VIDEOS, CheckReport, by_class, most_frequent, spread
from videomae.data.unreadable import UNREADABLE_NAME, write_unreadable
from videomae.files import atomic_write, write_json
from videomae.plots.pages import page_environment
from videomae.plots.style import GROUND, data_uri

SHEET_COLUMNS = 6
SHOWN_ITEMS = 24


def write_check_report(report: CheckReport, folder: str | Path) -> None:
    """Write report.html, report.json, unreadable.csv and the sheets of thumbnails; files there are replaced."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report.to_dict())
    write_unreadable(folder / UNREADABLE_NAME, sorted(report.unreadable.items()), keep_empty=True)
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(
            _page(report, _write_sheets(report, folder)), encoding="utf-8", errors="backslashreplace", newline=""
        )


def _write_sheets(report: CheckReport, folder: Path) -> dict[str, str]:
    """Write a picture of thumbnails for each class, and return where it lies, relative to the folder."""
    from PIL import Image

    width, height, gap = 160, 120, 6
    places = {}
    for number, (name, samples) in enumerate(by_class(report.manifest).items()):
        jpegs = [report.facts[sample.file].thumbnail for sample in samples if report.facts[sample.file].thumbnail]
        if not jpegs:
            continue
        jpegs = spread(jpegs, SHEET_VIDEOS)
        columns = min(SHEET_COLUMNS, len(jpegs))
        rows = -(-len(jpegs) // columns)
        sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
        for i, jpeg in enumerate(jpegs):
            image = Image.open(io.BytesIO(jpeg))
            image.thumbnail((width, height))
            left, top = i % columns * (width + gap), i // columns * (height + gap)
            sheet.paste(GROUND, (left, top, left + width, top + height))
            sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        place = f"classes/{number:03}_{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:60]}.jpg"
        with atomic_write(folder / place) as temporary:
            sheet.save(temporary, "JPEG", quality=85)
        places[name] = place
    return places


def _page(report: CheckReport, sheets: Mapping[str, str]) -> str:
    pictures = {sample.path: report.facts[sample.file].thumbnail for sample in report.manifest}
    facts = report.readable
    environment = page_environment()
    environment.filters["picture"] = lambda path: data_uri(pictures[path], "jpeg") if pictures.get(path) else ""
    return environment.get_template("check.html").render(
        report=report,
        summary=report.summary,
        sheets=sheets,
        largest=max((sum(row.values()) for row in report.counts.values()), default=1),
        charts={
            "Duration, seconds": _histogram([fact.duration for fact in facts]),
            "Frames": _histogram([fact.num_frames for fact in facts]),
            "Frames per second": most_frequent(report.summary["rates"]),
            "Size, pixels": most_frequent(report.summary["sizes"]),
            "Codec": most_frequent(report.summary["codecs"]),
            "Pixel format": most_frequent(report.summary["pixel_formats"]),
        },
        shown_items=SHOWN_ITEMS,
    )


def _histogram(values: Sequence[float], bins: int = 10) -> list[tuple[str, int]]:
    """Count values in equal steps; a single step where all are about the same."""
    if not values or max(values) - min(values) < 1e-3 * max(values):
        return [(f"{values[0]:.4g}", len(values))] if values else []
    counts, edges = np.histogram(values, bins)
    return [(f"{a:.3g} to {b:.3g}", int(n)) for a, b, n in zip(edges, edges[1:], counts, strict=False)]
