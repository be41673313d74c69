"""What can be wrong with a data set as a whole: copies, leaks between splits, classes, rates, files left out."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videomae.data.audit.duplicates import near_duplicates
from videomae.data.audit.findings import ERROR, NOTE, WARNING, Finding, Item
from videomae.data.audit.inspect import SLOTS_PER_SECOND, VideoFacts
from videomae.data.audit.video_rules import EMPTY_FRACTION
from videomae.data.manifest import Manifest, Sample
from videomae.data.sources import look_into, not_looked_at

# Where the boundaries lie that no standard gives.
UNBALANCED, VERY_UNBALANCED = 3.0, 10.0  # largest over smallest class
MIXED_RATES = 1.5  # fastest over slowest, without the outer 5 % on both sides
RARE_CODEC = 0.1  # fraction of the videos
RANDOM_TEST_FRACTION = 0.2

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


def duplicate_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts], *, near: bool) -> Iterator[Finding]:
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
        by_label = [(group, sorted({manifest.class_name(sample) for sample in group.samples})) for group in chosen]
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
        if facts[sample.file].blank_fraction < EMPTY_FRACTION:
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


def uniformity_findings(manifest: Manifest, facts: Mapping[Path, VideoFacts]) -> Iterator[Finding]:
    """Find rates that differ much, and codecs that few videos have."""
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


def group_findings(manifest: Manifest) -> Iterator[Finding]:
    """Tell which groups stand in several splits, or how many would in a random one."""
    number_of = dict(zip(manifest, manifest.group_numbers(), strict=True))
    groups = _groups(manifest, number_of.__getitem__)
    if not groups:
        return
    advice = (
        "Videos of one group look alike, and scores look too good. `Manifest.grouped_split` keeps a group on one side."
    )
    if manifest.splits:
        items = []
        for group in groups:
            if len(splits := Counter(sample.split for sample in group if sample.split)) > 1:
                name = group[0].group or group[0].path
                detail = f"group {name}: " + ", ".join(f"{n} in {split}" for split, n in sorted(splits.items()))
                items.append(Item(tuple(sample.path for sample in group), detail))
        if items:
            yield Finding("group-leak", ERROR, "Groups on both sides of a split", advice, tuple(items))
        return
    both, leaked = expected_leak([len(group) for group in groups], len(manifest))
    train, test = 1 - RANDOM_TEST_FRACTION, RANDOM_TEST_FRACTION
    detail = (
        f"{len(groups)} groups have several videos; a random {train:.0%} / {test:.0%} split would put about {both:.0f} "
        f"of them on both sides, and {leaked:.0%} of the test videos would have one of the same group in training"
    )
    title = "There is no split yet, and a random one would leak"
    yield Finding("random-split-leak", WARNING, title, advice, (Item((), detail),))


def expected_leak(
    sizes: Sequence[int], num_videos: int, *, test_fraction: float = RANDOM_TEST_FRACTION
) -> tuple[float, float]:
    """Tell what a random split would leak.

    Args:
        sizes: videos of each group that has several.
        num_videos: of the whole set.
        test_fraction: probability of a video to be drawn for the test.

    Returns:
        Expected number of groups on both sides, and fraction (0-1) of the test videos of which another one of the
        group is in training.
    """
    both = sum(1 - test_fraction**size - (1 - test_fraction) ** size for size in sizes)
    leaked = sum(size * (1 - test_fraction ** (size - 1)) for size in sizes)
    return both, leaked / num_videos


def class_findings(manifest: Manifest) -> Iterator[Finding]:
    """Find classes that a split lacks, and classes of very different size."""
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


def left_out(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """List the files of a folder that the manifest does not take in."""
    used = {os.path.abspath(sample.file) for sample in manifest}
    found = look_into(folder)
    if found.closed:
        advice = "Correct the rights, or shorten the path: videos in it are left out."
        yield Finding("closed-folder", ERROR, "Folders that cannot be looked into", advice, _items(found.closed))
    if found.special:
        advice = "They are not opened. Remove them, or save what comes out of them as files."
        yield Finding("special-files", WARNING, "Pipes, sockets and devices", advice, _items(found.special))
    if found.of_frames:
        advice = "Frames are not read. Make a video of each, at its own rate."
        yield Finding("frame-folders", WARNING, "Folders of frames", advice, _items(found.of_frames))
    if videos := [file for file in found.videos if os.path.abspath(folder / file) not in used]:
        advice = "Add them to the manifest, or ignore this if they were left out on purpose."
        items = _items(dict.fromkeys(videos, ""))
        yield Finding("unlisted", NOTE, "Videos in the folder that the manifest does not name", advice, items)
    if others := [file for file in found.others if os.path.abspath(folder / file) not in used]:
        advice = f"{not_looked_at(others)}. By their names they are no videos: rename or convert those that are."
        yield Finding("other-files", NOTE, "Other files in the folder", advice, _items(dict.fromkeys(others, "")))


def _items(files: Mapping[str, str]) -> tuple[Item, ...]:
    return tuple(Item((file,), detail) for file, detail in files.items())
