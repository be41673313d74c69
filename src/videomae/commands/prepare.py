"""``videomae prepare``: re-encode a data set to small files for fast random access."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro

from videomae.console import progress_bar, say
from videomae.data.copies import SAMPLED_FILES, Estimate, estimate, plan, run
from videomae.data.settings import DataSettings
from videomae.data.transcode import Encoding
from videomae.data.unreadable import UNREADABLE_NAME
from videomae.errors import DataError
from videomae.options import Flag


@dataclasses.dataclass(kw_only=True)
class PrepareSettings(DataSettings):  # not a field of its own, as OUT would come before DATA then
    """Re-encode videos to small ordinary files that are fast to read from at random places."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write to; run again to go on after an interruption."""

    encoding: Annotated[Encoding, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Encoding)

    workers: int | None = None
    """Processes that encode; by default one per processor."""

    dry_run: Flag = False
    """Only say how large the files will be and how long it will take."""

    verify: Flag = False
    """Compare all files with their sources, those of earlier runs too."""

    redo: Flag = False
    """Make those files anew that were made with other settings or from other sources."""


def main(settings: PrepareSettings) -> int:
    """Say what it will take, do it and report; the exit code is 1 if a video, or a part of one, had to be left out."""
    s = settings
    planned = plan(s, s.out, encoding=s.encoding, redo=s.redo)
    say([f"{len(planned.todo)} of {len(planned.jobs)} videos to encode"])
    if s.dry_run or len(planned.todo) > SAMPLED_FILES:
        _announce(estimate(planned, workers=s.workers), s.out)
    if s.dry_run:
        return 0
    with progress_bar("encoding") as progress:
        report = run(planned, verify=s.verify, workers=s.workers, progress=progress)
    before, after = (
        _size_on_disk(file) for file in ((j.source for j in planned.jobs), (j.target for j in planned.jobs))
    )
    say([f"{report.made} made, {report.kept} kept: {_megabytes(before)} became {_megabytes(after)}"])
    if report.psnr:
        worst = min(report.psnr, key=lambda path: report.psnr[path])
        middle = median(report.psnr.values())
        say([f"{len(report.psnr)} verified: median {middle:.1f} dB, least {report.psnr[worst]:.1f} dB, {worst}"])
    if report.unreadable:
        say([f"{len(report.unreadable)} left out: see {planned.out / UNREADABLE_NAME}"])
    say([f"{path} {'; '.join(found)}: the copy goes on behind it" for path, found in report.damaged.items()])
    return 1 if report.unreadable or report.damaged else 0


def _announce(expected: Estimate, out: Path) -> None:
    if not expected.files:
        say(["none of the files tried could be encoded, so size and time cannot be estimated"])
        return
    line = (
        f"{_megabytes(expected.source_bytes)} will become about {_megabytes(expected.target_bytes)} in about "
        f"{expected.seconds / 60:.1f} minutes (from some frames of {expected.files} files)"
    )
    say([line])
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if expected.target_bytes > free:
        raise DataError(f"{out} has room for {_megabytes(free)} only. Name a folder on another disk.")


def _size_on_disk(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
