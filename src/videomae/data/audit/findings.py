"""What is wrong with a data set, and what to do: from the facts of its videos to findings.

A rule about single videos is one entry of `_RULES`; what concerns several videos, or the whole set, is a function.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videomae.data.audit.duplicates import near_duplicates
from videomae.data.audit.inspect import SLOTS_PER_SECOND, VideoFacts
from videomae.data.manifest import Manifest, Sample
from videomae.data.sources import is_video, visible_files

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")

# Where the boundaries lie that no standard gives.
MISSING_SHARE, MISSING_SECONDS = 0.01, 0.5  # of the frames, or of the time, that a header may promise too much
EMPTY_SHARE = 0.9  # of the frames of a video that is called black, plain or still
STILL_SECONDS = 0.5  # in less time, little moves anywhere
SMALL_SIDE = 112  # pixels, half of what the published models take
ELONGATED = 3.0  # long over short side: a centre crop shows a third of the picture
UNBALANCED, VERY_UNBALANCED = 3.0, 10.0  # largest over smallest class
MIXED_RATES = 1.5  # fastest over slowest, without the outer 5 % on both sides
RARE_CODEC = 0.1  # share of the videos
RANDOM_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Item:
    """One occurrence of a finding.

    Attributes:
        videos: paths as the manifest writes them; several where they belong together, none for the set as a whole.
        detail: what was measured.
    """

    videos: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
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
        *_video_findings(manifest, facts),
        *_short_videos(manifest, facts, clip_frames=clip_frames, stride=stride),
        *_duplicate_findings(manifest, facts, near=near),
        *_source_findings(manifest),
        *_class_findings(manifest),
        *_uniformity_findings(manifest, facts),
        *(_left_out(folder, manifest) if folder else ()),
    ]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def label_of(sample: Sample, manifest: Manifest) -> str:
    """Return the name of a video's class, "-" if it has none."""
    return "-" if sample.label is None else manifest.classes[sample.label]


# ---------------------------------------------------------------------------------------------- single videos


@dataclass(frozen=True)
class _Rule:
    """A finding about single videos: ``detail`` tells what was measured, or None where all is well."""

    kind: str
    severity: str
    title: str
    advice: str
    detail: Callable[[VideoFacts], str | None]


def _has_problem(name: str) -> Callable[[VideoFacts], str | None]:
    return lambda video: (video.reason or name) if video.problem == name else None


def _truncated(video: VideoFacts) -> str | None:
    stated, seconds = video.stated_frames or 0, video.stated_duration or 0.0
    if video.damage:
        return None
    if stated - video.num_frames > max(2, MISSING_SHARE * stated):
        return f"the header states {stated} frames, {video.num_frames} decode"
    if seconds - video.duration > MISSING_SECONDS + 0.1 * seconds:  # the time of a container may be that of its sound
        return f"the header states {seconds:.2f} s, {video.duration:.2f} s decode"
    return None


def _elongated(video: VideoFacts) -> str | None:
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
        "`videomae prepare` leaves it out.",
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
            if video.still_share >= EMPTY_SHARE > video.blank_share and video.duration >= STILL_SECONDS
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
        "A stride counts frames, so clips last differently long. `videomae prepare --max-fps` makes the rate constant.",
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


def _video_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts]) -> Iterator[Finding]:
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


def _short_videos(
    manifest: Manifest, facts: Mapping[Path, VideoFacts], *, clip_frames: int, stride: float
) -> Iterator[Finding]:
    span = clip_frames * stride
    readable = [(sample, facts[sample.file]) for sample in manifest if not facts[sample.file].problem]
    reasons = ((sample, why_unreadable(sample, video)) for sample, video in readable)
    if outside := tuple(Item((sample.path,), why) for sample, why in reasons if why):
        title, advice = "Stretches of time without a frame", "Correct start and end: training skips them as unreadable."
        yield Finding("no-frames", ERROR, title, advice, outside)
    lengths = {sample: _num_frames(sample, video) for sample, video in readable}
    short = [Item((sample.path,), f"{count} frames") for sample, count in lengths.items() if 0 < count < span]
    if short:
        fitting = int(np.percentile(list(lengths.values()), 5) // clip_frames)
        hint = f" A stride of {fitting} fits 95 % of the videos." if 1 <= fitting < stride else ""
        advice = f"The last frame is repeated to fill a clip.{hint} Leave out videos that are mostly repetition."
        title = f"Videos too short for a clip of {clip_frames} frames, every {stride:g}"
        yield Finding("short", WARNING, title, advice, tuple(short))


def _num_frames(sample: Sample, video: VideoFacts) -> int:
    if sample.start is None and sample.end is None:
        return video.num_frames
    return len(sample.frames_of(video.times))


def why_unreadable(sample: Sample, video: VideoFacts) -> str | None:
    """Return why no frame of a sample can be read, or None if some can."""
    if video.problem:
        return video.reason or ""
    return None if _num_frames(sample, video) else sample.nothing_between(video.times)


# ------------------------------------------------------------------------------------------------- duplicates


@dataclass(frozen=True)
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


def _duplicate_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts], *, near: bool) -> Iterator[Finding]:
    """Find copies; and among them those that stand in two splits, and those with different labels."""
    samples = [sample for sample in manifest if not facts[sample.file].problem]
    copies = [*_exact_copies(samples, facts), *(_near_copies(samples, facts) if near else ())]
    for kind, (title, advice) in _COPIES.items():
        if items := tuple(_item(group) for group in copies if group.kind == kind):
            yield Finding(kind, WARNING, title, advice, items)

    for is_near, severity, prefix, noun in ((False, ERROR, "", "Copies"), (True, WARNING, "near-", "Near copies")):
        chosen = [group for group in copies if (group.kind == "near-duplicates") == is_near]
        by_split = [(group, sorted({sample.split for sample in group.samples if sample.split})) for group in chosen]
        if items := tuple(_item(group, names) for group, names in by_split if len(names) > 1):
            advice = "Remove them from one side: a model is tested on what it was trained on, and scores look too good."
            yield Finding(f"{prefix}split-leak", severity, f"{noun} on both sides of a split", advice, items)
        by_label = [(group, sorted({label_of(sample, manifest) for sample in group.samples})) for group in chosen]
        if items := tuple(_item(group, names) for group, names in by_label if len(names) > 1):
            advice = "Look at them, keep the right label and remove the others: one of them must be wrong."
            yield Finding(f"{prefix}label-conflict", severity, f"{noun} with different labels", advice, items)


def _item(copies: _Copies, names: Sequence[str] = ()) -> Item:
    detail = f"{copies.how}: {' / '.join(names)}" if names else copies.how
    return Item(tuple(sample.path for sample in copies.samples), detail)


def _exact_copies(samples: Sequence[Sample], facts: Mapping[Path, VideoFacts]) -> Iterator[_Copies]:
    for group in _groups(samples, lambda sample: (facts[sample.file].digest, sample.start, sample.end)):
        yield _Copies("exact-duplicates", group, "the same bytes")
    for group in _groups(samples, lambda sample: (facts[sample.file].content, sample.start, sample.end)):
        if len({facts[sample.file].digest for sample in group}) > 1:
            yield _Copies("same-frames", group, "the same frames")


def _near_copies(samples: Sequence[Sample], facts: Mapping[Path, VideoFacts]) -> Iterator[_Copies]:
    """Compare one of each set of equal videos, and none in which there is nothing to see."""
    firsts: dict[Hashable, Sample] = {}
    for sample in samples:
        if facts[sample.file].blank_share < EMPTY_SHARE:
            firsts.setdefault((facts[sample.file].content, sample.start, sample.end), sample)
    compared = list(firsts.values())
    pairs = near_duplicates([_fingerprint(sample, facts[sample.file]) for sample in compared])
    groups: dict[int, set[int]] = {}  # of every video that is like another: all that are linked with it
    for i, j, _ in pairs:
        joined = groups.get(i, {i}) | groups.get(j, {j})
        groups |= dict.fromkeys(joined, joined)
    for group in sorted({min(group): sorted(group) for group in groups.values()}.values()):
        values = [value for i, _, value in pairs if i in group]
        how = f"similarity {min(values):.3f}" + (f" to {max(values):.3f}" if len(values) > 1 else "")
        yield _Copies("near-duplicates", tuple(compared[i] for i in group), how)


def _fingerprint(sample: Sample, video: VideoFacts) -> np.ndarray:
    """Return the part of the fingerprint, which counts from the first frame, of a sample's stretch of time."""
    if sample.start is None and sample.end is None:
        return video.fingerprint
    begin, end = (
        None if second is None else max(round((second - video.times[0]) * SLOTS_PER_SECOND), 0)
        for second in (sample.start, sample.end)
    )
    return video.fingerprint[begin:end]


def _groups(samples: Iterable[Sample], key: Callable[[Sample], Hashable]) -> list[tuple[Sample, ...]]:
    """Collect the samples that share a key with another, except those without one."""
    groups: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return [tuple(group) for name, group in groups.items() if len(group) > 1 and name is not None]


# -------------------------------------------------------------------------------------------------- whole set


def _uniformity_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts]) -> Iterator[Finding]:
    videos = [fact for fact in facts.values() if not fact.problem]
    if not videos:
        return
    slow, fast = np.percentile([video.fps for video in videos], [5, 95])
    if fast >= MIXED_RATES * slow:
        advice = (
            "A stride counts frames, so clips last differently long. Set the sampling's fps, or run `videomae prepare "
            "--max-fps` with the lowest rate."
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
    number_of = dict(zip(manifest, manifest.group_numbers(), strict=True))
    sources = _groups(manifest, number_of.__getitem__)
    if not sources:
        return
    advice = (
        "Parts of one source look alike, and scores look too good. Split by group: `Manifest.grouped_split` keeps a "
        "source on one side."
    )
    if manifest.splits:
        items = []
        for group in sources:
            if len(splits := Counter(sample.split for sample in group if sample.split)) > 1:
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
    if not present:
        return
    (most, large), (least, small) = present[0], present[-1]
    if large >= UNBALANCED * small:
        severity = WARNING if large >= VERY_UNBALANCED * small else NOTE
        where = f" in {split}" if split else ""
        detail = f"{large} videos of {manifest.classes[most]!r}{where}, {small} of {manifest.classes[least]!r}"
        advice = (
            "Look at the mean of the classes' accuracies, not only at the overall one; collect more of the rare ones."
        )
        yield Finding("imbalance", severity, "Classes of very different size", advice, (Item((), detail),))


def _left_out(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """List the files of a folder that the manifest does not take in."""
    used = {os.path.abspath(sample.file) for sample in manifest}
    unused = [
        file
        for file in visible_files(folder)
        if Path(file).name != "manifest.csv" and os.path.abspath(folder / file) not in used
    ]
    videos, others = ([Item((file,), "") for file in unused if is_video(file) == wanted] for wanted in (True, False))
    if videos:
        advice = "Add them to the manifest, or ignore this if they were left out on purpose."
        yield Finding("unlisted", NOTE, "Videos in the folder that the manifest does not name", advice, tuple(videos))
    if others:
        advice = "By their names they are no videos. Rename or convert those that are."
        yield Finding("other-files", NOTE, "Other files in the folder", advice, tuple(others))
