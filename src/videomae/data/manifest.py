"""Which videos there are: folders, CSV manifests and the official lists of the benchmarks become one `Manifest`.

A video is known by its path as the manifest writes it. Two files of the same name in two folders are two videos.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from videomae.data.formats import COLUMNS, FORMATS, Rows, resolve_format
from videomae.data.sources import KNOWN_ENDINGS
from videomae.data.splits import draw_splits, linked
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write, name_bytes
from videomae.video.damage import Damage, OnError, check_on_error
from videomae.video.reader import TIME_TOLERANCE, VideoReader, check_fps, past_damage
from videomae.video.source import refuse_url

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One video, or one stretch of it.

    Attributes:
        path: the path as the manifest writes it; this is the video's identity.
        file: where the file lies.
        label: index into the manifest's classes; None without labels.
        split: "train", "val", "test" or any other name; None where the data has no splits.
        start: first second of the stretch that counts; None means from the beginning.
        end: second at which the stretch ends; None means to the end.
        group: what the video was cut from; a grouped split keeps a group on one side.
        extra: further columns of the manifest, as text.
        fps: frames per second, where the file holds no times; others keep their own.
        on_error: what to do where the file does not decode, as for `VideoReader`; None raises.
    """

    path: str
    file: Path
    label: int | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    group: str | None = None
    extra: dict[str, str] = field(default_factory=dict, hash=False)
    fps: float | None = None
    on_error: OnError | None = None

    def read(self, use: Callable[[VideoReader], T], **options: Any) -> tuple[T, list[Damage]]:
        """Return what ``use`` makes of a reader of the file, opened as this video is to be read, and its damage.

        Args:
            use: called a second time where damage is not to raise, and there is some.
            options: further ones of `VideoReader`.

        Raises:
            VideoError: if the file cannot be read.
        """
        return past_damage(self.file, use, on_error=self.on_error or "raise", fps=self.fps, **options)

    def frames_of(self, times: NDArray[np.float64]) -> range:
        """Return the numbers of the frames that lie in the stretch, from the times of all, (N,) in seconds."""
        begin = 0 if self.start is None else int(np.searchsorted(times, self.start - TIME_TOLERANCE))
        end = len(times) if self.end is None else int(np.searchsorted(times, self.end - TIME_TOLERANCE))
        return range(begin, end)

    def some_frames_of(self, times: NDArray[np.float64]) -> range:
        """Return what `frames_of` does, or raise a VideoError where no frame lies in the stretch."""
        frames = self.frames_of(times)
        if not frames:
            raise VideoError(self.nothing_between(times))
        return frames

    def nothing_between(self, times: NDArray[np.float64]) -> str:
        """Say that no frame lies in the stretch."""
        begin = times[0] if self.start is None else self.start
        end = "its end" if self.end is None else f"{self.end:g} s"
        return (
            f"{self.file} shows no frame between {begin:g} s and {end}: its frames run from {times[0]:.6g} s to "
            f"{times[-1]:.6g} s. Correct the start and end in the manifest."
        )

    @property
    def name(self) -> str:
        """The path, and the stretch where there is one."""
        if self.start is None and self.end is None:
            return self.path
        return f"{self.path} ({self.start or 0:g} s to {'the end' if self.end is None else f'{self.end:g} s'})"


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set and the names of its classes.

    Attributes:
        samples: the videos, in the order of the manifest.
        classes: class names; a sample's label is an index into them. Empty without labels.
        root: the folder that the paths are relative to.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    root: Path

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(sample.split for sample in self.samples if sample.split is not None))

    def class_name(self, sample: Sample) -> str:
        """Return the name of a video's class, "-" if it has none."""
        return "-" if sample.label is None else self.classes[sample.label]

    def require_labels(self, what: str = "the data") -> None:
        """Raise a DataError where a video has no label; ``what`` says in it whose videos these are."""
        if unlabelled := [sample.path for sample in self if sample.label is None]:
            raise DataError(
                f"{what}: {len(unlabelled)} of {len(self)} videos have no label, such as {unlabelled[0]!r}. Put the "
                "videos into a folder per class, or add a column 'label'; without labels use `videomae pretrain`."
            )

    def require_classes(self, what: str = "the data") -> None:
        """Raise a DataError where a video has no label, or all have the same: there is nothing to tell apart."""
        self.require_labels(what)
        if len(names := {self.class_name(sample) for sample in self}) == 1:
            raise DataError(
                f"{what}: {len(self)} videos are all of one class, {names.pop()!r}, and a classifier tells at least 2 "
                "apart. Put those of each class into a folder of its own, or correct the column 'label'."
            )

    def read_as(self, *, fps: float | None = None, on_error: OnError = "raise") -> "Manifest":
        """Return the same videos, to be read so where they do not say themselves how.

        Args:
            fps: frames per second of files that hold no times.
            on_error: what to do where a file does not decode, as for `VideoReader`.

        Raises:
            ValueError: for a value that makes no sense.
        """
        check_on_error(on_error)
        check_fps(fps)
        strict = on_error == "raise"
        samples = tuple(
            replace(s, fps=s.fps or fps, on_error=s.on_error or (None if strict else on_error)) for s in self.samples
        )
        return replace(self, samples=samples)

    def split(self, name: str) -> "Manifest":
        """Return the videos of one split; the classes stay those of the whole.

        Raises:
            DataError: if there is no such split.
        """
        chosen = tuple(sample for sample in self.samples if sample.split == name)
        if not chosen:
            raise DataError(
                f"no video is in split {name!r}; this data has {list(self.splits) or 'no splits'}. "
                "Name one that is there ('all' evaluates on everything), add a column 'split' to the manifest, or draw "
                "one with `stratified_split` or `grouped_split`."
            )
        return replace(self, samples=chosen)

    def with_classes(self, classes: Sequence[str], *, allow_missing: bool = False) -> "Manifest":
        """Renumber the labels in the order of ``classes``, such as those a checkpoint was trained on.

        Args:
            classes: class names; no name twice.
            allow_missing: accept data without some of the classes, such as a small test set.

        Raises:
            DataError: if the two sets of names differ; lists what is missing on each side.
        """
        missing = sorted(set(classes) - set(self.classes))
        unknown = sorted(set(self.classes) - set(classes))
        if unknown or (missing and not allow_missing):
            advice = (
                "Rename the labels of the manifest, or train a new classifier on these classes."
                if unknown
                else "Data of some of the classes only is taken with --allow-missing-classes (allow_missing=True)."
            )
            raise DataError(
                f"the data has {len(self.classes)} classes, {len(classes)} were expected. "
                f"Not in the data: {missing}. Only in the data: {unknown}. {advice}"
            )
        index = {name: i for i, name in enumerate(classes)}
        samples = tuple(
            sample if sample.label is None else replace(sample, label=index[self.classes[sample.label]])
            for sample in self.samples
        )
        return replace(self, samples=samples, classes=tuple(classes))

    def stratified_split(self, fractions: Mapping[str, float], *, seed: int, ignore_groups: bool = False) -> "Manifest":
        """Draw splits video by video, each with about the same fraction of every class; a file stays on one side.

        Args:
            fractions: of the videos for each split, such as ``{"train": 0.8, "val": 0.2}``; they add up to 1.
            seed: the same seed gives the same splits.
            ignore_groups: allow videos of one group on different sides.

        Returns:
            The same videos with their ``split`` set.

        Raises:
            DataError: if the videos have groups (unless ignored), or a split would stay empty.
        """
        if not ignore_groups and any(sample.group is not None for sample in self.samples):
            raise DataError(
                "these videos belong to groups, and videos of one group on both sides make scores look better than "
                "they are. Use `grouped_split`, or pass ignore_groups=True."
            )
        return self._with_splits(draw_splits(self._labels(), [s.file for s in self.samples], fractions, seed=seed))

    def grouped_split(self, fractions: Mapping[str, float], *, seed: int) -> "Manifest":
        """Draw splits that keep every group on one side, with classes spread as evenly as the groups allow.

        A file without a group is a group of its own, with all its stretches. Arguments, result and errors as in
        `stratified_split`.
        """
        return self._with_splits(draw_splits(self._labels(), self.group_numbers(), fractions, seed=seed))

    def grouped_folds(self, k: int, *, seed: int, held_out: str = "val") -> list["Manifest"]:
        """Cut the videos into ``k`` folds for cross-validation, every group within one fold.

        Returns:
            ``k`` manifests of all videos; in the i-th, fold i is the split ``held_out`` and the others are "train".
            Call it "test" to measure on it: by a split "val", fine-tuning chooses its best weights.

        Raises:
            DataError: if there are fewer groups than folds.
        """
        folds = draw_splits(self._labels(), self.group_numbers(), {str(i): 1 / k for i in range(k)}, seed=seed)
        return [self._with_splits([held_out if fold == str(i) else "train" for fold in folds]) for i in range(k)]

    def group_numbers(self) -> list[int]:
        """Return a number for each video: one for all of a file or a group, and for whatever these link."""
        return linked([[s.file] if s.group is None else [s.file, s.group] for s in self.samples])

    def to_csv(self, path: str | Path) -> None:
        """Write the manifest as CSV, with every extra column; the file appears whole or not at all.

        Paths are written as they are where the file lies in ``root``, and relative to the file's folder elsewhere.
        """
        path = Path(path)
        moved = path.parent.absolute() != self.root.absolute()
        rows = [
            {
                "path": Path(os.path.relpath(sample.file, path.parent)).as_posix() if moved else sample.path,
                "label": None if sample.label is None else self.classes[sample.label],
                **{name: getattr(sample, name) for name in COLUMNS[2:]},
                **sample.extra,
            }
            for sample in self.samples
        ]
        used = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
        columns = [name for name in COLUMNS if name in used] + [name for name in used if name not in COLUMNS]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns or ["path"], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(path) as temporary:
            temporary.write_bytes(name_bytes(text.getvalue()))

    def _labels(self) -> list[int | None]:
        return [sample.label for sample in self.samples]

    def _with_splits(self, splits: Sequence[str]) -> "Manifest":
        samples = tuple(replace(sample, split=split) for sample, split in zip(self.samples, splits, strict=True))
        return replace(self, samples=samples)


def read_manifest(
    path: str | Path,
    *,
    format: str = "auto",
    videos: str | Path | None = None,
    fold: int = 1,
) -> Manifest:
    """Read a data set from a folder, a manifest or an official list (see `videomae.data.formats`).

    Files are not opened: a video that is missing or broken shows when it is read, or in ``videomae check``.

        >>> manifest = read_manifest("videos")
        >>> len(manifest), manifest.classes, manifest.samples[0].path
        (4, ('moving_down', 'moving_up'), 'moving_down/000.mp4')

    Args:
        path: the folder or the list.
        format: a name in `FORMATS`; "auto" tells them apart by their names and first line. A folder that holds a
            ``manifest.csv`` is read from it.
        videos: the folder that the paths of a list are relative to, or that holds the named videos of K400 and
            SSv2; by default the folder of the list.
        fold: which of the three official splits of UCF101 and HMDB51, where ``path`` is the folder of lists.

    Raises:
        DataError: if nothing is there, or a line cannot be used; names the line and what to do.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise DataError(f"there is no {path}. Give a folder of videos, or a list of them.")
    name, path = resolve_format(path, format)
    root = (Path(videos) if videos is not None else path if path.is_dir() else path.parent).absolute()
    manifest = _build(FORMATS[name](path, root, fold), root)
    if not manifest.samples:
        raise DataError(f"{path} names no video (read as {name!r}). {KNOWN_ENDINGS}")
    counts = Counter((sample.path, sample.start, sample.end) for sample in manifest)
    if twice := [name for (name, _, _), count in counts.items() if count > 1]:
        raise DataError(f"{path} names {len(twice)} videos more than once, such as {twice[:3]}. Keep one line of each.")
    return manifest


def _build(found: Rows, root: Path) -> Manifest:
    """Make samples of rows; classes are numbered as given, or in sorted order (numbers by their value)."""
    rows, classes = list(found[0]), found[1]
    for path, _, _ in rows:
        refuse_url(path)
    names = {label for _, label, _ in rows if label is not None}
    if classes is None:
        classes = sorted(names, key=_class_order)
    if unknown := sorted(names - set(classes)):
        raise DataError(
            f"labels {unknown} are not among the {len(classes)} classes of the official list. Check that both are of "
            "the same release."
        )
    index = {name: i for i, name in enumerate(classes)}
    samples = [
        Sample(path, root / path, label=None if label is None else index[label], **info) for path, label, info in rows
    ]
    return Manifest(tuple(samples), tuple(classes), root)


def _class_order(name: str) -> tuple[bool, int, str]:
    is_number = name.isdecimal() and len(name) < 19
    return not is_number, int(name) if is_number else 0, name
