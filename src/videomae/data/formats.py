"""How data sets are listed: one reader for each format, all of them in the table `FORMATS`.

What can be read, and how it looks:

    folder      class/clip.mp4, train/class/clip.mp4, or clip.mp4 (no labels); hidden files are skipped
    csv         path,label[,split,start,end,group,fps,on_error] and any further columns; without ``label``: no labels
    k400        label,youtube_id,time_start,time_end,split and videos {youtube_id}_{start:06d}_{end:06d}.mp4
    ssv2        [{"id": "1", "template": "Holding [something]"}] with labels.json and videos {id}.webm
    ucf101      trainlist01.txt, testlist01.txt, classInd.txt and videos Class/v_Class_g01_c01.avi
    hmdb51      class_test_split1.txt and videos class/clip.avi
    v1          the space-separated lists of VideoMAE: "path label", or "path 0 -1" for pre-training

A reader takes (path, root, fold) and returns the videos as rows, and the classes where the format numbers them. To add
a format, write its reader, enter it in the table, and say in `_detect` how it is recognised.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from videomae.config import MAX_LABELS, nearest
from videomae.data.sources import is_video, look_into, video_files
from videomae.errors import DataError
from videomae.files import is_utf8
from videomae.video.damage import ON_ERROR

SPLIT_NAMES = {
    name: split
    for split, names in {
        "train": "train training",
        "val": "val valid validate validation",
        "test": "test testing",
    }.items()
    for name in names.split()
}
MANIFEST_NAME = "manifest.csv"  # in a folder: then it is read from that list
COLUMNS = ("path", "label", "split", "start", "end", "group", "fps", "on_error")

Row = tuple[str, str | None, dict[str, Any]]
"""Path relative to the root, name of the class, further fields of `Sample`."""

Rows = tuple[Iterable[Row], Sequence[str] | None]
"""The videos, and the names of the classes in the order of their numbers; None leaves that order open."""


def resolve_format(path: Path, format: str) -> tuple[str, Path]:
    """Return the name of the format, for "auto" by names and the first line, and the file or folder to read.

    Raises:
        ValueError: if there is no such format.
    """
    name = _detect(path) if format == "auto" else format
    if name not in FORMATS:
        raise ValueError(f"there is no format {name!r}{nearest(name, FORMATS)}. Known: auto, {', '.join(FORMATS)}.")
    return name, path / MANIFEST_NAME if name == "csv" and path.is_dir() else path


def _detect(path: Path) -> str:
    """Tell the form of a folder or a list by its name and first line."""
    if path.is_dir():
        if (path / MANIFEST_NAME).is_file():
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
    header = _read_text(path, errors="surrogateescape").partition("\n")[0].strip()
    columns = [column.strip().strip('"') for column in header.split(",")]
    if "youtube_id" in columns:
        return "k400"
    looks_like_v1 = "path" not in columns and re.search(r" -?\d+$", header)
    return "v1" if looks_like_v1 else "csv"


def _read_folder(path: Path, root: Path, fold: int) -> Rows:
    """Read videos below ``path``: an optional split folder, then an optional class folder, then anything."""
    files = [file.split("/") for file in video_files(path)]
    tops = [parts[0] if len(parts) > 1 else "" for parts in files]
    has_splits = all(top.lower() in SPLIT_NAMES for top in tops)
    if not has_splits and len({SPLIT_NAMES.get(top.lower()) for top in tops} - {None}) > 1:
        others = sorted({top or "loose videos" for top in tops if top.lower() not in SPLIT_NAMES})
        raise DataError(
            f"{path} holds folders for splits, and beside them {others}. Move these elsewhere, or into the splits."
        )
    for place, reason in look_into(path).closed.items():
        top = Path(place).parts[: 2 if has_splits else 1]
        if not any(tuple(parts[: len(top)]) == top for parts in files):
            raise DataError(
                f"{path / place} cannot be looked into ({reason}), and no other video of {'/'.join(top)!r} is there: "
                "correct the rights, shorten the path, or remove the folder."
            )
    rows: list[Row] = []
    for parts in files:
        split, inner = (SPLIT_NAMES[parts[0].lower()], parts[1:]) if has_splits else (None, parts)
        label = inner[0] if len(inner) > 1 else None
        rows.append(("/".join(parts), label, {"split": split, "group": _group_by_name(parts[-1])}))
    loose = [file for file, label, _ in rows if label is None]
    if loose and len(loose) < len(rows):
        raise DataError(
            f"{path} holds class folders, and beside them {len(loose)} videos without one, such as {loose[0]!r}. "
            "Move these into a class folder, or all videos out of theirs."
        )
    return rows, None


def _group_by_name(name: str) -> str | None:
    """Return the group of a video that is named as in UCF101 (v_X_g01_c02) or Kinetics (ID_000012_000022)."""
    named = re.fullmatch(r"v_(\w+_g\d{2})_c\d{2}\.\w+|([\w-]{11})_\d{6}_\d{6}\.\w+", name)
    return named and (named[1] or named[2])


def _read_csv(path: Path, root: Path, fold: int) -> Rows:
    """Read the project's own manifest."""
    reader = _csv_reader(path, errors="surrogateescape")
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
            if not all(map(is_utf8, filter(None, row.values()))) and not _is_name_of_file(root, row["path"]):
                raise DataError(
                    f"{where}: {row['path']!r} is no UTF-8, and there is no file whose name has these bytes. The list "
                    "must be a text file in UTF-8: save it as such."
                )
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
            fps, on_error = _seconds(text.get("fps"), "fps", where), text.get("on_error")
            if fps == 0 or on_error not in (None, *ON_ERROR):
                raise DataError(
                    f"{where}: fps must be above 0 and on_error one of {', '.join(ON_ERROR)}, got {fps} and "
                    f"{on_error!r}. Correct them, or leave them empty."
                )
            extra = {name: row[name] or "" for name in columns if name not in COLUMNS}
            split = text.get("split")
            split = SPLIT_NAMES.get((split or "").lower(), split)
            known = {"split": split, "group": text.get("group"), "start": start, "end": end}
            yield text["path"], text.get("label"), {**known, "fps": fps, "on_error": on_error, "extra": extra}

    return rows(), None


def _is_name_of_file(root: Path, path: str | None) -> bool:
    """Tell whether a path has bytes that are no UTF-8 because a file has them, not because of the list's encoding."""
    return path is not None and not is_utf8(path) and os.path.exists(root / path)  # False for a name that cannot be


def _read_k400(path: Path, root: Path, fold: int) -> Rows:
    """Read an official Kinetics list; the times are those in the original video and only part of the name."""
    where = {Path(file).stem: file for file in video_files(root, are_listed=True)}
    reader = _csv_reader(path)

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

    return _some_found(rows(), root, where.values()), None


def _read_ssv2(path: Path, root: Path, fold: int) -> Rows:
    """Read a Something-Something V2 list; the class is the template without its brackets, as labels.json has it."""
    where = {Path(file).stem: file for file in video_files(root, are_listed=True)}
    names = next(iter(sorted(path.parent.glob("*labels.json"))), None)
    numbers = _read_json(names, dict) if names else {}
    if not all(str(number).isdecimal() and len(str(number)) < 19 for number in numbers.values()):
        raise DataError(f"{names} must number the classes, {{'name': '0', ...}}. Is this the official list?")
    classes = sorted(numbers, key=lambda name: int(numbers[name]))
    split = next((SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLIT_NAMES), None)

    def rows() -> Iterator[Row]:
        for i, entry in enumerate(_read_json(path, list), start=1):
            if not isinstance(entry, dict) or "id" not in entry:
                raise DataError(f"{path}, entry {i}: needs an 'id', got {entry!r}. Is this the official list?")
            label = re.sub(r"[\[\]]", "", str(entry["template"])) if "template" in entry else None
            yield where.get(str(entry["id"]), f"{entry['id']}.webm"), label, {"split": split}

    if not classes and any("template" in entry for entry in _read_json(path, list) if isinstance(entry, dict)):
        raise DataError(f"{path} has labels, but there is no labels.json beside it, which numbers the classes.")
    return _some_found(rows(), root, where.values()), classes or None


def _read_ucf101(path: Path, root: Path, fold: int) -> Rows:
    """Read the UCF101 lists of one fold, or a single list; the class is the folder, the group the film."""
    lists = [path / f"{split}list{fold:02d}.txt" for split in ("train", "test")] if path.is_dir() else [path]
    index = lists[0].parent / "classInd.txt"
    classes = [line.partition(" ")[2] for line in _lines(index)] if index.is_file() else None

    def rows() -> Iterator[Row]:
        for file in lists:
            for line in _lines(file):
                video = re.sub(r" \d+$", "", line)
                group = re.fullmatch(r"(.+_g\d+)_c\d+", Path(video).stem)
                yield video, video.split("/")[0], {"split": file.name[:-10], "group": group and group[1]}

    return rows(), classes


def _read_hmdb51(path: Path, root: Path, fold: int) -> Rows:
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

    return rows(), None


def _read_v1(path: Path, root: Path, fold: int) -> Rows:
    """Read a space-separated list from the right, so that a path may hold spaces."""
    split = SPLIT_NAMES.get(path.stem.lower())

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_lines(path), start=1):
            three = re.fullmatch(r"(.+) (-?\d{1,18}) (-?\d{1,18})", line)
            two = re.fullmatch(r"(.+) (\d{1,18})", line)
            if three and (is_video(three[1]) or not (two and is_video(two[1]))):
                if int(three[3]) > 0 and not is_video(three[1]):
                    raise DataError(
                        f"{path}, line {number}: {three[1]!r} is a folder of {three[3]} images, which are not read. "
                        "Give the videos themselves."
                    )
                yield three[1], None, {"split": split}
            elif two:
                yield two[1], str(int(two[2])), {"split": split}
            else:
                raise DataError(f"{path}, line {number}: {line!r} is neither 'path label' nor 'path 0 -1'. Correct it.")

    found = list(rows())
    most = max((int(label) for _, label, _ in found if label is not None), default=-1)
    if most >= MAX_LABELS:
        raise DataError(f"{path} names the class {most}; there may be at most {MAX_LABELS}. Correct the list.")
    return found, [str(number) for number in range(most + 1)]


FORMATS: dict[str, Callable[[Path, Path, int], Rows]] = {
    "folder": _read_folder,
    "csv": _read_csv,
    "k400": _read_k400,
    "ssv2": _read_ssv2,
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "v1": _read_v1,
}


def _some_found(rows: Iterable[Row], root: Path, found: Iterable[str]) -> list[Row]:
    """Pass the rows on, unless not one of their videos was found: then the folder or the names are wrong."""
    rows, present = list(rows), set(found)
    if rows and not any(path in present for path, _, _ in rows):
        raise DataError(
            f"none of the {len(rows)} videos of the list, such as {rows[0][0]!r}, lies under {root}. "
            "Name the folder of the videos (--videos, videos=...)."
        )
    return rows


def _read_text(path: Path, *, errors: str = "strict") -> str:
    try:
        content = path.read_bytes()
        content.partition(b"\n")[0].decode("utf-8-sig")  # the first line names columns, no files
        return content.decode("utf-8-sig", errors)
    except (OSError, UnicodeDecodeError) as error:
        if is_video(path.name) and path.exists():
            raise DataError(f"{path} is a video. Give the folder that it is in, or a list of videos.") from error
        raise DataError(f"cannot read {path}: {error}. It must be a text file in UTF-8.") from error


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _read_text(path).splitlines() if line.strip()]


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Copy or download it again.") from error
    if not isinstance(content, kind):
        raise DataError(
            f"{path} should hold a JSON {kind.__name__}, but holds a {type(content).__name__}. Is this the official "
            "list?"
        )
    return content


def _csv_reader(path: Path, *, errors: str = "strict") -> csv.DictReader:
    """Open a list and read its first line, the names of the columns."""
    reader = csv.DictReader(io.StringIO(_read_text(path, errors=errors), newline=""), strict=True)
    try:
        _ = reader.fieldnames
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}. Check the quotes on this line.") from error
    return reader


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
