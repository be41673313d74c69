"""Look at every video of a data set before training does, and say what to do about what is wrong.

`check` gives a `CheckReport`; `CheckReport.write` makes a page, JSON and a list of the unreadable files of it.
"""

import base64
import csv
import dataclasses
import io
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from videomae.files import atomic_write, write_json
from videomae.video.manifest import VIDEO_EXTENSIONS, Manifest, Sample, read_manifest

if TYPE_CHECKING:
    from rich.console import Console

    from videomae.video.inspect import VideoFacts

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")

# Where the boundaries lie that no standard gives.
MISSING_SHARE, MISSING_SECONDS = 0.01, 0.5  # of the frames, or of the time, that a header may promise too much
EMPTY_SHARE = 0.9  # of the frames of a video that is called black, plain or still
SMALL_SIDE = 112  # pixels, half of what the published models take
ELONGATED = 3.0  # long over short side: a centre crop shows a third of the picture
UNBALANCED, VERY_UNBALANCED = 3.0, 10.0  # largest over smallest class
MIXED_RATES = 1.5  # fastest over slowest, without the outer 5 % on both sides
RARE_CODEC = 0.1  # share of the videos

RANDOM_TEST_SHARE = 0.2
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


@dataclasses.dataclass(frozen=True)
class Item:
    """One occurrence of a finding.

    Attributes:
        videos: paths as the manifest writes them; several where they belong together, none for the set as a whole.
        detail: what was measured.
    """

    videos: tuple[str, ...]
    detail: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know.

    Attributes:
        kind: short name that programs can rely on, such as "split-leak".
        severity: "error" spoils training or its measure, "warning" may, "note" is good to know.
        title: what it is.
        advice: what to do about it.
        items: where it was found, at least one.
    """

    kind: str
    severity: str
    title: str
    advice: str
    items: tuple[Item, ...]

    @property
    def videos(self) -> tuple[str, ...]:
        """Paths of all videos concerned, each once."""
        return tuple(dict.fromkeys(path for item in self.items for path in item.videos))


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
    facts: Mapping[Path, "VideoFacts"]
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
        """Path in the manifest and reason of every video of which no frame can be read."""
        facts = ((sample.path, self.facts[sample.file]) for sample in self.manifest)
        return {path: fact.reason or "" for path, fact in facts if fact.problem}

    @cached_property
    def readable(self) -> list["VideoFacts"]:
        """Facts of the files of which frames can be read."""
        return [fact for fact in self.facts.values() if not fact.problem]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Videos by class and split; "-" stands for none."""
        table: dict[str, dict[str, int]] = {name: {} for name in self.manifest.classes}
        for sample in self.manifest:
            row = table.setdefault(_label(sample, self.manifest), {})
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
        left_out = {"fingerprint", "thumbnail", "file"}
        names = [
            field.name for field in dataclasses.fields(next(iter(self.facts.values()))) if field.name not in left_out
        ]
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
        progress: called with the number of files looked at, and that of all.

    Raises:
        DataError: if the list itself cannot be read.
    """
    from videomae.video.inspect import inspect_videos

    if clip_frames < 1 or stride <= 0:
        raise ValueError(f"clip_frames and stride must be above 0, got {clip_frames} and {stride}.")
    manifest = data if isinstance(data, Manifest) else read_manifest(data, format=format, videos=videos)
    files = list(dict.fromkeys(sample.file for sample in manifest))
    facts: dict[Path, VideoFacts] = {}
    looks = inspect_videos(files, thumbnails=_choose_thumbnails(manifest), workers=workers, timeout=timeout)
    for file, fact in zip(files, looks, strict=True):
        facts[file] = fact
        progress(len(facts), len(files))
    findings = [
        *_video_findings(manifest, facts, clip_frames=clip_frames, stride=stride),
        *_duplicate_findings(manifest, facts, near=near_duplicates),
        *_set_findings(manifest, facts),
        *_left_out(data, manifest),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    nothing = np.empty((0, 0, 0), np.float16)
    slim = {file: dataclasses.replace(fact, fingerprint=nothing) for file, fact in facts.items()}
    return CheckReport(str(manifest.root if data is manifest else data), manifest, slim, tuple(findings))


# ---------------------------------------------------------------------------------------------- single videos


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A finding about single videos: ``detail`` tells what was measured, or None where all is well."""

    kind: str
    severity: str
    title: str
    advice: str
    detail: Callable[["VideoFacts"], str | None]


def _has_problem(name: str) -> Callable[["VideoFacts"], str | None]:
    return lambda video: (video.reason or name) if video.problem == name else None


def _truncated(video: "VideoFacts") -> str | None:
    stated, seconds = video.stated_frames or 0, video.stated_duration or 0.0
    if video.damage:
        return None
    if stated - video.num_frames > max(2, MISSING_SHARE * stated):
        return f"the header states {stated} frames, {video.num_frames} decode"
    if seconds - video.duration > MISSING_SECONDS + 0.1 * seconds:  # the time of a container may be that of its sound
        return f"the header states {seconds:.2f} s, {video.duration:.2f} s decode"
    return None


def _elongated(video: "VideoFacts") -> str | None:
    shown = video.width * video.pixel_aspect
    ratio = max(shown, video.height) / min(shown, video.height)
    return f"{video.width}x{video.height}" if ratio >= ELONGATED else None


_PROBLEMS = (
    _Rule(
        "missing",
        ERROR,
        "Files that are not there",
        "Correct the paths or the folder that they are relative to, or remove the lines from the manifest.",
        _has_problem("missing"),
    ),
    _Rule(
        "empty",
        ERROR,
        "Files of 0 bytes",
        "Copy or download them again, or remove them.",
        _has_problem("empty"),
    ),
    _Rule(
        "no-video",
        ERROR,
        "Files without a picture, such as sound only",
        "Remove them: there is nothing to train on.",
        _has_problem("no-video"),
    ),
    _Rule(
        "unreadable",
        ERROR,
        "Files of which no frame can be read",
        "Copy or download them again, or remove them. Training skips them, and stops if they are too many.",
        _has_problem("unreadable"),
    ),
    _Rule(
        "crashed",
        ERROR,
        "Files that crash the decoder",
        "Remove or re-encode them: in training they would end a worker of the loader.",
        _has_problem("crashed"),
    ),
    _Rule(
        "timed-out",
        ERROR,
        "Files that take too long to read",
        "Cut or re-encode them, or give a larger --timeout if they are just very long.",
        _has_problem("timed-out"),
    ),
)
_RULES = (
    _Rule(
        "damaged",
        ERROR,
        "Videos that decode only up to some frame",
        "Copy or download them again. Clips that reach behind the damage fail, and training then skips the video; "
        "`videomae prepare` keeps the part before it.",
        lambda video: video.damage and f"{video.num_frames} of {video.stated_frames or '?'} frames. {video.damage}",
    ),
    _Rule(
        "truncated",
        WARNING,
        "Videos shorter than their header states",
        "They were probably cut off in copying: download them again. What decodes can be used.",
        _truncated,
    ),
    _Rule(
        "patched",
        WARNING,
        "Videos with frames that the decoder had to patch",
        "Look at them; copy or download them again if they show blocks or smears.",
        lambda video: f"{video.corrupt_frames} of {video.num_frames} frames" if video.corrupt_frames else None,
    ),
    _Rule(
        "black",
        WARNING,
        "Black videos",
        "Remove them, or cut the black part off with the columns start and end.",
        lambda video: f"{video.black_share:.0%} of the frames" if video.black_share >= EMPTY_SHARE else None,
    ),
    _Rule(
        "plain",
        WARNING,
        "Videos of one colour",
        "Remove them: there is nothing to see.",
        lambda video: (
            f"{video.blank_share:.0%} of the frames" if video.blank_share >= EMPTY_SHARE > video.black_share else None
        ),
    ),
    _Rule(
        "frozen",
        WARNING,
        "Videos in which nothing moves",
        "Look at them: a still picture teaches nothing about motion. Remove them unless stillness is the class.",
        lambda video: (
            f"{video.still_share:.0%} of {video.duration:.1f} s"
            if video.still_share >= EMPTY_SHARE > video.blank_share
            else None
        ),
    ),
    _Rule(
        "small",
        WARNING,
        f"Videos with a side below {SMALL_SIDE} pixels",
        "They are scaled up to the size of the model. Get them in a higher resolution, or train a model for smaller "
        "frames.",
        lambda video: f"{video.width}x{video.height}" if min(video.width, video.height) < SMALL_SIDE else None,
    ),
    _Rule(
        "elongated",
        WARNING,
        f"Videos at least {ELONGATED:g} times as long as wide",
        "A centre crop loses most of the picture. Crop them to what matters, or test with several crops.",
        _elongated,
    ),
    _Rule(
        "unordered",
        WARNING,
        "Videos with missing or disordered time stamps",
        "Frames come out right, but each clip decodes the file from its start: `videomae prepare` makes them fast.",
        lambda video: None if video.is_ordered else "the stamps of the frames do not rise",
    ),
    _Rule(
        "variable-rate",
        NOTE,
        "Videos with a variable frame rate",
        "A stride counts frames, so clips last differently long. `videomae prepare --fps` makes the rate constant.",
        lambda video: f"{video.fps:.4g} fps on average" if video.is_variable_rate else None,
    ),
    _Rule(
        "no-duration",
        NOTE,
        "Videos whose header states no length",
        "Nothing to do: frames are counted here. Other tools may refuse them.",
        lambda video: None if video.stated_duration or video.stated_frames else f"{video.duration:.2f} s decode",
    ),
    _Rule(
        "anamorphic",
        NOTE,
        "Videos with pixels that are not square",
        "Training sees the stored pixels, a little squeezed. Re-encode to square pixels if shapes matter.",
        lambda video: f"pixels {video.pixel_aspect:.3g}:1" if abs(video.pixel_aspect - 1) > 0.01 else None,
    ),
    _Rule(
        "rotated",
        NOTE,
        "Videos that ask to be turned",
        "Nothing to do: frames are turned upright here. Other tools may show them on their side.",
        lambda video: f"{video.rotation} degrees clockwise" if video.rotation else None,
    ),
    _Rule(
        "deep-colour",
        NOTE,
        "Videos with more than 8 bits a colour",
        "Nothing to do: they are read as 8 bits. HDR looks flat then.",
        lambda video: f"{video.pixel_format}, {video.bits} bits" if video.bits > 8 else None,
    ),
    _Rule(
        "alpha",
        NOTE,
        "Videos with transparency",
        "It is ignored: what lies under transparent places shows. Flatten them onto a background if that looks wrong.",
        lambda video: video.pixel_format if video.has_alpha else None,
    ),
)


def _video_findings(
    manifest: Manifest, facts: Mapping[Path, "VideoFacts"], *, clip_frames: int, stride: float
) -> Iterator[Finding]:
    """Apply all rules, and the one that depends on the clips."""
    items: dict[str, dict[str, Item]] = defaultdict(dict)
    for sample in manifest:
        video = facts[sample.file]
        for rule in _PROBLEMS if video.problem else _RULES:
            detail = rule.detail(video)
            if detail is not None:
                items[rule.kind][sample.path] = Item((sample.path,), detail)
    for rule in (*_PROBLEMS, *_RULES):
        if rule.kind in items:
            yield Finding(rule.kind, rule.severity, rule.title, rule.advice, tuple(items[rule.kind].values()))

    span = clip_frames * stride
    lengths = {sample: _num_frames(sample, facts[sample.file]) for sample in manifest if not facts[sample.file].problem}
    short = [Item((sample.path,), f"{count} frames") for sample, count in lengths.items() if count < span]
    if short:
        fitting = int(np.percentile(list(lengths.values()), 5) // clip_frames)
        hint = f" A stride of {fitting} fits 95 % of the videos." if 1 <= fitting < stride else ""
        advice = f"The last frame is repeated to fill a clip.{hint} Leave out videos that are mostly repetition."
        title = f"Videos too short for a clip of {clip_frames} frames, every {stride:g}"
        yield Finding("short", WARNING, title, advice, tuple(short))


def _num_frames(sample: Sample, video: "VideoFacts") -> int:
    """Count the frames of a sample's stretch of time."""
    begin, end = sample.start or 0.0, video.duration if sample.end is None else min(sample.end, video.duration)
    if sample.start is None and sample.end is None:
        return video.num_frames
    return max(round((end - begin) * video.fps), 0)


# ------------------------------------------------------------------------------------------------- duplicates


@dataclasses.dataclass(frozen=True)
class _Copies:
    """Videos that show the same, in the order of the manifest, and how we know."""

    kind: str
    samples: tuple[Sample, ...]
    how: str


_COPIES = {
    "exact-duplicates": (
        "Copies: the same bytes",
        "Keep one of each. Copies in training count twice; a copy on the other side of a split is an error of its own.",
    ),
    "same-frames": (
        "Copies: different files with the same frames",
        "Keep one of each, the one with the better container or name.",
    ),
    "near-duplicates": (
        "Near copies: re-encoded, scaled, trimmed or of another rate",
        "Look at them side by side, and keep the best of each. If they are only similar, leave them.",
    ),
}


def _duplicate_findings(manifest: Manifest, facts: Mapping[Path, "VideoFacts"], *, near: bool) -> Iterator[Finding]:
    """Find copies; and among them those that stand in two splits, and those with different labels."""
    samples = [sample for sample in manifest if not facts[sample.file].problem]
    copies = [*_exact_copies(samples, facts), *(_near_copies(samples, facts) if near else ())]
    for kind, (title, advice) in _COPIES.items():
        if items := tuple(_item(group) for group in copies if group.kind == kind):
            yield Finding(kind, WARNING, title, advice, items)

    by_split = [(group, sorted({sample.split or "-" for sample in group.samples})) for group in copies]
    if items := tuple(_item(group, names) for group, names in by_split if len(names) > 1):
        title = "Copies on both sides of a split"
        advice = "Remove them from one side: a model is tested on what it was trained on, and scores look too good."
        yield Finding("split-leak", ERROR, title, advice, items)

    by_label = [(group, sorted({_label(sample, manifest) for sample in group.samples})) for group in copies]
    if items := tuple(_item(group, names) for group, names in by_label if len(names) > 1):
        title = "Copies with different labels"
        advice = "Look at them, keep the right label and remove the others: one of them must be wrong."
        yield Finding("label-conflict", ERROR, title, advice, items)


def _item(copies: _Copies, names: Sequence[str] = ()) -> Item:
    detail = f"{copies.how}: {' / '.join(names)}" if names else copies.how
    return Item(tuple(sample.path for sample in copies.samples), detail)


def _exact_copies(samples: Sequence[Sample], facts: Mapping[Path, "VideoFacts"]) -> Iterator[_Copies]:
    for group in _groups(samples, lambda sample: (facts[sample.file].digest, sample.start, sample.end)):
        yield _Copies("exact-duplicates", group, "the same bytes")
    for group in _groups(samples, lambda sample: (facts[sample.file].content, sample.start, sample.end)):
        if len({facts[sample.file].digest for sample in group}) > 1:
            yield _Copies("same-frames", group, "the same frames")


def _near_copies(samples: Sequence[Sample], facts: Mapping[Path, "VideoFacts"]) -> Iterator[_Copies]:
    """Compare one of each set of equal videos, and none in which there is nothing to see."""
    from videomae.video.duplicates import near_duplicates

    firsts: dict[Hashable, Sample] = {}
    for sample in samples:
        if facts[sample.file].blank_share < EMPTY_SHARE:
            firsts.setdefault((facts[sample.file].content, sample.start, sample.end), sample)
    compared = list(firsts.values())
    pairs = near_duplicates([_fingerprint(sample, facts[sample.file]) for sample in compared])
    group_of = {i: {i} for pair in pairs for i in pair[:2]}
    for i, j, _ in pairs:
        if group_of[i] is not group_of[j]:
            group_of[i] |= group_of[j]
            group_of |= dict.fromkeys(group_of[j], group_of[i])
    for number, group in sorted(group_of.items()):
        if number == min(group):
            found = [value for i, _, value in pairs if i in group]
            how = f"similarity {min(found):.3f}" + (f" to {max(found):.3f}" if len(found) > 1 else "")
            yield _Copies("near-duplicates", tuple(compared[i] for i in sorted(group)), how)


def _fingerprint(sample: Sample, video: "VideoFacts") -> np.ndarray:
    """Return the part of the fingerprint that belongs to a sample's stretch of time."""
    from videomae.video.inspect import SLOTS_PER_SECOND

    end = None if sample.end is None else round(sample.end * SLOTS_PER_SECOND)
    return video.fingerprint[round((sample.start or 0) * SLOTS_PER_SECOND) : end]


def _groups(samples: Iterable[Sample], key: Callable[[Sample], Hashable]) -> list[tuple[Sample, ...]]:
    """Collect the samples that share a key with another, except those without one."""
    groups: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return [tuple(group) for name, group in groups.items() if len(group) > 1 and name is not None]


# -------------------------------------------------------------------------------------------------- whole set


def _set_findings(manifest: Manifest, facts: Mapping[Path, "VideoFacts"]) -> Iterator[Finding]:
    yield from _source_findings(manifest)
    yield from _class_findings(manifest)
    videos = [fact for fact in facts.values() if not fact.problem]
    if not videos:
        return
    slow, fast = np.percentile([video.fps for video in videos], [5, 95])
    if fast >= MIXED_RATES * slow:
        advice = (
            "A stride counts frames, so clips last differently long. Set the sampling's fps, or run `videomae prepare`."
        )
        detail = f"from {slow:.4g} to {fast:.4g} fps, without the outermost 5 %"
        yield Finding("mixed-rates", NOTE, "Different frame rates", advice, (Item((), detail),))
    codecs = Counter(video.codec for video in videos)
    rare = [
        (s.path, facts[s.file].codec) for s in manifest if 0 < codecs[facts[s.file].codec] < RARE_CODEC * len(videos)
    ]
    if rare:
        advice = (
            "They may be slow to decode, or missing in another build of FFmpeg: `videomae prepare` makes all alike."
        )
        items = tuple(Item((path,), codec) for path, codec in rare)
        yield Finding("rare-codec", NOTE, "Videos of a codec that few others have", advice, items)


def _source_findings(manifest: Manifest) -> Iterator[Finding]:
    """Tell which sources stand in several splits, or how many would in a random one."""
    per_file = Counter(sample.file for sample in manifest)
    sources = _groups(
        manifest, lambda sample: sample.group or (str(sample.file) if per_file[sample.file] > 1 else None)
    )
    if not sources:
        return
    advice = (
        "Parts of one source look alike, and scores look too good. Split by group: `Manifest.grouped_split` keeps a "
        "source on one side."
    )
    if manifest.splits:
        items = []
        for group in sources:
            if len(splits := Counter(sample.split or "-" for sample in group)) > 1:
                source = group[0].group or group[0].path
                detail = f"source {source}: " + ", ".join(f"{n} in {split}" for split, n in sorted(splits.items()))
                items.append(Item(tuple(sample.path for sample in group), detail))
        if items:
            yield Finding("source-leak", ERROR, "Sources on both sides of a split", advice, tuple(items))
        return
    both, leaked = expected_leak([len(group) for group in sources], len(manifest))
    detail = (
        f"{len(sources)} sources have several videos; a random {1 - RANDOM_TEST_SHARE:.0%} / {RANDOM_TEST_SHARE:.0%} "
        f"split would put about {both:.0f} of them on both sides, and {leaked:.0%} of the test videos would have a "
        "part of the same source in training"
    )
    title = "There is no split yet, and a random one would leak"
    yield Finding("random-split-leak", WARNING, title, advice, (Item((), detail),))


def expected_leak(
    sizes: Sequence[int], num_videos: int, *, test_share: float = RANDOM_TEST_SHARE
) -> tuple[float, float]:
    """Tell what a random split would leak.

    Args:
        sizes: videos of each source that has several.
        num_videos: of the whole set.
        test_share: probability of a video to be drawn for the test.

    Returns:
        Expected number of sources on both sides, and share (0-1) of the test videos of which a part of the same source
        is in training.
    """
    both = sum(1 - test_share**size - (1 - test_share) ** size for size in sizes)
    leaked = sum(size * (1 - test_share ** (size - 1)) for size in sizes)
    return both, leaked / num_videos


def _class_findings(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.classes:
        return
    count = {split: Counter(s.label for s in manifest if s.split == split) for split in manifest.splits or (None,)}
    lacking = [
        Item((), f"no video of {name!r} in {split}")
        for split in manifest.splits
        for label, name in enumerate(manifest.classes)
        if not count[split][label]
    ]
    if lacking:
        advice = "A class without training videos is never predicted; one without test videos is not measured."
        yield Finding("missing-class", WARNING, "Classes that a split lacks", advice, tuple(lacking))
    split = "train" if "train" in count else next(iter(count))
    present = [(label, n) for label, n in count[split].most_common() if label is not None]
    (most, large), (least, small) = present[0], present[-1]
    if large >= UNBALANCED * small:
        severity = WARNING if large >= VERY_UNBALANCED * small else NOTE
        where = f" in {split}" if split else ""
        detail = f"{large} videos of {manifest.classes[most]!r}{where}, {small} of {manifest.classes[least]!r}"
        advice = (
            "Look at the mean of the classes' accuracies, not only at the overall one; collect more of the rare ones."
        )
        yield Finding("imbalance", severity, "Classes of very different size", advice, (Item((), detail),))


def _left_out(data: str | Path | Manifest, manifest: Manifest) -> Iterator[Finding]:
    """List the files of a folder that the manifest does not take in."""
    if isinstance(data, Manifest) or not Path(data).is_dir():
        return
    used = {os.path.abspath(sample.file) for sample in manifest}
    videos: list[Item] = []
    others: list[Item] = []
    for where, folders, files in os.walk(data, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(where, name)
            if not name.startswith(".") and os.path.abspath(path) not in used:
                is_video = os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS
                (videos if is_video else others).append(Item((os.path.relpath(path, data),), ""))
    if videos:
        advice = "Add them to the manifest, or ignore this if they were left out on purpose."
        yield Finding("unlisted", NOTE, "Videos in the folder that the manifest does not name", advice, tuple(videos))
    if others:
        advice = "By their names they are no videos. Rename or convert those that are."
        yield Finding("other-files", NOTE, "Other files in the folder", advice, tuple(others))


# ------------------------------------------------------------------------------------------------- the report


def _label(sample: Sample, manifest: Manifest) -> str:
    return "-" if sample.label is None else manifest.classes[sample.label]


def _range(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, [0, 50, 100])] if values else []


def _frequencies(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _by_class(manifest: Manifest) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in manifest.classes}
    for sample in manifest:
        samples.setdefault(_label(sample, manifest), []).append(sample)
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
