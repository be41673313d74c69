"""Features of many videos, stored as Parquet files.

R rows of a video: clips, windows, time slots or tubelets · D width
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import VIDEO_EXTENSIONS, Manifest, Sample
from videomae.data.settings import Data, DataSettings  # noqa: F401
from videomae.errors import CheckpointError, DataError, VideoError
from videomae.files import atomic_write, write_csv, write_json
from videomae.inference.embedder import Features, Per, VideoEmbedder
from videomae.options import Flag, Seconds
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import pyarrow
    import torch

SETTINGS_NAME, PARTS, NPY, UNREADABLE_NAME = "features.json", "parts", "npy", "unreadable.csv"
FORMAT = 2  # of the folder; another one is not gone on with
PLACES = ("model", "root")  # what features do not depend on
Engine = Literal["local", "ray"]
Progress = Callable[[int, int], object]


@dataclasses.dataclass
class EmbedSettings:
    """Write features of videos as Parquet files, to search, cluster, or train something small on."""

    data: Data

    out: Path
    """Folder to write to; a run that was stopped goes on there, and tries again what could not be read. Its settings,
    model and list of videos are compared, the videos themselves are not: where those changed, name another folder."""

    model: str
    """Directory, weights file, or id on the Hugging Face Hub; pre-trained or fine-tuned."""

    per: Per = "clip"
    """A vector per clip (the middle one), sliding window, time slot of the clip, or token (tubelet)."""

    layer: int = -1
    """-1 is the encoder's output, 0 the input of its first block, k the output of block k."""

    stride: float | None = None
    """Frames from one of the clip to the next, by default as in the model's training."""

    window: Seconds = 2.0
    """With --per window: seconds that a window spans, such as 2s or 2."""

    hop: Seconds = 1.0
    """With --per window: seconds from one window to the next, such as 1s or 1."""

    npy: Flag = False
    """Also write npy/VIDEO.npy, (rows, width) float32, as temporal action detection codebases read features; of a
    stretch npy/VIDEO@START-END.npy. VIDEO is its path without the ending, unless two videos differ only there."""

    batch_size: int = 8
    """Clips that go through the model at once."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    engine: Engine = "local"
    """"ray" runs it as a Ray Data pipeline, on the cluster that RAY_ADDRESS names or on this machine."""

    actors: int = 1
    """With --engine ray: processes that hold the model; each takes a GPU where Ray has any."""

    json: Flag = False
    """Print one JSON object: where the features are, and which videos could not be read. Under torchrun the first
    process prints it, when all have ended."""


def embed(settings: EmbedSettings, *, progress: Progress = lambda done, total: None) -> dict[str, str]:
    """Write the features of all videos; what is there already is kept.

    Under ``torchrun`` the processes share the parts. A part is a Parquet file of some videos (see `part_size`) with the
    columns path, start, end, label, split, group, sample (its number in the manifest) and vector; which videos it
    holds does not depend on who writes it.

        >>> data = DataSettings(Path("videos"))
        >>> embed(EmbedSettings(data, Path("features"), "run/model"))  # the videos that cannot be read
        {}
        >>> read_features("features").column_names
        ['path', 'start', 'end', 'label', 'split', 'group', 'sample', 'vector']

    Args:
        settings: what to embed, with what.
        progress: called with the number of videos done, and their total.

    Returns:
        The videos that could not be read, with the reasons; ``unreadable.csv`` lists them.

    Raises:
        CheckpointError: if the folder holds features of another model or other settings.
        DataError: if pyarrow is missing, or there are no videos.
        ValueError: for a setting that makes no sense.
    """
    pyarrow_or_error()
    s = settings
    if s.actors < 1:
        raise ValueError(f"--actors must be at least 1, got {s.actors}")
    manifest = s.data.read()
    embedder = VideoEmbedder.from_pretrained(s.model, device=s.device)
    about = describe(s, manifest, embedder)
    embedder.check(s.layer, s.batch_size, window=s.window, hop=s.hop)
    stored = s.out / SETTINGS_NAME
    if stored.exists() and part_files(s.out):
        old = json.loads(stored.read_text(encoding="utf-8"))
        changed = [name for name in about if name not in PLACES and old.get(name) != about[name]]
        if changed:
            differences = "; ".join(
                "its list of videos, labels, splits or groups is not that of DATA"
                if name == "videos"
                else f"{name} was {old.get(name)!r}, is {about[name]!r}"
                for name in changed
            )
            raise CheckpointError(f"{s.out} holds other features: {differences}. Name another --out")
    write_json(stored, about)
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    parts = range(about["parts"])
    missing = [n for n in parts[rank::world_size] if not _is_done(part_file(s.out, n))]
    write = _write_with_ray(missing, s) if s.engine == "ray" else _write_here(missing, manifest, embedder, s)
    done = len(parts) - len(missing)
    for _ in write:
        done += 1
        progress(min(done * about["part_videos"], len(manifest)), len(manifest))
    if all(part_file(s.out, number).exists() for number in parts):
        return _list_unreadable(s.out)
    return {}  # another process writes the last part, and the list


def _write_here(
    missing: Sequence[int], manifest: Manifest, embedder: VideoEmbedder, settings: EmbedSettings
) -> Iterator[int]:
    """Write the parts one after the other, and yield the number of each when it is there."""
    names = npy_names(manifest)
    for number in missing:
        write_part(number, manifest, names, embedder, settings)
        yield number


def _write_with_ray(missing: Sequence[int], settings: EmbedSettings) -> Iterator[int]:
    """Let actors that hold the model write the parts, and yield the number of each when it is there."""
    if find_spec("ray") is None:
        raise DataError("--engine ray needs Ray: pip install 'videomae[ray]'")
    import ray
    import ray.data

    s = dataclasses.replace(settings, data=settings.data.resolved(), out=settings.out.resolve())
    if Path(s.model).exists():
        s.model = str(Path(s.model).resolve())  # an actor works in another directory

    class Writer:
        def __init__(self) -> None:
            self.manifest = s.data.read()
            self.names = npy_names(self.manifest)
            self.embedder = VideoEmbedder.from_pretrained(s.model, device=s.device)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            for number in batch["part"]:
                write_part(int(number), self.manifest, self.names, self.embedder, s)
            return batch

    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    resources = ray.cluster_resources()
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = ray.data.from_items([{"part": number} for number in missing], override_num_blocks=max(len(missing), 1))
    written = parts.map_batches(
        Writer,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=s.actors),
        num_cpus=1,
        num_gpus=1 if resources.get("GPU") else 0,
    )
    for row in written.iter_rows():
        yield int(row["part"])


def describe(settings: EmbedSettings, manifest: Manifest, embedder: VideoEmbedder) -> dict[str, Any]:
    """Return what features depend on: settings, videos, weights and processor."""
    kept = {name: getattr(settings, name) for name in ("per", "layer", "window", "hop", "npy")}
    choice = ClipSampling.of_model(embedder.model.config, stride=settings.stride)
    kept |= {"sampling": choice.method, "stride": choice.stride, "fps": choice.fps}
    classes = manifest.classes
    rows = [(v.path, v.start, v.end, v.label is not None and classes[v.label], v.split, v.group) for v in manifest]
    videos = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]
    model = str(Path(settings.model).resolve()) if Path(settings.model).exists() else settings.model
    places = {"model": model, "root": str(manifest.root.resolve())}
    size = part_size(len(manifest), settings.per)
    identity = {"format": FORMAT, "fingerprint": embedder.fingerprint(), "videos": videos}
    return kept | identity | {"part_videos": size, "parts": -(-len(manifest) // size)} | places


def part_size(num_videos: int, per: Per) -> int:
    """Return how many videos a part holds: enough parts for processes to share, and not too much work to lose."""
    return min(8, max(1, num_videos // 64)) if per == "window" else min(32, max(1, num_videos // 16))


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
    return [f"{name}.npy" for name in names]


def part_file(folder: Path, number: int) -> Path:
    """Return where a part lies."""
    return folder / PARTS / f"{number:06}.parquet"


def part_files(folder: Path) -> list[Path]:
    """List the parts in order, without the temporary file of a write that was killed."""
    return sorted((folder / PARTS).glob("[0-9]*.parquet"))


def write_part(
    number: int, manifest: Manifest, names: Sequence[str], embedder: VideoEmbedder, settings: EmbedSettings
) -> None:
    """Write the features of the videos of a part, with the list of those that could not be read, as one file.

    Args:
        number: of the part.
        manifest: all videos.
        names: of their .npy files, see `npy_names`.
        embedder: the model.
        settings: what to write.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = part_size(len(manifest), settings.per)
    numbers = range(number * size, min((number + 1) * size, len(manifest)))  # in the manifest
    samples = [manifest.samples[i] for i in numbers]
    about = ("path", "start", "end", "label", "split", "group", "sample")
    columns: dict[str, list[Any]] = {name: [] for name in about}
    vectors: list[NDArray[np.float32]] = []
    unreadable: list[dict[str, Any]] = []
    for i, sample, features in zip(numbers, samples, _embed_all(samples, embedder, settings), strict=True):
        label = None if sample.label is None else manifest.classes[sample.label]
        if isinstance(features, VideoError):
            known = {"path": sample.path, "label": label, "split": sample.split, "group": sample.group}
            unreadable.append(known | {"reason": str(features)})
            continue
        rows = len(features.vectors)
        values = (sample.path, None, None, label, sample.split, sample.group, i)
        for name, value in zip(columns, values, strict=True):
            columns[name] += [value] * rows
        columns["start"][-rows:], columns["end"][-rows:] = features.starts.tolist(), features.ends.tolist()
        vectors.append(features.vectors)
        if settings.npy:
            with atomic_write(settings.out / NPY / names[i]) as temporary:
                np.save(temporary, features.vectors)
    width = embedder.model.config.hidden_size
    flat = np.concatenate(vectors).ravel() if vectors else np.empty(0, np.float32)
    kinds = {"path": pa.string(), "start": pa.float64(), "end": pa.float64(), "sample": pa.int64()}
    arrays = {name: pa.array(column, kinds.get(name, pa.string())) for name, column in columns.items()}
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width)
    table = pa.table(arrays).replace_schema_metadata({"unreadable": json.dumps(unreadable)})
    with atomic_write(part_file(settings.out, number)) as temporary:
        pq.write_table(table, temporary)


def read_features(folder: str | Path) -> "pyarrow.Table":
    """Return what `embed` wrote, as one table in the order of the manifest.

    Raises:
        DataError: if there is nothing, or pyarrow is missing.
    """
    pyarrow_or_error()
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = part_files(Path(folder))
    if not files:
        raise DataError(f"{folder} holds no features: make them with `videomae embed DATA --out {folder}`")
    stored = Path(folder) / SETTINGS_NAME
    if stored.exists() and len(files) < (parts := json.loads(stored.read_text(encoding="utf-8"))["parts"]):
        raise DataError(f"{folder} holds {len(files)} of {parts} parts: run the same `videomae embed` again to end it")
    return pa.concat_tables(pq.read_table(file).replace_schema_metadata() for file in files)


def pyarrow_or_error() -> None:
    """Raise a DataError that says what to install where pyarrow is missing."""
    if find_spec("pyarrow") is None:
        raise DataError("features are Parquet files, which need pyarrow: pip install 'videomae[features]'")


def _embed_all(
    samples: Sequence[Sample], embedder: VideoEmbedder, settings: EmbedSettings
) -> Iterator[Features | VideoError]:
    """Embed videos in their order; clips of several ones go through the model together, decoded side by side."""
    s = settings
    if s.per == "window":
        for sample in samples:
            try:
                yield embedder(sample, per=s.per, layer=s.layer, window=s.window, hop=s.hop, batch_size=s.batch_size)
            except VideoError as error:
                yield error
        return

    def read(sample: Sample) -> tuple[float, float, "torch.Tensor"] | VideoError:
        try:
            return next(embedder.clips(sample, s.per, stride=s.stride, window=s.window, hop=s.hop))
        except VideoError as error:
            return error

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for i in range(0, len(samples), s.batch_size):
            found = list(pool.map(read, samples[i : i + s.batch_size]))
            clips = [clip for clip in found if not isinstance(clip, VideoError)]
            tokens = iter(embedder.encode([clip[2] for clip in clips], s.layer) if clips else ())
            for clip in found:
                if isinstance(clip, VideoError):
                    yield clip
                else:
                    yield embedder.rows([clip[:2]], next(tokens)[None], s.per)


def read_unreadable(folder: str | Path) -> list[dict[str, Any]]:
    """Return path, label, split, group and reason of the videos, or stretches of them, that `embed` could not read."""
    return [video for file in part_files(Path(folder)) for video in _unreadable_of(file)]


def _unreadable_of(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    unreadable = json.loads((pq.read_schema(file).metadata or {}).get(b"unreadable", b"[]"))
    if isinstance(unreadable, dict) and unreadable:
        raise DataError(f"{file} was written by another version of `videomae embed`: embed again")
    return list(unreadable)


def _is_done(file: Path) -> bool:
    """Tell whether a part is there; one that lacks videos is made again, as they may be readable by now."""
    return file.exists() and not _unreadable_of(file)


def _list_unreadable(folder: Path) -> dict[str, str]:
    unreadable = [(video["path"], video["reason"]) for video in read_unreadable(folder)]
    if unreadable:
        write_csv(folder / UNREADABLE_NAME, ("path", "reason"), unreadable)
    else:
        (folder / UNREADABLE_NAME).unlink(missing_ok=True)
    return dict(unreadable)
