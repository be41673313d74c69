"""How long a loop waits for its data."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class DataTimeMeter:
    """How long a loop waits for its batches, beside how long it takes in all."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start counting anew, as after each line of the log, or after a pause."""
        self.waiting = self.total = 0.0
        self._given = time.perf_counter()

    def track(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, timing the wait for each and the loop's own work on it, in seconds."""
        batches = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            waited = time.perf_counter() - asked
            self.waiting += waited
            self.total += waited
            self._given = time.perf_counter()
            yield batch
            self.total += time.perf_counter() - self._given

    @property
    def wait_fraction(self) -> float:
        """Fraction of the time spent waiting, 0-1: well above 0 means that loading is the bottleneck."""
        return self.waiting / self.total if self.total else 0.0
