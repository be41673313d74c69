"""Which of many unit vectors are alike, without comparing each with each: those that share a bucket of a hash.

A hash of a vector are the signs of its products with some random directions (Charikar, STOC 2002), in which vectors
that point nearly the same way agree. The more vectors, the more signs: buckets stay small, and the work grows with the
number of vectors, not with its square.

Q vectors that are looked for · V vectors that are looked through · D width · L tables · k signs
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TABLES = 24  # chances to share a bucket: of vectors that correlate by 0.97, 99 % do in one of 20 signs
FEWEST_SIGNS, MOST_SIGNS = 8, 30
AT_ONCE = 1 << 14  # vectors whose products are held
MOST_SHARED = 32  # of the vectors of one bucket; of more, which are all alike, these stand for the others

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


class Buckets:
    """Vectors by their hashes.

    Args:
        wanted: (Q, D) float32, the vectors that are looked for.
        count: how many vectors will be looked through, about.
    """

    def __init__(self, wanted: Floats, count: int) -> None:
        self.signs = min(max(math.ceil(math.log2(max(count, 1))), FEWEST_SIGNS), MOST_SIGNS)
        directions = np.random.default_rng(0).standard_normal((wanted.shape[1], TABLES * self.signs))
        self._directions = directions.astype(np.float32)
        keys = self._keys(wanted)  # (L, Q)
        self._order = keys.argsort(axis=1, kind="stable")
        self._sorted = np.take_along_axis(keys, self._order, axis=1)

    def matches(self, vectors: Floats) -> Iterator[tuple[Numbers, Numbers]]:
        """Yield, table by table, the numbers of vectors (V, D) and those of wanted ones that share a bucket with them.

        A pair may come more than once.
        """
        for order, known, keys in zip(self._order, self._sorted, self._keys(vectors), strict=True):
            first = np.searchsorted(known, keys, side="left")
            number = np.minimum(np.searchsorted(known, keys, side="right") - first, MOST_SHARED)
            found = np.repeat(np.arange(len(keys)), number)
            within = np.arange(len(found)) - np.repeat(number.cumsum() - number, number)
            yield found, order[np.repeat(first, number) + within]

    def _keys(self, vectors: Floats) -> Numbers:
        """Return the bucket of each vector in each table, (L, V)."""
        keys = np.empty((TABLES, len(vectors)), np.int64)
        for begin in range(0, len(vectors), AT_ONCE):
            some = vectors[begin : begin + AT_ONCE]
            signs = (some @ self._directions > 0).reshape(len(some), TABLES, self.signs)
            keys[:, begin : begin + AT_ONCE] = (signs @ (1 << np.arange(self.signs))).T
        return keys
