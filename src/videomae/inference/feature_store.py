"""A folder of features: Parquet files that hold some videos each, and a note of what the features depend on.

R rows of a video: clips, windows, time slots or tubelets · D width
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Manifest
from videomae.data.sources import VIDEO_EXTENSIONS
from videomae.data.unreadable import UNREADABLE_NAME, write_unreadable
from videomae.errors import CheckpointError, DataError, VideoError
from videomae.files import atomic_write, escaped, fitting_name, write_json
from videomae.hub import read_json, stored_in
from videomae.inference.embedder import Features, Per
from videomae.packages import require
from videomae.video.damage import reading_notes

if TYPE_CHECKING:
    import pyarrow

SETTINGS_NAME, PARTS, NPY = "features.json", "parts", "npy"
FORMAT = 2  # of the folder; features of another one are not continued
_MOST_GROWTH = 64  # bytes in memory for each of a file; vectors hardly shrink when they are compressed
PLACES = ("model", "root")  # what features do not depend on


def read_features(folder: str | Path) -> "pyarrow.Table":
    """Return what `embed` wrote, as one table in the order of the manifest.

    Raises:
        DataError: if there is nothing, or parts are missing.
        MissingPackageError: if pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow as pa

    files = part_files(Path(folder))
    if not files:
        raise no_features(folder)
    parts = stored_settings(folder).get("parts", 0)
    if not isinstance(parts, int) or len(files) < parts:
        raise DataError(f"{folder} holds {len(files)} of {parts} parts: run the same `videomae embed` again to end it.")
    with stored_in(folder):
        return pa.concat_tables(_read_part(file).replace_schema_metadata() for file in files)


def read_unreadable(folder: str | Path) -> list[dict[str, Any]]:
    """Return path, label, split, group and reason of the videos, or stretches of them, that `embed` could not read."""
    return [video for file in part_files(Path(folder)) for video in _unreadable_of(file)]


def read_damaged(folder: str | Path) -> dict[str, list[str]]:
    """Return what `embed` skipped, in words, of each video that it read past its damage."""
    return {path: notes for file in part_files(Path(folder)) for path, notes in _about(file, "damaged", {}).items()}


def stored_settings(folder: str | Path) -> dict[str, Any]:
    """Return what the features of a folder depend on, and where model and videos lay; empty where nothing is stored."""
    file = Path(folder) / SETTINGS_NAME
    return read_json(file) if file.exists() else {}


def no_features(folder: str | Path) -> DataError:
    """Return the error for a folder that holds no features."""
    return DataError(f"{folder} holds no features: make them with `videomae embed DATA --out {folder}`.")


def require_pyarrow() -> None:
    """Raise a MissingPackageError that says what to install where pyarrow is missing."""
    require("pyarrow", extra="features", purpose="features are Parquet files, which need pyarrow")


def open_store(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note in a folder what its features depend on.

    Raises:
        CheckpointError: if it holds other features.
    """
    old = stored_settings(folder) if part_files(folder) else settings
    changed = [name for name in settings if name not in PLACES and old.get(name) != settings[name]]
    if changed:
        differences = "; ".join(
            "its list of videos, labels, splits or groups is not that of DATA"
            if name == "videos"
            else f"{name} was {old.get(name)!r}, is {settings[name]!r}"
            for name in changed
        )
        raise CheckpointError(f"{folder} holds other features: {differences}. Name another --out.")
    write_json(folder / SETTINGS_NAME, settings)


def part_file(folder: Path, number: int) -> Path:
    """Return where a part lies."""
    return folder / PARTS / f"{number:06}.parquet"


def part_files(folder: Path) -> list[Path]:
    """List the parts in order, without the temporary file of a write that was killed."""
    return sorted((folder / PARTS).glob("[0-9]*.parquet"))


def part_size(num_videos: int, per: Per) -> int:
    """Return how many videos a part holds: enough parts for processes to share, and not too much work to lose."""
    return min(8, max(1, num_videos // 64)) if per == "window" else min(32, max(1, num_videos // 16))


def is_done(file: Path) -> bool:
    """Tell whether a part is there; one that lacks videos is made again, as they may be readable by now."""
    if not file.exists() or _unreadable_of(file):
        return False
    _read_part(file)
    return True


def write_part(
    folder: Path,
    number: int,
    manifest: Manifest,
    features: Iterable[Features | VideoError],
    *,
    size: int,
    width: int,
    npy: Sequence[str] = (),
) -> None:
    """Write the features of the videos of a part, with the list of those that could not be read, as one file.

    Args:
        folder: to write to.
        number: of the part.
        manifest: all videos.
        features: of each video of the part, or why it could not be read.
        size: videos of a part.
        width: D.
        npy: names of the .npy files of all videos, see `npy_names`; none are written by default.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = ("path", "start", "end", "label", "split", "group", "sample")
    columns: dict[str, list[Any]] = {name: [] for name in about}
    vectors: list[NDArray[np.float32]] = []
    unreadable: list[dict[str, Any]] = []
    damaged: dict[str, list[str]] = {}
    for i, found in enumerate(features, number * size):
        sample = manifest.samples[i]
        label = None if sample.label is None else manifest.classes[sample.label]
        if isinstance(found, VideoError):
            known = {"path": sample.path, "label": label, "split": sample.split, "group": sample.group}
            unreadable.append(known | {"reason": str(found)})
            continue
        if found.damage:
            damaged[sample.name] = reading_notes(found.damage)
        rows = len(found.vectors)
        path, label, group = (text and escaped(text) for text in (sample.path, label, sample.group))  # Parquet is UTF-8
        values = (path, None, None, label, sample.split, group, i)
        for name, value in zip(columns, values, strict=True):
            columns[name] += [value] * rows
        columns["start"][-rows:], columns["end"][-rows:] = found.starts.tolist(), found.ends.tolist()
        vectors.append(found.vectors)
        if npy:
            with atomic_write(folder / NPY / npy[i]) as temporary:
                np.save(temporary, found.vectors)
    flat = np.concatenate(vectors).ravel() if vectors else np.empty(0, np.float32)
    kinds = {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "sample": pa.int64()}
    arrays = {name: pa.array(column, kinds.get(name, pa.string())) for name, column in columns.items()}
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width)
    about_part = {"unreadable": json.dumps(unreadable), "damaged": json.dumps(damaged)}
    table = pa.table(arrays).replace_schema_metadata(about_part)
    with atomic_write(part_file(folder, number)) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, write_page_checksum=True)


def npy_names(manifest: Manifest) -> list[str]:
    """Return the name below ``npy`` for each sample of a manifest: no two are the same, none lies elsewhere."""
    paths = []
    for sample in manifest:
        path = Path(sample.path)
        parts = path.parts[1:] if path.anchor else path.parts
        paths.append(Path(*("_" if part == ".." else part for part in parts)))
    bare = [path.with_suffix("") if path.suffix.lower() in VIDEO_EXTENSIONS else path for path in paths]
    owners: dict[Path, set[str]] = {}
    for path, sample in zip(bare, manifest, strict=True):
        owners.setdefault(path, set()).add(sample.path)
    names: dict[str, None] = {}
    for i, sample in enumerate(manifest):
        name = (bare[i] if len(owners[bare[i]]) == 1 else paths[i]).as_posix()
        if sample.start is not None or sample.end is not None:
            name += f"@{sample.start or 0.0!r}-{'end' if sample.end is None else repr(sample.end)}"
        while name in names:
            name += f"#{i}"
        names[name] = None
    return [Path(name).with_name(fitting_name(Path(name).name, ".npy")).as_posix() for name in names]


def list_unreadable(folder: Path) -> dict[str, str]:
    """Return the videos that could not be read, with the reasons, and list them in ``unreadable.csv``."""
    unreadable = [(video["path"], video["reason"]) for video in read_unreadable(folder)]
    write_unreadable(folder / UNREADABLE_NAME, unreadable)
    return dict(unreadable)


def _read_part(file: Path) -> "pyarrow.Table":
    """Read a part and compare its checksums.

    Raises:
        DataError: if it is damaged, or would take far more memory than it is long.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _damage_named(file), file.open("rb") as opened:
        about = pq.read_metadata(opened)
        kind = about.schema.to_arrow_schema().field("vector").type
        size = about.num_rows * (kind.list_size if pa.types.is_fixed_size_list(kind) else 1) * 4
        if size > _MOST_GROWTH * file.stat().st_size:
            raise ValueError(f"it has {about.num_rows} rows, which are more than {file.stat().st_size} bytes hold.")
        return pq.read_table(opened, page_checksum_verification=True)


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, OSError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(
            f"{file} is damaged ({reason}): remove it, and run the same `videomae embed` again to make it anew."
        ) from error


def _unreadable_of(file: Path) -> list[dict[str, Any]]:
    unreadable = _about(file, "unreadable", [])
    if isinstance(unreadable, dict) and unreadable:
        raise DataError(f"{file} was written by another version of `videomae embed`: embed again.")
    return list(unreadable)


def _about(file: Path, name: str, nothing: Any) -> Any:
    """Return what is noted in a part under a name."""
    import pyarrow.parquet as pq

    with _damage_named(file), file.open("rb") as opened:
        noted = (pq.read_schema(opened).metadata or {}).get(name.encode())
        return nothing if noted is None else json.loads(noted)
