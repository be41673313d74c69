"""What tests of features share: a small model with videos, and features written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support import TINY
from videomae import VideoMAEConfig, VideoMAEForPreTraining
from videomae.data.manifest import read_manifest
from videomae.inference.embed import embed
from videomae.inference.embedder import FeatureKind
from videomae.video.checkpoint_processor import make_processor
from videomae.video.synthetic import MOTIONS, write_motion_videos

SIZES = TINY | {"patch_size": 16, "num_hidden_layers": 2}
STATISTICS = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)

# Videos that could not be read, as `embed` notes them.
LOST = [
    {"path": f"lost-{split}.mp4", "label": sorted(MOTIONS)[0], "split": split, "group": None, "reason": "damaged"}
    for split in ("test", "train")
]


def save_model(path: Path, *, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False, **SIZES))
    model.save_pretrained(path)
    make_processor(model.config, STATISTICS).save_pretrained(path)


def make_place(folder: Path) -> Path:
    """Write a model, and a video of each of the 6 motions, 32 frames at 16 fps."""
    write_motion_videos(folder / "videos", per_class=1, size=32)
    save_model(folder / "model")
    return folder


def one_video(place: Path) -> Path:
    return next((place / "videos").rglob("*.mp4"))


def embed_videos(
    place: Path, out: Path | str, *, data: Path | str = "videos", model: Path | str = "model", **options: Any
) -> dict[str, str]:
    """Embed on the CPU; relative paths are below the place, and options of a `FeatureKind` may be among the others."""
    kind = {name: options.pop(name) for name in FeatureKind.__dataclass_fields__ if name in options}
    manifest = read_manifest(place / data)
    return embed(manifest, place / out, place / model, FeatureKind(**kind), device="cpu", **options)


def write_labelled(folder: Path, splits: bool, *, unreadable=()) -> Path:
    """Write features of 30 videos whose vectors tell 3 classes apart, and which ones could not be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    kinds = sorted(MOTIONS)[:3]
    columns = {name: [] for name in ("path", "start", "end", "label", "split", "group", "sample", "vector")}
    for i in range(30):
        label = kinds[i % 3]
        vector = np.eye(3)[i % 3] * 4 + rng.normal(0, 0.1, 3)
        split = ("test" if i < 9 else "train") if splits else None
        for name, value in zip(columns, (f"{i}.mp4", 0.0, 1.0, label, split, f"g{i // 6}", i, vector), strict=True):
            columns[name].append(value)
    (folder / "parts").mkdir()
    table = pa.table(columns).replace_schema_metadata({"unreadable": json.dumps(list(unreadable))})
    pq.write_table(table, folder / "parts" / "000000.parquet")
    return folder
