"""Features of many videos: what fills a folder of features, in this process or on a Ray cluster."""

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from videomae.console import Progress, no_progress
from videomae.data.manifest import Manifest, Sample
from videomae.errors import VideoError
from videomae.inference.embedder import FeatureKind, Features, VideoEmbedder
from videomae.inference.engines.formats import EngineName
from videomae.inference.feature_store import (
    FORMAT,
    is_done,
    list_unreadable,
    npy_names,
    open_store,
    part_file,
    part_size,
    require_pyarrow,
    write_part,
)
from videomae.packages import require
from videomae.processes import processors, rank, working_in, world_size
from videomae.video.clips import read_ahead
from videomae.video.damage import Damage
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import torch

Engine = Literal["local", "ray", "torch", "openvino", "onnx"]
WritePart = Callable[[int, VideoEmbedder], None]


def embed(
    manifest: Manifest,
    out: str | Path,
    model: str | Path,
    kind: FeatureKind | None = None,
    *,
    npy: bool = False,
    batch_size: int = 8,
    device: str | None = None,
    dtype: str | None = None,
    engine: Engine = "local",
    actors: int = 1,
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Write the features of all videos as Parquet files; what is there already is kept.

    Under ``torchrun`` the processes share the parts. A part is a Parquet file of some videos (see `part_size`) with the
    columns path, start, end, label, split, group, sample (its number in the manifest) and vector; which videos it
    holds does not depend on who writes it.

        >>> from videomae.data.manifest import read_manifest
        >>> from videomae.inference.feature_store import read_features
        >>> embed(read_manifest("videos"), "features", "run/model")  # the videos that cannot be read
        {}
        >>> read_features("features").column_names
        ['path', 'start', 'end', 'label', 'split', 'group', 'sample', 'vector']

    Args:
        manifest: the videos.
        out: folder to write to; a run that was stopped is continued there, and tries again what could not be read.
        model: directory, weights file, or id on the Hugging Face Hub; pre-trained or fine-tuned.
        kind: which features; None is those of the middle clip, from the encoder's output.
        npy: also write each video's (R, D) float32 as an .npy file, see `npy_names`.
        batch_size: clips that go through the model at once.
        device: where to run; None takes a GPU if there is one.
        dtype: as for ``VideoClassifier.from_pretrained``.
        engine: "ray" runs a Ray Data pipeline, on the cluster that RAY_ADDRESS names or on this machine; the others run
            here, as for ``VideoEmbedder.from_pretrained``, and "local" takes what is there.
        actors: processes that hold the model with "ray"; each takes a GPU where Ray has any.
        progress: called with the number of videos done, and their total.

    Returns:
        The videos that could not be read, with the reasons; ``unreadable.csv`` lists them.

    Raises:
        CheckpointError: if the folder holds features of another model or other settings.
        MissingPackageError: if pyarrow, or Ray for "ray", is not installed.
        ValueError: if a number is out of its range.
    """
    require_pyarrow()
    if engine == "ray":
        require("ray", extra="ray", purpose="the engine 'ray' needs Ray")
    if actors < 1:
        raise ValueError(f"actors must be at least 1, got {actors}.")
    out, kind = Path(out), kind or FeatureKind()
    runtime = None if engine in ("local", "ray") else cast(EngineName, engine)
    embedder = VideoEmbedder.from_pretrained(model, engine=runtime, device=device, dtype=dtype)
    embedder.check(kind, batch_size)
    settings = describe(manifest, embedder, kind) | {"npy": npy, "model": _resolved(model)}
    with working_in(out, alone=rank() == 0):
        open_store(out, settings)
        mine = range(settings["parts"])[rank() :: world_size()]
        missing = [number for number in mine if not is_done(part_file(out, number))]
        names = npy_names(manifest) if npy else []
        write = partial(_embed_part, manifest=manifest, out=out, kind=kind, npy=names, batch_size=batch_size)
        if engine == "ray":
            # Actors work in another directory.
            files = tuple(dataclasses.replace(sample, file=sample.file.absolute()) for sample in manifest)
            write = partial(write, manifest=dataclasses.replace(manifest, samples=files), out=out.absolute())
            load = partial(VideoEmbedder.from_pretrained, _resolved(model), device=device, dtype=dtype)
            written = _write_with_ray(missing, write, load, actors)
        else:
            written = _write_here(missing, write, embedder)
        for done, _ in enumerate(written, settings["parts"] - len(missing) + 1):
            progress(min(done * settings["part_videos"], len(manifest)), len(manifest))
        if all(part_file(out, number).exists() for number in range(settings["parts"])):
            return list_unreadable(out)
        return {}  # another process writes the last part, and the list


def describe(manifest: Manifest, embedder: VideoEmbedder, kind: FeatureKind) -> dict[str, Any]:
    """Return what features depend on: their kind, the choice of frames, videos, weights and processor."""
    sampling = ClipSampling.of_model(embedder.model.config, stride=kind.stride)
    classes = manifest.classes
    rows = [
        (v.path, v.start, v.end, v.label is not None and classes[v.label], v.split, v.group, *_reading(v))
        for v in manifest
    ]
    size = part_size(len(manifest), kind.per)
    dtype = str(embedder.engine.dtype).removeprefix("torch.")
    return {
        "per": kind.per,
        "layer": kind.layer,
        **kind.step,
        **({} if dtype == "float32" else {"dtype": dtype}),
        "format": FORMAT,
        "fingerprint": embedder.fingerprint(),
        "sampling": sampling.method,
        "stride": sampling.stride,
        "fps": sampling.fps,
        "videos": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32],
        "root": str(manifest.root.resolve()),
        "part_videos": size,
        "parts": -(-len(manifest) // size),
    }


def _reading(sample: Sample) -> Iterator[Any]:
    """Yield how a video is read, where that is not as ever."""
    return filter(None, (sample.fps, sample.on_error))


def _resolved(model: str | Path) -> str:
    return str(Path(model).resolve()) if Path(model).exists() else str(model)


def _write_here(missing: Sequence[int], write: WritePart, embedder: VideoEmbedder) -> Iterator[int]:
    """Write the parts one after the other, and yield the number of each when it is there."""
    for number in missing:
        write(number, embedder)
        yield number


def _write_with_ray(
    missing: Sequence[int], write: WritePart, load: Callable[[], VideoEmbedder], actors: int
) -> Iterator[int]:
    """Let actors that hold the model write the parts, and yield the number of each when it is there."""
    import ray
    import ray.data

    class Writer:
        def __init__(self) -> None:
            self.embedder = load()

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            for number in batch["part"]:
                write(int(number), self.embedder)
            return batch

    if not ray.is_initialized():
        with tempfile.TemporaryDirectory() as empty:  # or its processes would import from the current folder
            about = {"working_dir": empty}
            ray.init(logging_level=logging.WARNING, log_to_driver=False, runtime_env=about)
    resources = ray.cluster_resources()
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = ray.data.from_items([{"part": number} for number in missing], override_num_blocks=max(len(missing), 1))
    written = parts.map_batches(
        Writer,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=1 if resources.get("GPU") else 0,
    )
    for row in written.iter_rows():
        yield int(row["part"])


def _embed_part(
    number: int,
    embedder: VideoEmbedder,
    *,
    manifest: Manifest,
    out: Path,
    kind: FeatureKind,
    npy: Sequence[str],
    batch_size: int,
) -> None:
    size, width = part_size(len(manifest), kind.per), embedder.model.config.hidden_size
    found = _embed_all(manifest.samples[number * size : (number + 1) * size], embedder, kind, batch_size)
    write_part(out, number, manifest, found, size=size, width=width, npy=npy)


def _embed_all(
    samples: Sequence[Sample], embedder: VideoEmbedder, kind: FeatureKind, batch_size: int
) -> Iterator[Features | VideoError]:
    """Embed videos in their order; clips of several ones go through the model together, decoded side by side."""
    if kind.per == "window":
        for sample in samples:
            try:
                yield embedder(sample, **dataclasses.asdict(kind), batch_size=batch_size)
            except VideoError as error:
                yield error
        return

    def middle_clip(sample: Sample) -> "tuple[tuple[float, float, torch.Tensor], list[Damage]] | VideoError":
        try:
            return sample.read(lambda reader: next(embedder.clips(reader, sample, kind)))
        except VideoError as error:
            return error

    with ThreadPoolExecutor(min(processors(), 8)) as pool:
        starts = range(0, len(samples), batch_size)
        # While the model looks at a batch, the next one is decoded.
        for found in read_ahead(list(pool.map(middle_clip, samples[i : i + batch_size])) for i in starts):
            pixels = [clip[0][2] for clip in found if not isinstance(clip, VideoError)]
            tokens: Iterator[Any] = iter(embedder.encode(pixels, kind.layer) if pixels else ())
            for clip in found:
                if isinstance(clip, VideoError):
                    yield clip
                else:
                    (start, end, _), damage = clip
                    rows = embedder.rows([(start, end)], next(tokens)[None], kind.per)
                    yield dataclasses.replace(rows, damage=tuple(damage))
