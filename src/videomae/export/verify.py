"""An exported model beside the one that it was made from: do they agree, and which is faster?

B clips · L classes · N tubelets · D width
"""

import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.errors import ExportError
from videomae.files import atomic_write, write_json
from videomae.inference.engines.base import Engine, ExportedModel

NOISE = 0.1  # slower by this fraction counts as equally fast: so far apart are two timings of one model
ROUNDS, MANY_ROUNDS, ENOUGH_SECONDS = 5, 50, 2.0
TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an exported model may be from its source.

    Attributes:
        difference: largest difference of an output, as a fraction of the largest output.
        agreement: fraction of clips with the same best class, at least.
    """

    difference: float
    agreement: float


TOLERANCES = {
    "float32": Tolerance(1e-3, 1.0),
    "float16": Tolerance(2e-2, 0.98),
    "bfloat16": Tolerance(0.1, 0.95),
    "int8": Tolerance(0.3, 0.95),
}


@dataclasses.dataclass(frozen=True)
class Verification:
    """How an exported model compares with its source.

    Attributes:
        clips: what both were shown.
        num_clips: how many.
        largest_difference: of an output.
        mean_difference: likewise.
        relative_difference: the largest one as a fraction of the largest output of the source.
        top1_agreement: fraction of clips with the same best class; None for an encoder.
        cosine: of the outputs of a clip, mean over the clips.
        smallest_cosine: of the clip with the least.
        source_seconds: of one clip, median.
        exported_seconds: likewise.
        speedup: median of the ratios of paired runs, source / exported; above 1 is faster.
        source_bytes: of the parameters.
        exported_bytes: of the files.
        machine: processor and number of threads.
    """

    clips: str
    num_clips: int
    largest_difference: float
    mean_difference: float
    relative_difference: float
    top1_agreement: float | None
    cosine: float
    smallest_cosine: float
    source_seconds: float
    exported_seconds: float
    speedup: float
    source_bytes: int
    exported_bytes: int
    machine: str

    def check(self, tolerance: Tolerance, *, allow_slower: bool, path: Path) -> None:
        """Raise an ExportError if the models disagree, or the exported one is slower."""
        if self.relative_difference > tolerance.difference:
            raise ExportError(
                f"{path.name} differs from its source by {self.relative_difference:.2g} of the largest output, "
                f"{tolerance.difference:g} is allowed: nothing was written. Try another precision, or --tolerance."
            )
        if self.top1_agreement is not None and self.top1_agreement < tolerance.agreement:
            raise ExportError(
                f"{path.name} and its source agree on {self.top1_agreement:.1%} of {self.num_clips} clips, "
                f"{tolerance.agreement:.0%} is needed: nothing was written. Try another precision, or --agreement."
            )
        if self.speedup < 1 - NOISE and not allow_slower:
            raise ExportError(
                f"{path.name} takes {1 / self.speedup:.2f} times as long as its source on this machine: nothing was "
                "written. Use the source, or --allow-slower for a file that runs elsewhere."
            )

    def rows(self) -> list[tuple[str, str, str]]:
        """Return a table for people: what, of the source, of the exported model."""
        compared = [
            ("largest difference", f"{self.largest_difference:.3g} ({self.relative_difference:.2g} of the largest)"),
            ("mean difference", f"{self.mean_difference:.3g}"),
            ("cosine, mean and least", f"{self.cosine:.6f}, {self.smallest_cosine:.6f}"),
        ]
        if self.top1_agreement is not None:
            compared.insert(0, ("same best class", f"{self.top1_agreement:.1%} of {self.num_clips} clips"))
        seconds = f"{1000 * self.exported_seconds:.1f} ms ({self.speedup:.2f} times as fast)"
        return [
            *((name, "", value) for name, value in compared),
            ("one clip, median", f"{1000 * self.source_seconds:.1f} ms", seconds),
            ("size", f"{self.source_bytes / 1e6:.1f} MB", f"{self.exported_bytes / 1e6:.1f} MB"),
        ]


def verify(
    source: Engine, exported: ExportedModel, frames: NDArray[np.uint8], *, clips: str, source_bytes: int
) -> Verification:
    """Show both models the same clips and measure what differs; then time both, in turns.

    Args:
        source: the model in PyTorch, which takes what the exported one takes.
        exported: what was made of it.
        frames: (B, T, H, W, C) uint8.
        clips: where they are from.
        source_bytes: of the source's parameters.
    """
    expected, found = (np.concatenate([run(frame[None]) for frame in frames]) for run in (source, exported))
    difference, largest = np.abs(found - expected), float(np.abs(expected).max())
    cosines = _cosines(expected.reshape(len(frames), -1), found.reshape(len(frames), -1))
    same = (expected.argmax(axis=-1) == found.argmax(axis=-1)).mean() if expected.ndim == 2 else None
    source_seconds, exported_seconds, speedup = time_in_turns(lambda: source(frames[:1]), lambda: exported(frames[:1]))
    return Verification(
        clips=clips,
        num_clips=len(frames),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        relative_difference=float(difference.max()) / max(largest, TINY),
        top1_agreement=None if same is None else float(same),
        cosine=float(cosines.mean()),
        smallest_cosine=float(cosines.min()),
        source_seconds=source_seconds,
        exported_seconds=exported_seconds,
        speedup=speedup,
        source_bytes=source_bytes,
        exported_bytes=sum(file.stat().st_size for file in exported.path.parent.glob(f"{exported.path.stem}.*")),
        machine=f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors",
    )


def time_in_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float, float]:
    """Run two functions in turns; return the median seconds of each, and of the ratios first / second."""
    first(), second()
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(pairs) < ROUNDS or (len(pairs) < MANY_ROUNDS and time.perf_counter() - began < ENOUGH_SECONDS):
        pairs.append((timed(first), timed(second)))
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)


def timed(run: Callable[[], object]) -> float:
    """Return how long a function takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def write_report(verification: Verification, about: dict[str, Any], path: Path) -> None:
    """Write a report beside an exported file: ``NAME.report.json``, and a table, ``NAME.report.md``.

    Args:
        verification: what was measured.
        about: what was exported, and how.
        path: of the exported file.
    """
    write_json(path.with_suffix(".report.json"), about | dataclasses.asdict(verification))
    lines = [f"# {path.name}", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [f"- shown: {verification.clips}", f"- machine: {verification.machine}", ""]
    lines += ["| | source | exported |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in verification.rows()]
    with atomic_write(path.with_suffix(".report.md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row with that of the other array."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), TINY)
