"""Look at every video of a data set before training does, and say what is wrong."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from videomae.console import Progress, no_progress
from videomae.data.audit.findings import ERROR, SEVERITIES, Finding
from videomae.data.audit.inspect import VideoFacts
from videomae.data.audit.pool import inspect_videos
from videomae.data.audit.set_rules import (
    class_findings,
    duplicate_findings,
    group_findings,
    left_out,
    uniformity_findings,
)
from videomae.data.audit.video_rules import short_videos, video_findings, why_unreadable
from videomae.data.manifest import Manifest, Sample
from videomae.data.settings import DataSource, read_data

THUMBNAILS, SHEET_VIDEOS = 4000, 24

T = TypeVar("T")


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
            row = table.setdefault(self.manifest.class_name(sample), {})
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
                    "damage": [damage._asdict() for damage in self.facts[sample.file].damage],
                }
                for sample in self.manifest
            ],
        }


def check(
    data: DataSource,
    *,
    clip_frames: int = 16,
    stride: float = 4,
    near_duplicates: bool = True,
    workers: int | None = None,
    timeout: float = 600.0,
    progress: Progress = no_progress,
) -> CheckReport:
    """Decode every file of a data set and report what is wrong with it.

    Args:
        data: folder of videos, CSV manifest or official list, or a manifest that was read. Of a folder, the files are
            listed that the manifest leaves out.
        clip_frames: frames of a clip, to tell which videos are too short for one.
        stride: distance between them, in frames.
        near_duplicates: also look for copies that were re-encoded, scaled or trimmed.
        workers: processes that decode; by default one per processor.
        timeout: seconds after which a file is given up.
        progress: called with the number of files looked at, and that of all.

    Raises:
        DataError: if the list itself cannot be read.
    """
    if clip_frames < 1 or stride <= 0:
        raise ValueError(f"clip_frames and stride must be above 0, got {clip_frames} and {stride}.")
    manifest, path = read_data(data)
    files = list(dict.fromkeys(sample.file for sample in manifest))
    facts: dict[Path, VideoFacts] = {}
    rates = {sample.file: sample.fps for sample in manifest}
    about: dict[str, Any] = {"thumbnails": _choose_thumbnails(manifest), "fps": rates}
    looks = inspect_videos(files, **about, workers=workers, timeout=timeout)
    for file, fact in zip(files, looks, strict=True):
        facts[file] = fact
        progress(len(facts), len(files))
    folder = path if path is not None and path.is_dir() else None
    options: dict[str, Any] = {"clip_frames": clip_frames, "stride": stride, "near": near_duplicates}
    findings = find_problems(manifest, facts, folder=folder, **options)
    nothing = np.empty((0, 0, 0), np.float16)
    slim = {file: dataclasses.replace(fact, fingerprint=nothing) for file, fact in facts.items()}
    return CheckReport(str(path or manifest.root), manifest, slim, findings)


def find_problems(
    manifest: Manifest,
    facts: Mapping[Path, VideoFacts],
    *,
    clip_frames: int = 16,
    stride: float = 4,
    near: bool = True,
    folder: Path | None = None,
) -> tuple[Finding, ...]:
    """Judge a data set.

    Args:
        manifest: its videos.
        facts: what each file holds, by ``Sample.file``.
        clip_frames: frames of a clip, to tell which videos are too short for one.
        stride: distance between them, in frames.
        near: also look for copies that were re-encoded, scaled or trimmed.
        folder: also list the files in it that the manifest does not name.

    Returns:
        The findings, errors first.
    """
    findings = [
        *video_findings(manifest, facts),
        *short_videos(manifest, facts, clip_frames=clip_frames, stride=stride),
        *duplicate_findings(manifest, facts, near=near),
        *group_findings(manifest),
        *class_findings(manifest),
        *uniformity_findings(manifest, facts),
        *(left_out(folder, manifest) if folder else ()),
    ]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


# ------------------------------------------------------------------------------------------------- the report


def _range(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, [0, 50, 100])] if values else []


def _frequencies(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def most_frequent(frequencies: Mapping[str, int], most: int = 8) -> list[tuple[str, int]]:
    """Return the first of a report's frequencies, and how many others there are."""
    rows = list(frequencies.items())
    rest = sum(count for _, count in rows[most:])
    return rows[:most] + ([(f"{len(rows) - most} others", rest)] if rest else [])


def by_class(manifest: Manifest) -> dict[str, list[Sample]]:
    """Sort the videos by class, "-" stands for none."""
    samples: dict[str, list[Sample]] = {name: [] for name in manifest.classes}
    for sample in manifest:
        samples.setdefault(manifest.class_name(sample), []).append(sample)
    return samples


def spread(items: Sequence[T], count: int) -> list[T]:
    """Choose up to ``count`` items at even distances."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def _choose_thumbnails(manifest: Manifest) -> set[Path]:
    """Choose as many videos of each class as a report can hold in memory."""
    classes = by_class(manifest)
    each = max(THUMBNAILS // len(classes), SHEET_VIDEOS)
    return {sample.file for samples in classes.values() for sample in spread(samples, each)}
