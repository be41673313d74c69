"""``videomae check``: look at every video of a data set and say what to do about it."""

import dataclasses
from pathlib import Path

from videomae.console import output, print_json, progress_bar
from videomae.data.audit.check import CheckReport, check, most_frequent
from videomae.data.audit.findings import ERROR, NOTE, WARNING
from videomae.data.settings import Data
from videomae.files import check_writable
from videomae.options import Flag
from videomae.plots.check_report import write_check_report


@dataclasses.dataclass
class CheckSettings:
    """Look at every video of a data set, and report what is wrong with it and what to do.

    Ends with exit code 1 if there is an error among the findings.
    """

    data: Data

    out: Path | None = None
    """Folder for report.html, report.json, unreadable.csv and a sheet of thumbnails for each class."""

    json: Flag = False
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


def main(settings: CheckSettings) -> int:
    """Check, print and write the report; the exit code is 1 if there are errors in the data."""
    s = settings
    if s.out is not None:
        check_writable(s.out)
    with progress_bar("looking at the videos") as progress:
        report = check(
            s.data,
            clip_frames=s.clip_frames,
            stride=s.stride,
            near_duplicates=s.near_duplicates,
            workers=s.workers,
            timeout=s.timeout,
            progress=progress,
        )
    if s.out is not None:
        write_check_report(report, s.out)
    if s.json:
        print_json(report.to_dict())
    else:
        _print(report)
        if s.out is not None:
            output().print(f"written: {s.out / 'report.html'}", markup=False)
    return 0 if report.is_sound else 1


_COLOURS = {ERROR: "red", WARNING: "yellow", NOTE: "cyan"}


def _print(report: CheckReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = output()
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
        rows = ", ".join(f"{value} ({count})" for value, count in most_frequent(summary[name]))
        console.print(f"{name.replace('_', ' ')}: {rows}", markup=False)
    hours, size = summary["seconds"] / 3600, summary["bytes"] / 1e6
    console.print(f"{summary['videos']} videos, {summary['unreadable']} unreadable, {hours:.2f} h, {size:.1f} MB\n")

    if not report.findings:
        console.print("[green]nothing found[/green]")
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
