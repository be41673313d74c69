"""Find the clips that are most like a given one."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Sample
from videomae.errors import CheckpointError, DataError
from videomae.files import unescaped
from videomae.inference.embedder import VideoEmbedder
from videomae.inference.feature_store import (
    FORMAT,
    no_features,
    part_files,
    read_features,
    require_pyarrow,
    stored_settings,
)
from videomae.packages import require
from videomae.video.reader import VideoReader
from videomae.video.source import refuse_url

STORE, TABLE = "lance", "features"


@dataclasses.dataclass(frozen=True)
class Match:
    """A clip that was found.

    Attributes:
        path: of its video in the manifest.
        file: where it lies.
        start: its first second.
        end: the second after it.
        similarity: cosine, -1 to 1.
    """

    path: str
    file: str
    start: float
    end: float
    similarity: float


def search(
    query: str | Path,
    index: str | Path,
    *,
    top_k: int = 8,
    model: str | Path | None = None,
    root: str | Path | None = None,
    device: str | None = None,
) -> list[Match]:
    """Return the most similar clips, best first. The first search in an index makes its vector store.

        >>> best = search("clip.mp4", "index")[0]
        >>> best.path, round(best.similarity, 3)
        ('moving_up/000.mp4', 1.0)

    Args:
        query: video to look for; its middle counts: a clip or a window, as the index holds.
        index: folder that `embed` wrote, per clip or per window.
        top_k: how many to return.
        model: where the model lies now; None is where it lay when the index was made.
        root: folder that the videos of the index lie in now; None is where they lay when it was made.
        device: where to run; None takes a GPU if there is one.

    Raises:
        CheckpointError: if the model is not the one that the index was made with.
        DataError: if there is no index of clips or windows, or the query is a URL.
        MissingPackageError: if LanceDB or pyarrow is not installed.
        VideoError: if the query cannot be read.
        ValueError: if ``top_k`` is below 1.
    """
    require("lancedb", extra="search", purpose="searching needs LanceDB")
    require_pyarrow()
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    refuse_url(query)
    index = Path(index)
    about = stored_settings(index)
    if not about:
        raise no_features(index)
    if about.get("format") != FORMAT:
        raise DataError(f"{index} was written by another version of `videomae embed`: embed again.")
    if about["per"] not in ("clip", "window"):
        raise DataError(f"{index} holds a vector per {about['per']}: search needs one per clip or window.")
    embedder = VideoEmbedder.from_pretrained(model or about["model"], device=device)
    if embedder.fingerprint() != about["fingerprint"]:
        raise CheckpointError(
            f"{model or about['model']} is not the model that {index} was made with (weights, config or processor "
            "differ): name that one with --model, or embed again."
        )
    chosen = {"clip_sampling": about["sampling"], "clip_stride": about["stride"], "clip_fps": about["fps"]}
    embedder.model.config = embedder.model.config.replace(**chosen)
    vector = _vector(Path(query), embedder, about)
    found = _store(index).search(vector).distance_type("cosine").limit(top_k).to_list()
    folder = Path(about["root"] if root is None else root)
    return [
        Match(path, str(folder / path), row["start"], row["end"], 1 - float(row["_distance"]))
        for path, row in ((unescaped(row["path"]), row) for row in found)
    ]


def _vector(video: Path, embedder: VideoEmbedder, about: dict[str, Any]) -> NDArray[np.float32]:
    """Return the vector (D,) of the middle of a video, seen as the clips or windows of the index were."""
    if about["per"] == "clip":
        return embedder(video, layer=about["layer"]).vectors[0]
    window = about["window"]
    with VideoReader(video) as reader:
        start = reader.start + max(reader.end - reader.start - window, 0) / 2
    sample = Sample(str(video), video, start=start, end=start + window)
    return embedder(sample, per="window", layer=about["layer"], window=window, hop=window).vectors[0]


def _store(index: Path) -> Any:
    import lancedb

    marker = index / STORE / "complete"
    made_of = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in part_files(index)])
    if not marker.exists() or marker.read_text(encoding="utf-8") != made_of:
        shutil.rmtree(index / STORE, ignore_errors=True)  # of other features, or of a run that was killed meanwhile
        lancedb.connect(index / STORE).create_table(TABLE, read_features(index))
        marker.write_text(made_of, encoding="utf-8")
    return lancedb.connect(index / STORE).open_table(TABLE)
