"""The videos that cannot be read: collected while a run meets them, and listed in ``unreadable.csv``."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from videomae.console import say
from videomae.data.manifest import Sample
from videomae.errors import DataError
from videomae.files import write_csv

UNREADABLE_NAME = "unreadable.csv"

Reports = Iterable[tuple[str, str]]
"""The path and the reason of each video that could not be read, as a batch has them in ``unreadable``."""


def write_unreadable(file: Path, reports: Reports, *, keep_empty: bool = False) -> None:
    """Write ``path,reason`` of each video, in the order given.

    Args:
        file: the list; where all videos can be read, there is none.
        reports: path and reason of each.
        keep_empty: then write its first line nevertheless.
    """
    rows = list(reports)
    if rows or keep_empty:
        write_csv(file, ("path", "reason"), rows)
    else:
        file.unlink(missing_ok=True)


class UnreadableVideos:
    """The videos that a training process could not read: said and listed as soon as they are met.

    What an earlier part of the run has listed stays there. Several processes count together what they `share`.

    Args:
        folder: the run directory.
        samples: the videos to train on; those of rare classes may be repeated.
        max_fraction: end the run when more than this fraction of them is unreadable.
        rank: of this process; each of several processes has a list of its own.
        world_size: number of processes.
    """

    def __init__(
        self, folder: Path, samples: Iterable[Sample], *, max_fraction: float, rank: int = 0, world_size: int = 1
    ) -> None:
        self.file = folder / (UNREADABLE_NAME if world_size == 1 else f"unreadable-{rank}.csv")
        self.num_videos = len({sample.path for sample in samples})
        self.max_fraction = max_fraction
        self.reasons: dict[str, str] = {}
        self._untold: dict[str, str] = {}
        self._noted: set[str] = set()
        self._listed: dict[str, str] = {}
        if self.file.exists():
            with self.file.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                try:
                    self._listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
                except (KeyError, ValueError, csv.Error) as error:
                    raise DataError(f"{self.file} is no list of path,reason ({error}): remove it.") from error

    def add(self, reports: Reports) -> None:
        """Take the ``unreadable`` of a training batch, where other videos have taken their place.

        Raises:
            DataError: if more than the allowed fraction of all videos is unreadable.
        """
        reports = list(reports)
        self.note(reports, "replaced by others")
        self._untold |= {path: reason for path, reason in reports if path not in self.reasons}
        self.reasons |= self._untold
        self._check()

    @property
    def untold(self) -> int:
        """How many of them the other processes do not know of."""
        return len(self._untold)

    def share(self, gather: Callable[[list], list]) -> None:
        """Count the videos that other processes could not read, too; every process calls this.

        Args:
            gather: from the list of this process to those of all, one after the other.

        Raises:
            DataError: if more than the allowed fraction of all videos is unreadable.
        """
        self.reasons |= dict(gather(list(self._untold.items())))
        self._untold.clear()
        self._check()

    def _check(self) -> None:
        if len(self.reasons) > self.max_fraction * self.num_videos:
            path, reason = next(reversed(self.reasons.items()))
            raise DataError(
                f"{len(self.reasons)} of {self.num_videos} videos cannot be read, more than the allowed fraction of "
                f"{self.max_fraction:g}; the last one, {path!r}: {reason} Run `videomae check` on the data, remove or "
                "replace these videos, or allow a larger fraction."
            )

    def note(self, reports: Reports, consequence: str) -> None:
        """Say and list those videos that are met for the first time; ``consequence`` is what becomes of them."""
        fresh = {path: reason for path, reason in reports if path not in self._noted}
        if not fresh:
            return
        self._noted |= fresh.keys()
        self._listed |= fresh
        write_unreadable(self.file, sorted(self._listed.items()))
        path, reason = next(iter(fresh.items()))
        more = f" and {len(fresh) - 1} others" if len(fresh) > 1 else ""
        say([f"cannot read {path!r}{more}, {consequence}: {reason} They are listed in {self.file}."])
