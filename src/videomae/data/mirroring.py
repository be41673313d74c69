"""Mirrored clips where classes name a side: what swipes to the left swipes to the right in a mirror."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_SIDE = re.compile("(left|right)(wards?|hand(?:ed)?|side)?")
_TURN = re.compile("(counter)?clockwise(.*)")


@dataclass(frozen=True)
class Mirroring:
    """Some clips are mirrored, and get the label of what they then show.

    Attributes:
        probability: of a clip, 0 to 1.
        labels: of a mirrored clip of each class.
    """

    probability: float
    labels: tuple[int, ...]


def resolve_mirroring(flip: float | None, classes: Sequence[str]) -> tuple[float, Mirroring | None]:
    """Return the probability to mirror clips that keep their labels, and how to mirror those that do not.

    Where each class that names a side has one of the other side, as ``Swiping_Left`` and ``Swiping_Right``, mirrored
    clips change their labels. Where one has not, clips are mirrored, with their labels kept, only if that is asked for.

    Args:
        flip: the probability; None is 0.5, or 0 where a class names a side and none the other.
        classes: all class names, in the order of their labels.
    """
    if not direction_classes(classes):
        return 0.5 if flip is None else flip, None
    labels = _mirrored_labels(classes)
    if labels is None:
        return flip or 0.0, None
    return 0.0, Mirroring(0.5 if flip is None else flip, labels)


def direction_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names that speak of a side or a sense of rotation, such as ``Swiping_Left``."""
    return tuple(name for name in classes if _mirrored(_words(name)) != _words(name))


def _mirrored_labels(classes: Sequence[str]) -> tuple[int, ...] | None:
    """Return the class of each class's mirrored clips; None where that of one of them is not known."""
    words = [_words(name) for name in classes]
    partners = [i if _mirrored(own) == own else _only(words, _mirrored(own)) for i, own in enumerate(words)]
    known = tuple(partner for partner in partners if partner is not None)
    return known if len(known) == len(classes) else None


def _only(words: list[tuple[str, ...]], wanted: tuple[str, ...]) -> int | None:
    return words.index(wanted) if words.count(wanted) == 1 else None


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a class name, in lower case, without a leading number; senses of rotation by one name."""
    words = [word.lower() for word in _WORDS.findall(re.sub(r"^\d+(?=\D)", "", name))]
    text = re.sub(r"\b(?:counter|anti) ?(?=clock)", "counter", " ".join(words)).replace("clock wise", "clockwise")
    return tuple({"cw": "clockwise", "ccw": "counterclockwise"}.get(word, word) for word in text.split())


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_other_side, words))


def _other_side(word: str) -> str:
    if side := _SIDE.fullmatch(word):
        return {"left": "right", "right": "left"}[side[1]] + (side[2] or "")
    if turn := _TURN.fullmatch(word):
        return ("" if turn[1] else "counter") + "clockwise" + turn[2]
    return word
