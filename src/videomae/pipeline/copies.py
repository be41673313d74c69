"""Small copies of the videos to learn from."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

from videomae.console import progress_bar
from videomae.data.manifest import Manifest

COPIES_NAME, LIST_NAME = "copies", "training.csv"


def copy_videos(manifest: Manifest, out: Path, *, side: int, workers: int, say: Callable[[str], object]) -> Path:
    """Make small copies of the videos to learn from; return a manifest in which they stand in for these.

    A video that cannot be copied whole stays as it is.

    Args:
        manifest: all videos, with their splits.
        out: the run directory.
        side: shorter side of a copy, pixels.
        workers: processes that make them.
        say: called with a line if some cannot be copied.
    """
    from videomae.data.copies import plan, run
    from videomae.data.transcode import Encoding

    listed, root = out / LIST_NAME, out.absolute()
    is_learnt = [sample.split in ("train", "val") for sample in manifest]
    learnt = tuple(itertools.compress(manifest, is_learnt))
    dataclasses.replace(manifest, samples=learnt, root=root).to_csv(listed)
    planned = plan(listed, root / COPIES_NAME, encoding=Encoding(short_side=side), redo=True)
    with progress_bar("copying") as progress:
        refused = run(planned, workers=workers, progress=progress).unreadable
    if refused:
        path, reason = next(iter(refused.items()))
        say(f"  {len(refused)} videos are learnt from as they are, such as {path}: {reason}")
    copies = iter(planned.manifest)
    rows = []
    for sample, has_copy in zip(manifest, is_learnt, strict=True):
        copy = next(copies).file if has_copy else None
        if copy is not None and copy.exists():
            sample = dataclasses.replace(sample, path=copy.relative_to(root).as_posix(), file=copy)
        rows.append(sample)
    dataclasses.replace(manifest, samples=tuple(rows), root=root).to_csv(listed)
    return listed
