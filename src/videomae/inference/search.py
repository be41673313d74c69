"""Find the clips that are most like a given one."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from videomae.data.manifest import Sample
from videomae.errors import CheckpointError, DataError
from videomae.inference.embedder import VideoEmbedder
from videomae.inference.feature_store import FORMAT, SETTINGS_NAME, part_files, read_features
from videomae.options import Flag
from videomae.video.reader import VideoReader

STORE, TABLE = "lance", "features"


@dataclasses.dataclass
class SearchSettings:
    """Find the clips that are most like a given one, in what `videomae embed` wrote."""

    query: tyro.conf.Positional[Path]
    """Video to look for; its middle counts: a clip or a window, as the index holds."""

    index: Path
    """Folder that `videomae embed` wrote (per clip or per window)."""

    top_k: int = 8
    """How many to show."""

    sheet: Path | None = None
    """Draw frames of the query and of what was found here, as .png."""

    model: str | None = None
    """Where the model lies now; by default where it lay when the index was made."""

    root: Path | None = None
    """Folder that the videos of the index lie in now; by default where they lay when it was made."""

    json: Flag = False
    """Print one JSON object."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""


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


def search(settings: SearchSettings) -> list[Match]:
    """Return the most similar clips, best first. The store is made from the features when it is first asked.

        >>> best = search(SearchSettings(Path("clip.mp4"), Path("index")))[0]
        >>> best.path, round(best.similarity, 3)
        ('moving_up/000.mp4', 1.0)

    Raises:
        CheckpointError: if the model is not the one that the index was made with.
        DataError: if there is no index, or LanceDB is missing.
        VideoError: if the query cannot be read.
    """
    from importlib.util import find_spec

    if find_spec("lancedb") is None:
        raise DataError("searching needs LanceDB: pip install 'videomae[search]'")
    s = settings
    if s.top_k < 1:
        raise ValueError(f"--top-k must be at least 1, got {s.top_k}")
    stored = s.index / SETTINGS_NAME
    if not stored.exists():
        raise DataError(f"{s.index} holds no features: make them with `videomae embed DATA --out {s.index}`")
    about = json.loads(stored.read_text(encoding="utf-8"))
    if about.get("format") != FORMAT:
        raise DataError(f"{s.index} was written by another version of `videomae embed`: embed again")
    if about["per"] not in ("clip", "window"):
        raise DataError(f"{s.index} holds a vector per {about['per']}: search needs one per clip or window")
    embedder = VideoEmbedder.from_pretrained(s.model or about["model"], device=s.device)
    if embedder.fingerprint() != about["fingerprint"]:
        raise CheckpointError(
            f"{s.model or about['model']} is not the model that {s.index} was made with (weights, config or processor "
            "differ): name that one with --model, or embed again"
        )
    chosen = {"clip_sampling": about["sampling"], "clip_stride": about["stride"], "clip_fps": about["fps"]}
    embedder.model.config = embedder.model.config.replace(**chosen)
    query = _query(s.query, embedder, about)
    found = _store(s.index).search(query).distance_type("cosine").limit(s.top_k).to_list()
    root = Path(about["root"]) if s.root is None else s.root
    return [
        Match(row["path"], str(root / row["path"]), row["start"], row["end"], 1 - float(row["_distance"]))
        for row in found
    ]


def _query(video: Path, embedder: VideoEmbedder, about: dict[str, Any]) -> NDArray[np.float32]:
    """Return the vector (D,) of the middle of a video, seen as the clips or windows of the index were."""
    if about["per"] == "clip":
        return embedder(video, layer=about["layer"]).vectors[0]
    window = about["window"]
    with VideoReader(video) as reader:
        first = float(reader.times[0])
        start = first + max(reader.duration - window, 0) / 2
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
