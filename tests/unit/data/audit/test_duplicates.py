"""Copies are found by their fingerprints, and different videos are not taken for copies."""

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae.data.audit import duplicates
from videomae.data.audit.buckets import MOST_SHARED, Buckets
from videomae.data.audit.duplicates import near_duplicates


def moving_blobs(slots: int, seed: int) -> NDArray[np.float32]:
    """A fingerprint (S, 8, 8) of three blobs that wander over a fixed background."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 8, (3, 2)) + np.cumsum(rng.normal(0, 0.5, (slots, 3, 2)), 0)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), -1)
    distance = ((grid - place[:, :, None, None] % 8) ** 2).sum(-1)  # (S, 3, 8, 8)
    background = np.random.default_rng(99).uniform(40, 200, (8, 8))
    return (background + 60 * np.exp(-distance / 2).sum(1)).astype(np.float32)


def noisy(video: NDArray[np.float32], seed: int = 7) -> NDArray[np.float32]:
    return video + np.random.default_rng(seed).normal(0, 0.5, video.shape).astype(np.float32)


ORIGINALS = [moving_blobs(24, seed) for seed in range(12)]


@pytest.mark.parametrize("part", [slice(None), slice(5, None), slice(None, 15), slice(4, 18)])
def test_a_noisy_or_trimmed_copy_is_found(part: slice):
    assert [pair[:2] for pair in near_duplicates([*ORIGINALS, noisy(ORIGINALS[3][part])])] == [(3, 12)]


def test_a_copy_that_begins_between_two_slots_is_found():
    slow = moving_blobs(96, 5)
    fine = np.repeat(slow, 2, 0)  # half slots
    early, late = (fine[begin : begin + 160].reshape(-1, 4, 8, 8).mean(1) for begin in (0, 10))
    assert [pair[:2] for pair in near_duplicates([*ORIGINALS, early, late])] == [(12, 13)]


def test_the_background_alone_does_not_make_a_copy():
    assert near_duplicates(ORIGINALS) == []


def test_still_videos_are_copies_if_they_show_the_same():
    still = np.repeat(ORIGINALS[0][:1], 16, 0)
    other = np.repeat(ORIGINALS[1][:1], 16, 0)
    plain = np.full((16, 8, 8), 90, np.float32)
    assert [pair[:2] for pair in near_duplicates([still, other, plain, noisy(still) * 0 + still, plain])] == [(0, 3)]


def test_videos_shorter_than_a_window_and_empty_ones_are_compared_too():
    short = moving_blobs(5, 1)
    assert [pair[:2] for pair in near_duplicates([short, short[:0], moving_blobs(1, 2), short + 1])] == [(0, 3)]
    assert near_duplicates([]) == []


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    videos = [*ORIGINALS, *(noisy(video) for video in ORIGINALS)]
    whole = near_duplicates(videos)
    monkeypatch.setattr(duplicates, "WINDOWS_IN_BLOCK", 20)
    monkeypatch.setattr(duplicates, "QUERIES_IN_BLOCK", 3)
    assert near_duplicates(videos) == whole
    assert {pair[:2] for pair in whole} == {(i, i + 12) for i in range(12)}


def test_buckets_find_the_copies_that_comparing_all_finds(monkeypatch: pytest.MonkeyPatch):
    """Each copy has several seconds to be found by, and is missed only where all of them fall into other buckets."""
    rng = np.random.default_rng(0)
    originals = [moving_blobs(int(slots), seed) for seed, slots in enumerate(rng.integers(12, 64, 150))]
    copies = [noisy(video[len(video) // 5 :], seed=seed) for seed, video in enumerate(originals[::3])]
    still = [np.repeat(noisy(ORIGINALS[i % 4][:1], seed=i % 4), 16, 0) for i in range(12)]
    videos = [*originals, *copies, *still]
    exact = {pair[:2] for pair in near_duplicates(videos)}
    assert len(exact) >= len(copies)
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 0)
    found = {pair[:2] for pair in near_duplicates(videos)}
    assert found <= exact
    assert len(found) >= 0.99 * len(exact)


def test_the_work_of_buckets_grows_with_the_number_of_vectors():
    """Sixteen times as many vectors share sixteen times as many buckets, about, where each with each is 256 times."""
    shared = {}
    for number in (500, 8000):
        vectors = np.random.default_rng(0).standard_normal((number, 64)).astype(np.float32)
        matches = Buckets(vectors, number).matches(vectors)
        shared[number] = sum((found != wanted).sum() for found, wanted in matches)
    assert shared[8000] < 32 * shared[500]


def test_a_bucket_of_many_is_looked_through_in_part():
    same = np.ones((1000, 8), np.float32)
    assert all(len(found) == 1000 * MOST_SHARED for found, _ in Buckets(same, 1000).matches(same))
