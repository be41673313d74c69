"""Which videos show the same: copies that were re-encoded, scaled, trimmed or given another frame rate.

A fixed camera gives many videos one background, so what is compared is mostly how the picture changes: the
fingerprints of `videomae.data.audit.inspect` less their mean over time. Copies correlate above 0.95 there. Crops,
mirrored and slowed copies are not found.

Every stretch of one second of every video is compared in a coarse form with the two liveliest seconds of every other,
which gives the candidates and how they lie in time; these are then compared over all of their common length. In large
sets only seconds that share a bucket of a hash are compared, so that the work grows with the number of videos; few
copies are missed by that, as each has several seconds to be found by.

S slots of 1/8 s · W slots of a window · V windows · Q queries · N videos
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from videomae.data.audit.buckets import Buckets
from videomae.data.audit.inspect import CELLS

# Measured by benchmarks/duplicates.py: lower values take different takes of one scene for copies.
MIN_SIMILARITY, MIN_SAME_PLACE = 0.96, 0.95
MIN_AT_A_GLANCE = 0.5  # before parts of a slot are tried
# Two videos where nothing moves are the same if their pictures are.
STILL_LEVELS, MIN_SAME_STILL = 0.5, 0.999
PLAIN_LEVELS = 2.0  # a picture that varies less is of one colour, and like any other such picture

WINDOW = 8
MIN_MOTION = 0.1  # grey levels; what moves less is rounding
QUERIES = 2
MIN_CANDIDATE = 0.75
COARSE = 4  # slots and cells on a side of a coarse window
MOST_COMPARED = 1 << 28  # pairs of seconds: about a thousand videos of ten seconds take a second or two
WINDOWS_IN_BLOCK, QUERIES_IN_BLOCK = 1 << 14, 1 << 11

Fingerprint = NDArray[np.floating]  # (S, 8, 8)
Floats = NDArray[np.float32]


def near_duplicates(
    fingerprints: Sequence[Fingerprint], *, min_similarity: float = MIN_SIMILARITY
) -> list[tuple[int, int, float]]:
    """Find the pairs of videos of which one shows at least half of the other.

    Args:
        fingerprints: N of (S, 8, 8) each, as in `VideoFacts`; one with S = 0 is like no other.
        min_similarity: correlation, up to 1, from which on two videos count as copies.

    Returns:
        (i, j, similarity) with i < j, the most similar first.
    """
    best: dict[tuple[int, int], float] = {}
    for i, j, shift in chain(_moving_candidates(fingerprints), _still_candidates(fingerprints)):
        pair = min(i, j), max(i, j)
        if best.get(pair, 0.0) < 0.99:
            value = similarity(fingerprints[i], fingerprints[j], shift)
            best[pair] = max(best.get(pair, 0.0), value)
    found = [(i, j, value) for (i, j), value in best.items() if value >= min_similarity]
    return sorted(found, key=lambda pair: -pair[2])


def similarity(a: Fingerprint, b: Fingerprint, shift: int) -> float:
    """Return how alike two videos are where they overlap, 0-1; 0 if they obviously differ.

    Args:
        a: (S, 8, 8).
        b: likewise.
        shift: slot of ``a`` at which ``b`` begins, to within one; parts of a slot are tried too.
    """
    a, b = _smooth(a), _smooth(b)
    if _similarity_at(a, b, shift) < MIN_AT_A_GLANCE:
        return 0.0
    return max(_similarity_at(a, b, shift + quarter / 4) for quarter in range(-4, 5))


def _similarity_at(a: Fingerprint, b: Fingerprint, shift: float) -> float:
    begin = int(np.floor(shift))
    part = shift - begin
    if part:
        a = (1 - part) * a[:-1] + part * a[1:]
    length = min(len(a) - max(begin, 0), len(b) + min(begin, 0))
    if length < 1 or 2 * length < min(len(a), len(b)):
        return 0.0
    a, b = a[max(begin, 0) :][:length], b[max(-begin, 0) :][:length]
    mean_a, mean_b = a.mean(0), b.mean(0)
    same_place = _correlation(mean_a - mean_a.mean(), mean_b - mean_b.mean())
    change_a, change_b = a - mean_a, b - mean_b
    if max(change_a.std(), change_b.std()) < STILL_LEVELS:
        return same_place if same_place >= MIN_SAME_STILL else 0.0
    return _correlation(change_a, change_b) if same_place >= MIN_SAME_PLACE else 0.0


def _smooth(video: Fingerprint) -> Floats:
    """Blur over three slots: copies that begin between two slots of the original stay alike."""
    exact: Floats = video.astype(np.float32)
    return exact if len(exact) < 3 else 0.25 * exact[:-2] + 0.5 * exact[1:-1] + 0.25 * exact[2:]


def _correlation(a: NDArray, b: NDArray) -> float:
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return max(float(np.vdot(a, b)) / scale, 0.0) if scale else 0.0


def _moving_candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, int]]:
    """Yield (i, j, shift) of videos with a similar second."""
    queries, owners, starts = [], [], []
    for number, video in enumerate(prints):
        windows, motion = _windows(video)
        for _ in range(QUERIES):
            if not motion.size or motion.max() < MIN_MOTION:
                break
            start = int(motion.argmax())
            queries.append(windows[start])
            owners.append(number)
            starts.append(start)
            motion[max(start - WINDOW + 1, 0) : start + WINDOW] = 0
    if not queries:
        return
    wanted, count = np.stack(queries), sum(max(len(video) - WINDOW + 1, 1) for video in prints)
    find = _find_by_hash(wanted, count) if len(wanted) * count > MOST_COMPARED else partial(_find_by_product, wanted)
    for first, block in _blocks(prints):
        for number, query, slot in find(block):
            if owners[query] != first + number:
                yield owners[query], first + number, starts[query] - slot


def _find_by_product(queries: Floats, block: Sequence[Floats]) -> Iterator[tuple[int, int, int]]:
    """Yield (video of the block, query, slot of its best window), comparing each query with each window."""
    windows = np.concatenate(block)
    ends = np.cumsum([len(of_video) for of_video in block]).tolist()
    for begin in range(0, len(queries), QUERIES_IN_BLOCK):
        scores = queries[begin : begin + QUERIES_IN_BLOCK] @ windows.T  # (Q, V)
        for number, (left, right) in enumerate(pairwise([0, *ends])):
            of_video = scores[:, left:right]
            for query in np.flatnonzero(of_video.max(1) >= MIN_CANDIDATE).tolist():
                yield number, begin + query, int(of_video[query].argmax())


def _find_by_hash(queries: Floats, count: int) -> Callable[[Sequence[Floats]], Iterator[tuple[int, int, int]]]:
    """Return what does the same for windows that share a bucket with a query; ``count`` windows come in all."""
    buckets = Buckets(queries, count)

    def find(block: Sequence[Floats]) -> Iterator[tuple[int, int, int]]:
        windows = np.concatenate(block)
        video_of = np.repeat(np.arange(len(block)), [len(of_video) for of_video in block])
        pairs: set[tuple[int, int]] = set()
        for found, wanted in buckets.matches(windows):
            is_alike = np.einsum("nd,nd->n", windows[found], queries[wanted]) >= MIN_CANDIDATE
            pairs.update(zip(video_of[found[is_alike]].tolist(), wanted[is_alike].tolist(), strict=True))
        for number, query in sorted(pairs):
            yield number, query, int((block[number] @ queries[query]).argmax())

    return find


def _blocks(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, list[Floats]]]:
    """Yield (number of the first video, the windows of some videos), so that memory stays flat."""
    block: list[Floats] = []
    held = first = 0
    for number, video in enumerate(prints):
        block.append(_windows(video)[0])
        held += len(block[-1])
        if held >= WINDOWS_IN_BLOCK:
            yield first, block
            block, held, first = [], 0, number + 1
    if block:
        yield first, block


def _windows(video: Fingerprint) -> tuple[Floats, Floats]:
    """Return the coarse windows of a video, (V, D), of length 1, and how much moves in each, (V,) grey levels."""
    if len(video) == 0:
        return np.zeros((1, COARSE**3), np.float32), np.zeros(1, np.float32)
    video = np.pad(video.astype(np.float32), ((0, max(WINDOW - len(video), 0)), (0, 0), (0, 0)), mode="edge")
    cells = CELLS // COARSE
    video = video.reshape(len(video), COARSE, cells, COARSE, cells).mean((2, 4))
    windows = np.lib.stride_tricks.sliding_window_view(video, WINDOW, axis=0)  # (V, 4, 4, W)
    windows = windows.reshape(len(windows), COARSE * COARSE, COARSE, WINDOW // COARSE).mean(-1)
    windows = windows - windows.mean(-1, keepdims=True)
    motion = windows.std((1, 2))
    flat = windows.reshape(len(windows), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), motion


def _still_candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, int]]:
    """Yield (i, j, 0) of videos in which nothing moves, and which show the same."""
    numbers, pictures = [], []
    for number, video in enumerate(prints):
        if len(video):
            video = video.astype(np.float32)
        if len(video) and (video - video.mean(0)).std() < STILL_LEVELS:
            picture = video.mean(0) - video.mean()
            if picture.std() >= PLAIN_LEVELS:
                numbers.append(number)
                pictures.append(picture.ravel() / np.linalg.norm(picture))
    if not pictures:
        return
    stacked = np.stack(pictures)
    if len(stacked) ** 2 <= MOST_COMPARED:
        for row, picture in enumerate(stacked):
            for other in (row + 1 + np.flatnonzero(stacked[row + 1 :] @ picture >= MIN_SAME_STILL)).tolist():
                yield numbers[row], numbers[other], 0
        return
    for found, wanted in Buckets(stacked, len(stacked)).matches(stacked):
        is_alike = np.einsum("nd,nd->n", stacked[found], stacked[wanted]) >= MIN_SAME_STILL
        for row, other in zip(found[is_alike].tolist(), wanted[is_alike].tolist(), strict=True):
            if row < other:
                yield numbers[row], numbers[other], 0
