"""Which videos there are: folders, CSV manifests and the official lists of the benchmarks become one `Manifest`.

A video is known by its path as the manifest writes it. Two files of the same name in two folders are two videos.

What can be read (`read_manifest`), and how it looks:

    folder      class/clip.mp4, train/class/clip.mp4, or clip.mp4 (no labels); hidden files are skipped
    csv         path,label[,split,start,end,group] and any further columns; without ``label``: no labels
    k400        label,youtube_id,time_start,time_end,split and videos {youtube_id}_{start:06d}_{end:06d}.mp4
    ssv2        [{"id": "1", "template": "Holding [something]"}] with labels.json and videos {id}.webm
    ucf101      trainlist01.txt, testlist01.txt, classInd.txt and videos Class/v_Class_g01_c01.avi
    hmdb51      class_test_split1.txt and videos class/clip.avi
    v1          the space-separated lists of VideoMAE: "path label", or "path 0 -1" for pre-training
"""

import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.config import nearest
from videomae.errors import DataError, VideoError
from videomae.files import atomic_write
from videomae.video.reader import TIME_TOLERANCE

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".gif"}
    | {".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".y4m"}
)
SPLIT_NAMES = {
    name: split
    for split, names in {
        "train": "train training",
        "val": "val valid validate validation",
        "test": "test testing",
    }.items()
    for name in names.split()
}
COLUMNS = ("path", "label", "split", "start", "end", "group")


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
    """

    path: str
    file: Path
    label: int | None = None
    split: str | None = None
    start: float | None = None
    end: float | None = None
    group: str | None = None
    extra: dict[str, str] = field(default_factory=dict, hash=False)

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

    def stratified_split(self, shares: Mapping[str, float], *, seed: int, ignore_groups: bool = False) -> "Manifest":
        """Draw splits video by video, each with about the same share of every class; a file stays on one side.

        Args:
            shares: share of the videos for each split, such as ``{"train": 0.8, "val": 0.2}``; they add up to 1.
            seed: the same seed gives the same splits.
            ignore_groups: allow videos of one group on different sides.

        Returns:
            The same videos with their ``split`` set.

        Raises:
            DataError: if the videos have groups (unless ignored), or a split would stay empty.
        """
        if not ignore_groups and any(sample.group is not None for sample in self.samples):
            raise DataError(
                "these videos belong to groups, and parts of one source on both sides make scores look better than "
                "they are. Use `grouped_split`, or pass ignore_groups=True."
            )
        return self._with_splits(_assign(self.samples, shares, seed=seed, keys=[s.file for s in self.samples]))

    def grouped_split(self, shares: Mapping[str, float], *, seed: int) -> "Manifest":
        """Draw splits that keep every group on one side, with class shares as even as the groups allow.

        A file without a group is a group of its own, with all its stretches. Arguments, result and errors as in
        `stratified_split`.
        """
        return self._with_splits(_assign(self.samples, shares, seed=seed, keys=source_numbers(self.samples)))

    def grouped_folds(self, k: int, *, seed: int, held_out: str = "val") -> list["Manifest"]:
        """Cut the videos into ``k`` folds for cross-validation, every group within one fold.

        Returns:
            ``k`` manifests of all videos; in the i-th, fold i is the split ``held_out`` and the others are "train".
            Call it "test" to measure on it: by a split "val", fine-tuning chooses its best weights.

        Raises:
            DataError: if there are fewer groups than folds.
        """
        shares = {str(i): 1 / k for i in range(k)}
        folds = _assign(self.samples, shares, seed=seed, keys=source_numbers(self.samples))
        return [self._with_splits([held_out if fold == str(i) else "train" for fold in folds]) for i in range(k)]

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
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")

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
    """Read a data set from a folder, a manifest or an official list (forms: head of this file).

    Files are not opened: a video that is missing or broken shows when it is read, or in ``videomae check``.

    Args:
        path: the folder or the list.
        format: "folder", "csv", "k400", "ssv2", "ucf101", "hmdb51" or "v1"; "auto" tells them apart by their
            names and first line. A folder that holds a ``manifest.csv`` is read from it.
        videos: the folder that the paths of a list are relative to, or that holds the named videos of K400 and
            SSv2; by default the folder of the list.
        fold: which of the three official splits of UCF101 and HMDB51, where ``path`` is the folder of lists.

    Raises:
        DataError: if nothing is there, or a line cannot be used; names the line and what to do.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no {path}. Give a folder of videos, or a list of them.")
    name = _detect(path) if format == "auto" else format
    if name not in _READERS:
        raise ValueError(f"there is no format {name!r}{nearest(name, _READERS)}. Known: auto, {', '.join(_READERS)}.")
    if name == "csv" and path.is_dir():
        path = path / "manifest.csv"
    root = Path(videos) if videos is not None else path if path.is_dir() else path.parent
    samples, classes = _READERS[name](path, root.absolute(), fold)
    if not samples:
        raise DataError(f"{path} names no video (read as {name!r}). Known endings: {sorted(VIDEO_EXTENSIONS)}.")
    _refuse_duplicates(samples, path)
    return Manifest(tuple(samples), tuple(classes), root.absolute())


def video_files(folder: Path) -> list[str]:
    """List the videos below ``folder`` as sorted relative paths; what starts with a dot is hidden."""
    return sorted(file for file in visible_files(folder) if is_video(file))


def visible_files(folder: Path) -> Iterator[str]:
    """Yield all files below ``folder`` as relative paths; links are followed, but not into a folder they lie in."""
    for where, folders, files in os.walk(folder, followlinks=True):
        around = os.path.realpath(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not Path(around).is_relative_to(os.path.realpath(os.path.join(where, name)))
        )
        prefix = Path(where).relative_to(folder)
        yield from ((prefix / name).as_posix() for name in sorted(files) if not name.startswith("."))


# ---------------------------------------------------------------------------------------------------- readers
# Each takes (path, root, fold) and returns the samples and the classes.

Read = tuple[list[Sample], Sequence[str]]
Row = tuple[str, str | None, dict[str, Any]]  # path, class name, further fields of Sample


def _detect(path: Path) -> str:
    """Tell the form of a folder or a list by its name and first line."""
    if path.is_dir():
        if (path / "manifest.csv").is_file():
            return "csv"
        if (path / "classInd.txt").is_file():
            return "ucf101"
        return "hmdb51" if any(path.glob("*_test_split[123].txt")) else "folder"
    if path.suffix.lower() == ".json":
        return "ssv2"
    if re.fullmatch(r"(train|test)list\d+\.txt", path.name):
        return "ucf101"
    if re.fullmatch(r".+_test_split\d\.txt", path.name):
        return "hmdb51"
    header = _read_text(path).partition("\n")[0].strip()
    columns = [column.strip().strip('"') for column in header.split(",")]
    if "youtube_id" in columns:
        return "k400"
    looks_like_v1 = "path" not in columns and re.search(r" -?\d+$", header)
    return "v1" if looks_like_v1 else "csv"


def _read_folder(path: Path, root: Path, fold: int) -> Read:
    """Read videos below ``path``: an optional split folder, then an optional class folder, then anything."""
    files = [file.split("/") for file in video_files(path)]
    tops = [parts[0] if len(parts) > 1 else "" for parts in files]
    has_splits = all(top.lower() in SPLIT_NAMES for top in tops)
    if not has_splits and len({SPLIT_NAMES.get(top.lower()) for top in tops} - {None}) > 1:
        others = sorted({top or "loose videos" for top in tops if top.lower() not in SPLIT_NAMES})
        raise DataError(
            f"{path} holds folders for splits, and beside them {others}. Move these elsewhere, or into the splits."
        )
    rows: list[Row] = []
    for parts in files:
        split, inner = (SPLIT_NAMES[parts[0].lower()], parts[1:]) if has_splits else (None, parts)
        label = inner[0] if len(inner) > 1 else None
        rows.append(("/".join(parts), label, {"split": split, "group": _source_by_name(parts[-1])}))
    loose = [file for file, label, _ in rows if label is None]
    if loose and len(loose) < len(rows):
        raise DataError(
            f"{path} holds class folders, and beside them {len(loose)} videos without one, such as {loose[0]!r}. "
            "Move these into a class folder, or all videos out of theirs."
        )
    return _build(rows, root)


def _source_by_name(name: str) -> str | None:
    """Tell what a video was cut from where it is named as in UCF101 (v_X_g01_c02) or Kinetics (ID_000012_000022)."""
    named = re.fullmatch(r"v_(\w+_g\d{2})_c\d{2}\.\w+|([\w-]{11})_\d{6}_\d{6}\.\w+", name)
    return named and (named[1] or named[2])


def _read_csv(path: Path, root: Path, fold: int) -> Read:
    """Read the project's own manifest."""
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    columns = reader.fieldnames or []
    if "path" not in columns:
        raise DataError(f"{path} has no column 'path', only {list(columns)}. The first line must name the columns.")
    if len(set(columns)) < len(columns):
        raise DataError(f"{path} names a column twice: {list(columns)}. Rename one.")
    if odd := [name for name in columns if name not in COLUMNS and name.strip().lower() in COLUMNS]:
        raise DataError(f"{path} names a column {odd[0]!r}: it must be {odd[0].strip().lower()!r}, or another word.")

    def rows() -> Iterator[Row]:
        for row in _csv_rows(reader, path):
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise DataError(f"{where}: more fields than columns. Put a path with commas in double quotes.")
            text = {name: row[name] if name == "path" else row[name].strip() for name in columns if row[name]}
            text = {name: value for name, value in text.items() if value}
            if "path" not in text:
                raise DataError(f"{where}: the path is empty. Fill it in, or remove the line.")
            if "label" in columns and "label" not in text:
                raise DataError(
                    f"{where}: the label is empty. Fill it in, or remove the whole column for data without labels."
                )
            start, end = (_seconds(text.get(name), name, where) for name in ("start", "end"))
            if end is not None and end <= (start or 0):
                raise DataError(f"{where}: end {end} is not after start {start or 0} (seconds). Correct one of them.")
            extra = {name: row[name] or "" for name in columns if name not in COLUMNS}
            split = text.get("split")
            split = SPLIT_NAMES.get((split or "").lower(), split)
            known = {"split": split, "group": text.get("group"), "start": start, "end": end}
            yield text["path"], text.get("label"), {**known, "extra": extra}

    return _build(rows(), root)


def _read_k400(path: Path, root: Path, fold: int) -> Read:
    """Read an official Kinetics list; the times are those in the source video and only part of the name."""
    where = {Path(file).stem: file for file in video_files(root)}
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)

    def rows() -> Iterator[Row]:
        for row in _csv_rows(reader, path):
            try:
                stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {reader.line_num}: needs youtube_id, time_start and time_end, got {row}. "
                    "Is this the official Kinetics list?"
                ) from error
            extra = {name: row[name] for name in ("youtube_id", "time_start", "time_end")}
            split = row.get("split") or None
            info = {"split": SPLIT_NAMES.get(split or "", split), "group": row["youtube_id"], "extra": extra}
            yield where.get(stem, f"{stem}.mp4"), row.get("label") or None, info

    return _build(_some_found(rows(), root, where.values()), root)


def _read_ssv2(path: Path, root: Path, fold: int) -> Read:
    """Read a Something-Something V2 list; the class is the template without its brackets, as labels.json has it."""
    where = {Path(file).stem: file for file in video_files(root)}
    names = next(iter(sorted(path.parent.glob("*labels.json"))), None)
    numbers = _read_json(names, dict) if names else {}
    classes = sorted(numbers, key=lambda name: int(numbers[name]))
    split = next((SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLIT_NAMES), None)

    def rows() -> Iterator[Row]:
        for i, entry in enumerate(_read_json(path, list), start=1):
            if not isinstance(entry, dict) or "id" not in entry:
                raise DataError(f"{path}, entry {i}: needs an 'id', got {entry!r}. Is this the official list?")
            label = re.sub(r"[\[\]]", "", entry["template"]) if "template" in entry else None
            yield where.get(str(entry["id"]), f"{entry['id']}.webm"), label, {"split": split}

    if not classes and any("template" in entry for entry in _read_json(path, list) if isinstance(entry, dict)):
        raise DataError(f"{path} has labels, but there is no labels.json beside it, which numbers the classes.")
    return _build(_some_found(rows(), root, where.values()), root, classes=classes)


def _read_ucf101(path: Path, root: Path, fold: int) -> Read:
    """Read the UCF101 lists of one fold, or a single list; the class is the folder, the group the source video."""
    lists = [path / f"{split}list{fold:02d}.txt" for split in ("train", "test")] if path.is_dir() else [path]
    index = lists[0].parent / "classInd.txt"
    classes = [line.partition(" ")[2] for line in _lines(index)] if index.is_file() else None

    def rows() -> Iterator[Row]:
        for file in lists:
            for line in _lines(file):
                video = re.sub(r" \d+$", "", line)
                source = re.search(r"(\w+_g\d+)_c\d+", video)
                yield video, video.split("/")[0], {"split": file.name[:-10], "group": source and source[1]}

    return _build(rows(), root, classes=classes)


def _read_hmdb51(path: Path, root: Path, fold: int) -> Read:
    """Read the HMDB51 lists of one fold, or a single list; 1 is train, 2 is test, 0 belongs to another fold."""
    lists = sorted(path.glob(f"*_test_split{fold}.txt")) if path.is_dir() else [path]
    splits = {"1": "train", "2": "test"}

    def rows() -> Iterator[Row]:
        for file in lists:
            label = re.sub(r"_test_split\d$", "", file.stem)
            for line in _lines(file):
                video, _, number = line.rpartition(" ")
                if number not in ("0", "1", "2"):
                    raise DataError(f"{file}: {line!r} should end in 0, 1 or 2. Is this the official list?")
                if number in splits:
                    yield f"{label}/{video}", label, {"split": splits[number]}

    return _build(rows(), root)


def _read_v1(path: Path, root: Path, fold: int) -> Read:
    """Read a space-separated list from the right, so that a path may hold spaces."""
    split = SPLIT_NAMES.get(path.stem.lower())

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_lines(path), start=1):
            three = re.fullmatch(r"(.+) (-?\d+) (-?\d+)", line)
            two = re.fullmatch(r"(.+) (\d+)", line)
            if three and (is_video(three[1]) or not (two and is_video(two[1]))):
                if int(three[3]) > 0 and not is_video(three[1]):
                    raise DataError(
                        f"{path}, line {number}: {three[1]!r} is a folder of {three[3]} images, which are not read. "
                        "Give the videos themselves."
                    )
                yield three[1], None, {"split": split}
            elif two:
                yield two[1], two[2], {"split": split}
            else:
                raise DataError(f"{path}, line {number}: {line!r} is neither 'path label' nor 'path 0 -1'.")

    samples, found = _build(rows(), root)
    classes = [str(i) for i in range(max(map(int, found), default=-1) + 1)]
    return [replace(s, label=None if s.label is None else int(found[s.label])) for s in samples], classes


_READERS: dict[str, Callable[[Path, Path, int], Read]] = {
    "folder": _read_folder,
    "csv": _read_csv,
    "k400": _read_k400,
    "ssv2": _read_ssv2,
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "v1": _read_v1,
}


def _build(rows: Iterable[Row], root: Path, *, classes: Sequence[str] | None = None) -> Read:
    """Turn rows into samples; classes are numbered as given, or in sorted order (numbers by their value)."""
    rows = list(rows)
    names = {label for _, label, _ in rows if label is not None}
    if classes is None:
        classes = sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    if unknown := sorted(names - set(classes)):
        raise DataError(f"labels {unknown} are not among the {len(classes)} classes of the official list.")
    index = {name: i for i, name in enumerate(classes)}
    samples = [
        Sample(path, root / path, label=None if label is None else index[label], **info) for path, label, info in rows
    ]
    return samples, classes


def is_video(name: str) -> bool:
    """Tell by its ending whether a file is taken for a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def _some_found(rows: Iterable[Row], root: Path, found: Iterable[str]) -> list[Row]:
    """Pass the rows on, unless not one of their videos was found: then the folder or the names are wrong."""
    rows, present = list(rows), set(found)
    if rows and not any(path in present for path, _, _ in rows):
        raise DataError(
            f"none of the {len(rows)} videos of the list, such as {rows[0][0]!r}, lies under {root}. "
            "Name the folder of the videos (videos=...)."
        )
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if is_video(path.name) and path.exists():
            raise DataError(f"{path} is a video. Give the folder that it is in, or a list of videos.") from error
        raise DataError(f"cannot read {path}: {error}. It must be a text file in UTF-8.") from error


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _read_text(path).splitlines() if line.strip()]


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, kind):
        raise DataError(f"{path} should hold a JSON {kind.__name__}, it holds a {type(content).__name__}.")
    return content


def _csv_rows(reader: csv.DictReader, path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + 1}: {error}. Check the quotes on this line.") from error


def _seconds(text: str | None, name: str, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DataError(f"{where}: {name} {text!r} is not a time in seconds, 0 or more. Correct it or leave it empty.")
    return value


def _refuse_duplicates(samples: Sequence[Sample], path: Path) -> None:
    counts = Counter((sample.path, sample.start, sample.end) for sample in samples)
    if twice := [name for (name, _, _), count in counts.items() if count > 1]:
        raise DataError(f"{path} names {len(twice)} videos more than once, such as {twice[:3]}. Keep one line of each.")


# ---------------------------------------------------------------------------------------------------- splits


def source_numbers(samples: Sequence[Sample]) -> list[int]:
    """Return the number of each sample's source: one for all of a file or a group, and for whatever these link."""
    return linked([[sample.file] if sample.group is None else [sample.file, sample.group] for sample in samples])


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


def _assign(
    samples: Sequence[Sample], shares: Mapping[str, float], *, seed: int, keys: Iterable[Hashable]
) -> list[str]:
    """Give every sample a part, samples of one key the same, so that each part gets its share of every class.

    Groups go, the largest first, to the part that lacks most of their classes: a greedy choice, exact to within one
    video a class where every video is its own group.
    """
    if any(share <= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares must be above 0 and add up to 1, got {dict(shares)}.")
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    names, order = list(groups), np.random.default_rng(seed).permutation(len(groups))
    by_size = sorted((names[i] for i in order), key=lambda key: -len(groups[key]))

    totals = Counter(sample.label for sample in samples)
    lacking = {part: {label: share * n for label, n in totals.items()} for part, share in shares.items()}
    room = {part: share * len(samples) for part, share in shares.items()}

    def need(part: str, labels: Counter) -> tuple[float, float]:
        of_classes = sum(n * lacking[part][label] / totals[label] ** 2 for label, n in labels.items())
        return round(of_classes, 9), room[part]

    def choose(labels: Counter) -> str:
        ((label, n),) = labels.items() if len(labels) == 1 else ((None, 0),)
        if n == 1 and max(lacking[part][label] for part in shares) < 1 - 1e-9:
            # What is left of a class is less than a video for each part: it evens out over the classes.
            return max((part for part in shares if lacking[part][label] > 1e-9), key=lambda part: room[part])
        return max(shares, key=lambda part: need(part, labels))

    parts = [""] * len(samples)
    for key in by_size:
        labels = Counter(samples[i].label for i in groups[key])
        chosen = choose(labels)
        for label, n in labels.items():
            lacking[chosen][label] -= n
            room[chosen] -= n
        for i in groups[key]:
            parts[i] = chosen
    if empty := sorted(set(shares) - set(parts)):
        raise DataError(
            f"{len(groups)} groups of videos do not fill {len(shares)} parts: {empty} would be empty. "
            "Ask for fewer parts, or add videos."
        )
    return parts
