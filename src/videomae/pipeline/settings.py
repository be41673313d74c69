"""What is asked of `videomae train`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Literal

from videomae.data.settings import Data
from videomae.options import Flag
from videomae.pipeline.sizes import candidate_sizes
from videomae.processes import world_size
from videomae.settings import flatten, with_required

SIZE_OPTIONS = ("preset", "image_size", "patch_size", "num_frames")
SMALLEST = {
    "image_size": 1, "patch_size": 1, "num_frames": 1, "batch_size": 1, "pretrain_epochs": 0, "finetune_epochs": 1,
    "num_workers": 0, "seed": 0,
}  # fmt: skip


@dataclasses.dataclass
class TrainSettings:
    """From a folder of labelled videos to a trained, measured model and a report, within a budget of time."""

    data: Data

    out: Path
    """Run directory; a run that was stopped goes on there."""

    budget: str = "45m"
    """How long it may take, e.g. 90s, 45m, 8h; models, resolution and epochs are chosen to fit."""

    init: str | None = None
    """Start from a checkpoint (directory, file or id on the Hub) in place of pre-training."""

    method: Literal["auto", "distill", "pretrain", "finetune"] = "auto"
    """How to begin without --init: distill learns from random weights, with a small convolutional teacher that learns
    the videos first; pretrain learns without labels first, where the budget is enough for it to help; finetune begins
    with random weights. auto distils where videos are few and short and nothing is asked for of size or epochs, else
    it pre-trains."""

    preset: Literal["nano", "tiny", "small", "base"] | None = None
    """Size of the model; None chooses."""

    image_size: int | None = None
    """Height and width of a frame, pixels; None chooses."""

    patch_size: int | None = None
    """Height and width of a tubelet, pixels; None chooses."""

    num_frames: int | None = None
    """Frames of a clip; None chooses."""

    stride: float | None = None
    """Frames from one of a clip to the next; None takes what a checkpoint of --init was trained with, or else lets a
    clip span most of a short video, and at most 4."""

    batch_size: int | None = None
    """Videos per optimiser step; None takes 32 (nano: 16, in pre-training 4), or fewer so that an epoch has four."""

    pretrain_epochs: int | None = None
    """Passes over the training videos without labels, 0 for no pre-training; None takes what fine-tuning leaves of the
    budget, if that is enough to help."""

    finetune_epochs: int | None = None
    """Passes with labels; None takes what it needs, as far as the budget allows."""

    num_workers: int | None = None
    """Processes that decode videos; None takes the processors that it may use, up to 32."""

    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one."""

    near_duplicates: bool = True
    """Also look for copies that were re-encoded, scaled or trimmed, which must not stand on both sides of a split."""

    seed: int = 0
    """Of split, weights, data order and masks."""

    json: Flag = False
    """Print the result as one JSON object."""

    @property
    def uses_pretraining(self) -> bool:
        """Whether pre-training is a possible first stage."""
        return self.init is None and self.method in ("auto", "pretrain") and self.pretrain_epochs != 0

    @property
    def asks_for_stages(self) -> bool:
        """Whether something is asked for that pre-training and fine-tuning have, and distillation has not."""
        names = (*SIZE_OPTIONS, "stride", "pretrain_epochs", "finetune_epochs")
        return any(getattr(self, name) is not None for name in names)

    def check(self) -> None:
        """Raise a ValueError for numbers that make no sense, options that go nowhere, and for several processes."""
        for name, smallest in SMALLEST.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{_option(name)} must be at least {smallest}, got {value}.")
        if self.stride is not None and self.stride <= 0:
            raise ValueError(f"--stride must be above 0, got {self.stride:g}.")
        sizes = {name: getattr(self, name) for name in SIZE_OPTIONS}
        given = [_option(name) for name, value in sizes.items() if value is not None]
        if self.init is not None and given:
            raise ValueError(
                f"--init {self.init} brings its own size: leave out {', '.join(given)}, or use `videomae finetune`."
            )
        if self.init is None:
            candidate_sizes(**sizes)
        is_list = self.data.videos is not None or self.data.format not in ("auto", "folder")
        folder = self.data.path
        if folder.is_dir() and not is_list and self.out.absolute().is_relative_to(folder.absolute()):
            raise ValueError(f"--out {self.out} lies in {folder}, and would be taken for data: name a folder outside.")
        if self.pretrain_epochs and (self.init is not None or self.method in ("distill", "finetune")):
            raise ValueError(
                "--pretrain-epochs goes with neither --init nor --method distill or finetune: leave out one of them."
            )
        if self.method != "auto" and self.init is not None:
            raise ValueError(f"--init {self.init} is fine-tuned: leave out --method {self.method}.")
        if self.method == "distill" and self.asks_for_stages:
            raise ValueError(
                "--method distill has a model, clips and a course of its own: leave out sizes, --stride and epochs, "
                "or use `videomae distill`."
            )
        if world_size() > 1:
            raise ValueError(
                f"`videomae train` plans for one process, and was started in {world_size()}: start it without "
                "torchrun, or run `videomae pretrain`, `finetune` and `evaluate` under torchrun."
            )


def command_of(settings: TrainSettings) -> str:
    """Return the command that repeats a run."""
    words = ["videomae", "train", str(settings.data.path), "--out", str(settings.out)]
    defaults = flatten(with_required(TrainSettings, None))
    for name, value in flatten(settings).items():
        if name in ("data.path", "out", "json") or value == defaults[name]:
            continue
        option = name.rpartition(".")[2].replace("_", "-")
        words += [f"--no-{option}"] if value is False else [f"--{option}", str(value)]
    return shlex.join(words)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
