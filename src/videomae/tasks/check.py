"""Look at every video of a data set before training does, and say what to do about what is wrong.

`check` gives a `CheckReport`; `CheckReport.write` makes a page, JSON and a list of the unreadable files of it.
"""

import base64
import csv
import dataclasses
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from videomae.files import atomic_write, write_json
from videomae.video.findings import (
    ERROR,
    NOTE,
    SEVERITIES,
    WARNING,
    Finding,
    find_problems,
    label_of,
    why_unreadable,
)
from videomae.video.inspect import VideoFacts, inspect_videos
from videomae.video.manifest import Manifest, Sample, read_manifest

if TYPE_CHECKING:
    from rich.console import Console

THUMBNAILS, SHEET_VIDEOS, SHEET_COLUMNS = 4000, 24, 6
SHOWN_ITEMS = 24


@dataclasses.dataclass
class CheckSettings:
    """Look at every video of a data set, and report what is wrong with it and what to do.

    Ends with exit code 1 if there is an error among the findings.
    """

    data: tyro.conf.Positional[Path]
    """Folder of videos, CSV manifest or official list."""

    out: Path | None = None
    """Folder for report.html, report.json, unreadable.csv and a sheet of thumbnails for each class."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the report as one JSON object instead of tables."""

    clip_frames: int = 16
    """Frames of a clip, to tell which videos are too short for one."""

    stride: float = 4
    """Distance between the frames of a clip, in frames."""

    near_duplicates: bool = True
    """Also look for copies that were re-encoded, scaled or trimmed."""

    workers: int | None = None
    """Processes that decode; by default one per processor."""

    timeout: float = 600.0
    """Seconds after which a file is given up."""

    format: str = "auto"
    """How to read DATA: auto, folder, csv, k400, ssv2, ucf101, hmdb51 or v1."""

    videos: Path | None = None
    """Folder of the videos of a list, if it is not that of the list."""

    fold: int = 1
    """Of the official splits of UCF101 and HMDB51: 1, 2 or 3."""


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        data: what was checked.
        manifest: its videos, classes and splits.
        facts: what each file holds, by ``Sample.file``; without fingerprints.
        findings: errors first.
    """

    data: str
    manifest: Manifest
    facts: Mapping[Path, VideoFacts]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != ERROR for finding in self.findings)

    def named(self, kind: str) -> Finding | None:
        """Return the finding of a kind, if there is one."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Name and reason of every video, or stretch of one, of which no frame can be read."""
        reasons = ((sample, why_unreadable(sample, self.facts[sample.file])) for sample in self.manifest)
        return {sample.path if self.facts[sample.file].problem else sample.name: why for sample, why in reasons if why}

    @property
    def usable(self) -> Manifest:
        """The videos and stretches of which frames can be read."""
        samples = tuple(s for s in self.manifest if why_unreadable(s, self.facts[s.file]) is None)
        return dataclasses.replace(self.manifest, samples=samples)

    @cached_property
    def readable(self) -> list[VideoFacts]:
        """Facts of the files of which frames can be read."""
        return [fact for fact in self.facts.values() if not fact.problem]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Videos by class and split; "-" stands for none."""
        table: dict[str, dict[str, int]] = {name: {} for name in self.manifest.classes}
        for sample in self.manifest:
            row = table.setdefault(label_of(sample, self.manifest), {})
            row[sample.split or "-"] = row.get(sample.split or "-", 0) + 1
        return table

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Totals, ranges (minimum, median, maximum) and frequencies of the readable files."""
        facts = self.readable
        return {
            "videos": len(self.manifest),
            "files": len(self.facts),
            "unreadable": len(self.unreadable),
            "classes": len(self.manifest.classes),
            "splits": dict(Counter(sample.split or "-" for sample in self.manifest)),
            "bytes": sum(fact.size for fact in self.facts.values()),
            "seconds": round(sum(fact.duration for fact in facts), 3),
            "frames": sum(fact.num_frames for fact in facts),
            "ranges": {
                "duration": _range([fact.duration for fact in facts]),
                "frames": _range([fact.num_frames for fact in facts]),
                "fps": _range([fact.fps for fact in facts]),
                "short_side": _range([min(fact.width, fact.height) for fact in facts]),
            },
            "sizes": _frequencies(f"{fact.width}x{fact.height}" for fact in facts),
            "rates": _frequencies(f"{fact.fps:.4g}" for fact in facts),
            "codecs": _frequencies(fact.codec for fact in facts),
            "pixel_formats": _frequencies(fact.pixel_format for fact in facts),
            "containers": _frequencies(fact.container for fact in facts),
            "severities": {name: sum(finding.severity == name for finding in self.findings) for name in SEVERITIES},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the thumbnails, ready for JSON."""
        left_out = {"fingerprint", "thumbnail", "file", "times"}
        names = [field.name for field in dataclasses.fields(VideoFacts) if field.name not in left_out]
        return {
            "data": self.data,
            "summary": self.summary,
            "counts": self.counts,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "videos": [
                {
                    "path": sample.path,
                    "label": None if sample.label is None else self.manifest.classes[sample.label],
                    "split": sample.split,
                    "group": sample.group,
                    **{name: getattr(self.facts[sample.file], name) for name in names},
                }
                for sample in self.manifest
            ],
        }

    def write(self, folder: str | Path) -> None:
        """Write report.html, report.json, unreadable.csv and the sheets of thumbnails; files there are replaced."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "report.json", self.to_dict())
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *sorted(self.unreadable.items())])
        _write_text(folder / "unreadable.csv", text.getvalue())
        _write_text(folder / "report.html", _page(self, _write_sheets(self, folder)))


def check(
    data: str | Path | Manifest,
    *,
    clip_frames: int = 16,
    stride: float = 4,
    near_duplicates: bool = True,
    workers: int | None = None,
    timeout: float = 600.0,
    format: str = "auto",
    videos: str | Path | None = None,
    fold: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> CheckReport:
    """Decode every file of a data set and report what is wrong with it.

    Args:
        data: folder of videos, CSV manifest or official list, or a manifest that was read.
        clip_frames: frames of a clip, to tell which videos are too short for one.
        stride: distance between them, in frames.
        near_duplicates: also look for copies that were re-encoded, scaled or trimmed.
        workers: processes that decode; by default one per processor.
        timeout: seconds after which a file is given up.
        format: as for `read_manifest`.
        videos: as for `read_manifest`.
        fold: as for `read_manifest`.
        progress: called with the number of files looked at, and that of all.

    Raises:
        DataError: if the list itself cannot be read.
    """
    if clip_frames < 1 or stride <= 0:
        raise ValueError(f"clip_frames and stride must be above 0, got {clip_frames} and {stride}.")
    manifest = data if isinstance(data, Manifest) else read_manifest(data, format=format, videos=videos, fold=fold)
    files = list(dict.fromkeys(sample.file for sample in manifest))
    facts: dict[Path, VideoFacts] = {}
    looks = inspect_videos(files, thumbnails=_choose_thumbnails(manifest), workers=workers, timeout=timeout)
    for file, fact in zip(files, looks, strict=True):
        facts[file] = fact
        progress(len(facts), len(files))
    folder = None if isinstance(data, Manifest) or not Path(data).is_dir() else Path(data)
    options: dict[str, Any] = {"clip_frames": clip_frames, "stride": stride, "near": near_duplicates}
    findings = find_problems(manifest, facts, folder=folder, **options)
    nothing = np.empty((0, 0, 0), np.float16)
    slim = {file: dataclasses.replace(fact, fingerprint=nothing) for file, fact in facts.items()}
    return CheckReport(str(manifest.root if data is manifest else data), manifest, slim, findings)


# ------------------------------------------------------------------------------------------------- the report


def _range(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, [0, 50, 100])] if values else []


def _frequencies(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _by_class(manifest: Manifest) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in manifest.classes}
    for sample in manifest:
        samples.setdefault(label_of(sample, manifest), []).append(sample)
    return samples


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose samples at even distances."""
    return [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)]


def _choose_thumbnails(manifest: Manifest) -> set[Path]:
    """Choose as many videos of each class as a report can hold in memory."""
    classes = _by_class(manifest)
    each = max(THUMBNAILS // len(classes), SHEET_VIDEOS)
    return {sample.file for samples in classes.values() for sample in _spread(samples, each)}


def _write_sheets(report: CheckReport, folder: Path) -> dict[str, str]:
    """Write a picture of thumbnails for each class, and return where it lies, relative to the folder."""
    from PIL import Image

    width, height, gap = 160, 120, 6
    places = {}
    for number, (name, samples) in enumerate(_by_class(report.manifest).items()):
        jpegs = [report.facts[sample.file].thumbnail for sample in samples if report.facts[sample.file].thumbnail]
        if not jpegs:
            continue
        jpegs = [jpegs[i] for i in np.linspace(0, len(jpegs) - 1, min(SHEET_VIDEOS, len(jpegs))).round().astype(int)]
        columns = min(SHEET_COLUMNS, len(jpegs))
        rows = -(-len(jpegs) // columns)
        sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
        for i, jpeg in enumerate(jpegs):
            image = Image.open(io.BytesIO(jpeg))
            image.thumbnail((width, height))
            left, top = i % columns * (width + gap), i // columns * (height + gap)
            sheet.paste("#e8eaed", (left, top, left + width, top + height))
            sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        place = f"classes/{number:03}_{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:60]}.jpg"
        with atomic_write(folder / place) as temporary:
            sheet.save(temporary, "JPEG", quality=85)
        places[name] = place
    return places


def _page(report: CheckReport, sheets: Mapping[str, str]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pictures = {sample.path: report.facts[sample.file].thumbnail for sample in report.manifest}
    facts = report.readable
    environment = Environment(
        loader=PackageLoader("videomae.tasks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["picture"] = lambda path: _data_uri(pictures.get(path, b""))
    return environment.get_template("check.html").render(
        report=report,
        summary=report.summary,
        sheets=sheets,
        largest=max((sum(row.values()) for row in report.counts.values()), default=1),
        charts={
            "Duration, seconds": _histogram([fact.duration for fact in facts]),
            "Frames": _histogram([fact.num_frames for fact in facts]),
            "Frames per second": _top(report.summary["rates"]),
            "Size, pixels": _top(report.summary["sizes"]),
            "Codec": _top(report.summary["codecs"]),
            "Pixel format": _top(report.summary["pixel_formats"]),
        },
        shown_items=SHOWN_ITEMS,
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""


def _histogram(values: Sequence[float], bins: int = 10) -> list[tuple[str, int]]:
    """Count values in equal steps; a single step where all are about the same."""
    if not values or max(values) - min(values) < 1e-3 * max(values):
        return [(f"{values[0]:.4g}", len(values))] if values else []
    counts, edges = np.histogram(values, bins)
    return [(f"{a:.3g} to {b:.3g}", int(n)) for a, b, n in zip(edges, edges[1:], counts, strict=False)]


def _top(frequencies: Mapping[str, int], most: int = 8) -> list[tuple[str, int]]:
    rows = list(frequencies.items())
    rest = sum(count for _, count in rows[most:])
    return rows[:most] + ([(f"{len(rows) - most} others", rest)] if rest else [])


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


# ------------------------------------------------------------------------------------------------ command line


def main(settings: CheckSettings) -> int:
    """Check, print and write the report; the exit code is 1 if there are errors in the data."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    options = dataclasses.asdict(settings)
    data, out, as_json = (options.pop(name) for name in ("data", "out", "json"))
    columns = (TextColumn("looking at the videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        report = check(data, progress=lambda done, total: bar.update(task, completed=done, total=total), **options)
    if out is not None:
        report.write(out)
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict(), ensure_ascii=False) + "\n")
    else:
        _print(report, Console(highlight=False))
        if out is not None:
            Console(highlight=False).print(f"written: {out / 'report.html'}", markup=False, soft_wrap=True)
    return 0 if report.is_sound else 1


_COLOURS = {ERROR: "red", WARNING: "yellow", NOTE: "cyan"}


def _print(report: CheckReport, console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    summary, splits = report.summary, list(report.summary["splits"])
    table = Table("class", *splits, *(["all"] if len(splits) > 1 else []))
    for name, row in report.counts.items():
        counts = [row.get(split, 0) for split in splits]
        table.add_row(escape(name), *map(str, counts), *([str(sum(counts))] if len(splits) > 1 else []))
    console.print(table)

    table = Table("of the readable files", "minimum", "median", "maximum")
    for name, values in summary["ranges"].items():
        table.add_row(name.replace("_", " "), *(f"{value:.4g}" for value in values))
    console.print(table)
    for name in ("sizes", "rates", "codecs", "pixel_formats"):
        rows = ", ".join(f"{value} ({count})" for value, count in _top(summary[name]))
        console.print(f"{name.replace('_', ' ')}: {rows}", markup=False)
    hours, size = summary["seconds"] / 3600, summary["bytes"] / 1e6
    console.print(f"{summary['videos']} videos, {summary['unreadable']} unreadable, {hours:.2f} h, {size:.1f} MB\n")

    if not report.findings:
        console.print("[green]nothing found to complain about[/green]")
    for finding in report.findings:
        colour = _COLOURS[finding.severity]
        console.print(
            f"[{colour}]{finding.severity}[/{colour}] [bold]{escape(finding.title)}[/bold]: {len(finding.items)}"
        )
        for item in finding.items[:3]:
            console.print("    " + ": ".join(filter(None, [", ".join(item.videos), item.detail])), markup=False)
        if len(finding.items) > 3:
            console.print(f"    and {len(finding.items) - 3} more")
        console.print(f"    [dim]{escape(finding.advice)}[/dim]")
