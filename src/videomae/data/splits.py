"""How the videos of a data set are drawn into splits: by class, and with each group on one side."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from videomae.errors import DataError


def draw_splits(
    labels: Sequence[int | None], groups: Sequence[Hashable], fractions: Mapping[str, float], *, seed: int
) -> list[str]:
    """Choose a split for every video, the same within a group, so that each split gets its fraction of every class.

    Groups go, the largest first, to the split that lacks most of their classes: a greedy choice, exact to within one
    video a class where every video is its own group.

    Args:
        labels: the class of each video.
        groups: the group of each video.
        fractions: of the videos for each split, above 0; they add up to 1.
        seed: the same seed gives the same splits.

    Returns:
        The name of the split of each video.

    Raises:
        DataError: if a split would stay empty.
    """
    if any(fraction <= 0 for fraction in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"the fractions of the splits must be above 0 and add up to 1, got {dict(fractions)}.")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    names, order = list(members), np.random.default_rng(seed).permutation(len(members))
    by_size = sorted((names[i] for i in order), key=lambda group: -len(members[group]))

    totals = Counter(labels)
    lacking = {split: {label: part * n for label, n in totals.items()} for split, part in fractions.items()}
    room = {split: part * len(labels) for split, part in fractions.items()}

    def need(split: str, counts: Counter) -> tuple[float, float]:
        of_classes = sum(n * lacking[split][label] / totals[label] ** 2 for label, n in counts.items())
        return round(of_classes, 9), room[split]

    def choose(counts: Counter) -> str:
        ((label, n),) = counts.items() if len(counts) == 1 else ((None, 0),)
        if n == 1 and max(lacking[split][label] for split in fractions) < 1 - 1e-9:
            # What is left of a class is less than a video for each split: it evens out over the classes.
            return max((split for split in fractions if lacking[split][label] > 1e-9), key=lambda split: room[split])
        return max(fractions, key=lambda split: need(split, counts))

    chosen = [""] * len(labels)
    for group in by_size:
        counts = Counter(labels[i] for i in members[group])
        split = choose(counts)
        for label, n in counts.items():
            lacking[split][label] -= n
            room[split] -= n
        for i in members[group]:
            chosen[i] = split
    if empty := sorted(set(fractions) - set(chosen)):
        raise DataError(
            f"{len(members)} groups of videos do not fill {len(fractions)} splits: {empty} would be empty. "
            "Ask for fewer splits, or add videos."
        )
    return chosen


def linked(names: Sequence[Sequence[Hashable]]) -> list[int]:
    """Return a number for each item, the same for those that share a name, or are linked by others that do.

    Args:
        names: of each item, at least one.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(name: Hashable) -> Hashable:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    for first, *others in names:
        for other in others:
            parent[root(other)] = root(first)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(first), len(numbers)) for first, *_ in names]
