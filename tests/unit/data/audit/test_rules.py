"""What concerns a whole set, judged from made-up facts; faults of real files are in tests/unit/tasks/test_check.py."""

from pathlib import Path

import numpy as np

from videomae.data.audit.check import find_problems
from videomae.data.audit.inspect import VideoFacts
from videomae.data.manifest import Manifest, Sample


def facts_of(number: int, **changes: object) -> VideoFacts:
    sound = {"num_frames": 100, "duration": 4.0, "stated_duration": 4.0, "fps": 25.0, "width": 320, "height": 240}
    moving = np.random.default_rng(number).uniform(0, 255, (32, 8, 8)).astype(np.float16)
    times = np.arange(100) / 25
    unique = {"digest": f"d{number}", "content": f"c{number}", "codec": "h264", "fingerprint": moving, "times": times}
    return VideoFacts(f"{number}.mp4", **{**sound, **unique, **changes})


def kinds(samples: list[Sample], facts: list[VideoFacts], classes: tuple[str, ...] = ("a", "b")) -> dict[str, str]:
    by_file = {sample.file: fact for sample, fact in zip(samples, facts, strict=True)}
    found = find_problems(Manifest(tuple(samples), classes, Path()), by_file)
    return {finding.kind: finding.severity for finding in found}


def samples_of(labels: str, splits: list[str | None] | None = None, groups: str | None = None) -> list[Sample]:
    return [
        Sample(
            f"{i}.mp4",
            Path(f"{i}.mp4"),
            label="ab".index(label),
            split=splits[i] if splits else None,
            group=groups[i] if groups else None,
        )
        for i, label in enumerate(labels)
    ]


def test_a_sound_set_has_no_findings():
    assert kinds(samples_of("aabb"), [facts_of(i) for i in range(4)]) == {}


def test_the_more_unbalanced_the_classes_the_more_severe():
    for labels, severity in (("aab", None), ("aaab", "note"), ("a" * 10 + "b", "warning")):
        found = kinds(samples_of(labels), [facts_of(i) for i in range(len(labels))])
        assert found.get("imbalance") == severity


def test_a_class_that_a_split_lacks_is_named():
    found = kinds(samples_of("aabb", ["train", "test", "train", "train"]), [facts_of(i) for i in range(4)])
    assert found == {"missing-class": "warning"}


def test_a_group_on_both_sides_is_an_error_and_a_possible_one_a_warning():
    facts = [facts_of(i) for i in range(4)]
    assert kinds(samples_of("abab", ["train", "train", "test", "test"], "xxxy"), facts) == {"group-leak": "error"}
    assert kinds(samples_of("abab", None, "xxyz"), facts) == {"random-split-leak": "warning"}
    assert kinds(samples_of("abab", ["train", "train", "test", "test"], "xxyy"), facts) == {}


def test_copies_of_which_one_has_no_split_do_not_leak():
    facts = [facts_of(0), facts_of(1, digest="d0", content="c0")]
    assert kinds(samples_of("aa", ["train", None]), facts, ("a",)) == {"exact-duplicates": "warning"}


def test_near_copies_are_grouped_and_their_conflicts_are_warnings():
    video = np.random.default_rng(0).uniform(0, 255, (32, 8, 8)).astype(np.float16)
    facts = [facts_of(0, fingerprint=video), facts_of(1, fingerprint=video[4:]), facts_of(2, fingerprint=video[:28])]
    samples = samples_of("aab", ["train", "train", "test"])
    by_file = {sample.file: fact for sample, fact in zip(samples, facts, strict=True)}
    found = {f.kind: f for f in find_problems(Manifest(tuple(samples), ("a", "b"), Path()), by_file)}
    assert [item.videos for item in found["near-duplicates"].items] == [("0.mp4", "1.mp4", "2.mp4")]
    assert found["near-split-leak"].severity == found["near-label-conflict"].severity == "warning"


def test_mixed_rates_and_rare_codecs_are_notes():
    facts = [facts_of(i, fps=25.0 + 25 * (i % 2), codec="av1" if i == 0 else "h264") for i in range(12)]
    assert kinds(samples_of("ab" * 6), facts) == {"mixed-rates": "note", "rare-codec": "note"}


def test_pixels_that_are_not_square_are_a_note_that_says_what_is_done_with_them():
    samples = samples_of("ab")
    by_file = {sample.file: facts_of(i, pixel_aspect=1.0 + i) for i, sample in enumerate(samples)}
    (finding,) = find_problems(Manifest(tuple(samples), ("a", "b"), Path()), by_file)
    assert (finding.kind, finding.severity) == ("anamorphic", "note")
    assert "scaled to square pixels" in finding.advice


def test_a_longer_sound_does_not_make_a_video_truncated():
    """The header of Matroska states one length for sound and picture."""
    assert kinds(samples_of("a"), [facts_of(0, stated_duration=4.3)], ("a",)) == {}
    assert kinds(samples_of("a"), [facts_of(0, stated_duration=9.0)], ("a",)) == {"truncated": "warning"}
    assert kinds(samples_of("a"), [facts_of(0, stated_frames=120)], ("a",)) == {"truncated": "warning"}


def test_a_stretch_is_too_short_by_its_own_length():
    sample = Sample("0.mp4", Path("0.mp4"), label=0, start=1.0, end=2.0)
    assert kinds([sample], [facts_of(0)], ("a",)) == {"short": "warning"}


def test_a_stretch_after_the_end_is_an_error():
    sample = Sample("0.mp4", Path("0.mp4"), label=0, start=99.0, end=100.0)
    assert kinds([sample], [facts_of(0)], ("a",)) == {"no-frames": "error"}
    later = facts_of(0, times=98.0 + np.arange(100) / 25)  # stamps need not begin at 0
    assert kinds([sample], [later], ("a",)) == {"short": "warning"}
