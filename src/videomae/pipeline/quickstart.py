"""See it work, offline: make videos in which motion is the class, and train on them as `videomae train` does."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

from videomae.console import progress_bar
from videomae.data.settings import DataSettings
from videomae.errors import DataError
from videomae.files import atomic_write, write_json
from videomae.hub import read_json
from videomae.pipeline.run import TrainResult, train
from videomae.pipeline.settings import TrainSettings
from videomae.video.synthetic import MOTIONS, write_motion_videos

SIZE, PATCH, STRIDE = 64, 16, 2
SETTINGS_NAME = "quickstart.json"


@dataclasses.dataclass
class QuickstartSettings:
    """See it work, offline: make videos, train a small model on them in about three minutes, predict with it."""

    out: Path = Path("quickstart")
    """Directory for the videos and the run; a run that was stopped goes on there."""

    videos_per_class: int = 40
    """Training videos of each of the 6 classes; a quarter as many are made to test with."""

    pretrain_epochs: int = 10
    """Passes over the training videos without labels."""

    finetune_epochs: int = 30
    """Passes with labels."""

    seed: int = 0
    """Of videos, weights and the order of clips."""


def quickstart(settings: QuickstartSettings, *, say: Callable[[str], object] = lambda line: None) -> TrainResult:
    """Make procedural videos, train on them, and measure on videos that were not trained on; or go on with that.

    Args:
        settings: where, how much, how long.
        say: called with lines that tell what is going on.

    Raises:
        DataError: if the directory holds anything but a run of these settings.
    """
    s = settings
    own = {name: value for name, value in dataclasses.asdict(s).items() if name != "out"}
    stored, data = s.out / SETTINGS_NAME, s.out / "videos.csv"
    if s.out.exists() and not (stored.exists() and read_json(stored) == own):
        raise DataError(f"{s.out} exists already, and holds no run of these settings: name another one with --out.")
    write_json(stored, own)
    if data.exists():
        say(f"going on with what is in {s.out} ...")
    else:
        say("making videos ...")
        _make_videos(s, data)
    return train(
        TrainSettings(
            data=DataSettings(data),
            out=s.out / "run",
            budget="3m",
            preset="tiny",
            image_size=SIZE,
            patch_size=PATCH,
            stride=STRIDE,
            pretrain_epochs=s.pretrain_epochs,
            finetune_epochs=s.finetune_epochs,
            seed=s.seed,
        ),
        say=say,
    )


def _make_videos(settings: QuickstartSettings, data: Path) -> None:
    """Write the videos, and last the list of them: where there is one, all of them are there."""
    s = settings
    splits = {"train": s.videos_per_class, "test": max(s.videos_per_class // 4, 1)}
    rows, total = ["path,label,split"], len(MOTIONS) * sum(splits.values())
    made = itertools.count(1)
    with progress_bar("making videos") as progress:
        for number, (split, count) in enumerate(splits.items()):
            files = write_motion_videos(
                s.out / "videos" / split,
                per_class=count,
                seed=2 * s.seed + number,
                size=SIZE,
                progress=lambda _: progress(next(made), total),
            )
            labels = itertools.chain.from_iterable([motion] * count for motion in MOTIONS)
            rows += [f"{file.relative_to(s.out)},{label},{split}" for file, label in zip(files, labels, strict=True)]
    with atomic_write(data) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
