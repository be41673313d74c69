"""Which videos are trained on, and which the model is tested on."""

import dataclasses
from collections import Counter, defaultdict

from videomae.data.audit.check import CheckReport
from videomae.data.manifest import Manifest
from videomae.data.splits import linked
from videomae.errors import DataError

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
FRACTIONS_WITHOUT_VAL = {"train": 0.7, "test": 0.3}
FEWEST_TO_VALIDATE = 5  # videos a class; of fewer, less than half a video of each would be left to validate on
COPIES = ("exact-duplicates", "same-frames", "near-duplicates")  # findings of check


def split_for_training(report: CheckReport, *, seed: int) -> Manifest:
    """Return the readable, labelled videos with splits "train" and "test", and "val" where it was made here.

    Raises:
        DataError: if too little is left to train and to test on.
    """
    manifest = report.manifest
    kept = report.usable
    if not kept:
        path, reason = next(iter(report.unreadable.items()))
        raise DataError(f"none of the {len(manifest)} videos can be read, such as {path!r}: {reason}")
    dataclasses.replace(manifest, samples=tuple(kept)).require_classes("what can be read")
    # Paths stay relative to where the data lies, whatever folder the manifest is written to.
    samples = tuple(dataclasses.replace(sample, path=str(sample.file.resolve())) for sample in kept)
    if manifest.splits:
        names = set(manifest.splits)
        if not {"train", "test"} <= names:
            raise DataError(
                f"the data has the splits {', '.join(sorted(names))}: it needs 'train' and 'test', or none at all, and "
                "they are made."
            )
        if unassigned := [sample.path for sample in kept if sample.split is None]:
            raise DataError(
                f"{len(unassigned)} videos have no split, such as {unassigned[0]!r}, while others have one: fill the "
                "column 'split', or leave it out."
            )
        return Manifest(samples, manifest.classes, manifest.root)
    groups = groups_with_copies(kept, report)
    samples = tuple(dataclasses.replace(sample, group=group) for sample, group in zip(samples, groups, strict=True))
    whole = Manifest(samples, manifest.classes, manifest.root)
    split = whole.grouped_split if any(sample.group for sample in samples) else whole.stratified_split
    if len(samples) < FEWEST_TO_VALIDATE * len(manifest.classes):
        return split(FRACTIONS_WITHOUT_VAL, seed=seed)
    try:
        return split(FRACTIONS, seed=seed)
    except DataError:  # too few groups to validate on as well
        return split(FRACTIONS_WITHOUT_VAL, seed=seed)


def groups_with_copies(samples: Manifest, report: CheckReport) -> list[str | None]:
    """Return a group for each sample: one for all that copies or a group connect, over however many steps.

    Where that connects several groups, they become one, with the name of the first.
    """
    items = [item for finding in report.findings if finding.kind in COPIES for item in finding.items]
    copies_of = defaultdict(list)
    for number, item in enumerate(items):
        for path in item.videos:
            copies_of[path].append(number)
    numbers = linked([[sample.file, *copies_of[sample.path], *filter(None, [sample.group])] for sample in samples])
    groups: dict[int, str] = {}
    for number, sample in zip(numbers, samples, strict=True):
        if sample.group is not None:
            groups.setdefault(number, sample.group)
    sizes = Counter(numbers)
    for number, sample in zip(numbers, samples, strict=True):
        if sizes[number] > 1:
            groups.setdefault(number, sample.path)
    return [groups.get(number) for number in numbers]


def split_reason(report: CheckReport) -> str:
    """Say how the split came about."""
    out = f"; {len(report.unreadable)} unreadable left out" if report.unreadable else ""
    if report.manifest.splits:
        return "the data's own split" + out
    if any(sample.group for sample in report.manifest):
        return "split by group, so that none is on two sides" + out
    return "split at random by class, copies kept on one side" + out
