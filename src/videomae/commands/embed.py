"""``videomae embed``: write features of videos."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import tyro

from videomae.console import notes, output, print_json, progress_bar
from videomae.data.settings import Data
from videomae.data.unreadable import UNREADABLE_NAME
from videomae.inference.devices import torchrun_group
from videomae.inference.embed import Engine, embed
from videomae.inference.embedder import FeatureKind
from videomae.inference.feature_store import list_unreadable, read_damaged
from videomae.options import Device, Dtype, Flag


@dataclasses.dataclass
class EmbedSettings:
    """Write features of videos as Parquet files, to search, cluster, or train something small on."""

    data: Data

    out: Path
    """Folder to write to; a run that was stopped is continued there, and tries again what could not be read. Its
    settings, model and list of videos are compared, the videos themselves are not: if those changed, name another
    folder."""

    model: str
    """Directory, weights file, or id on the Hugging Face Hub; pre-trained or fine-tuned."""

    kind: Annotated[FeatureKind, tyro.conf.arg(name="")] = dataclasses.field(default_factory=FeatureKind)

    npy: Flag = False
    """Also write npy/VIDEO.npy, (rows, width) float32, as temporal action detection codebases read features; of a
    stretch npy/VIDEO@START-END.npy. VIDEO is its path without the ending, unless two videos differ only there."""

    batch_size: int = 8
    """Clips that go through the model at once."""

    device: Device = None

    dtype: Dtype = None

    engine: Engine = "local"
    """"ray" runs it as a Ray Data pipeline, on the cluster that RAY_ADDRESS names or on this machine; torch runs it
    here, openvino and onnx an exported encoder; "local" takes what is there."""

    actors: int = 1
    """With --engine ray: processes that hold the model; each takes a GPU where Ray has any."""

    json: Flag = False
    """Print one JSON object: where the features are, which videos could not be read, and what was skipped of others.
    Under torchrun the first process prints it, when all have ended."""


def main(settings: EmbedSettings) -> int:
    """Embed with a progress bar; the exit code is 1 if videos could not be read, in the first of several processes."""
    s = settings
    group = torchrun_group(timeout=timedelta(days=30))  # one may have far more to do than another
    with group as rank, progress_bar("embedding", shown=rank == 0) as progress:
        embed(
            s.data.read(),
            s.out,
            s.model,
            s.kind,
            npy=s.npy,
            batch_size=s.batch_size,
            device=s.device,
            dtype=s.dtype,
            engine=s.engine,
            actors=s.actors,
            progress=progress,
        )
    if rank > 0:
        return 0
    unreadable = list_unreadable(s.out)
    if unreadable:
        notes().print(f"{len(unreadable)} videos could not be read: see {s.out / UNREADABLE_NAME}", markup=False)
    damaged = read_damaged(s.out)
    for path, found in damaged.items():
        notes().print(f"{path} {'; '.join(found)}", markup=False)
    if s.json:
        print_json({"out": str(s.out), "unreadable": unreadable, "damaged": damaged})
    else:
        output().print(str(s.out), markup=False)
    return 1 if unreadable or damaged else 0
