"""The run directory: opened with the settings and videos it was begun with, ended with a model.

It holds settings.toml, videos.json, metrics.jsonl, logs/, checkpoints/, unreadable.csv and, at the end, model/.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest
from videomae.errors import CheckpointError
from videomae.files import atomic_write, name_bytes, write_json
from videomae.hub import read_json, stored_in
from videomae.settings import changed_settings, to_toml, with_absolute_paths, with_recipe, without_optional
from videomae.training.settings import FREE_ON_RESUME

if TYPE_CHECKING:
    from accelerate import Accelerator

    from videomae.models.pretrained import PretrainedModel
    from videomae.training.loop import Outcome
    from videomae.video.processors import VideoMAEImageProcessor

SETTINGS_NAME = "settings.toml"
VIDEOS_NAME = "videos.json"
MODEL_NAME = "model"

PATHS = ("data.path", "init", "probe.data", "data.videos")  # settings that may be spelled differently

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run left behind.

    Attributes:
        model: the Hugging Face directory, or None if the run was interrupted.
        steps: optimiser steps that are done.
        bad_steps: how many of them were skipped.
        best_score: of the best validation, an accuracy in 0-1; None without.
        best_step: its step.
        score: name of that figure, such as "val_top1"; empty without.
        model_step: the step that the model is of.
        seconds: what training took.
        interrupted: whether SIGTERM ended it early.
    """

    model: Path | None
    steps: int
    bad_steps: int
    best_score: float | None
    best_step: int | None
    score: str
    model_step: int
    seconds: float
    interrupted: bool


def open_run_directory(out: Path, settings: Settings, train: Manifest) -> None:
    """Make the run directory and store the settings in it, or check that they are those it was begun with.

    The main process does so, and every process calls this.

    Args:
        out: the run directory.
        settings: of the run.
        train: the videos to train on; a run goes on with the same ones only, as order and classes hang on them.

    Raises:
        CheckpointError: if it cannot be written, or holds checkpoints of a run with other settings or videos.
    """
    from videomae.training.devices import on_main_process

    on_main_process(partial(_open, out, settings, train))


def _open(out: Path, settings: Any, train: Manifest) -> None:
    from videomae.training.checkpoint import list_steps

    stored, trained_on = out / SETTINGS_NAME, out / VIDEOS_NAME
    steps = list_steps(out / "checkpoints")
    rows = [(sample.path, sample.label, sample.start, sample.end) for sample in train]
    videos = {"videos": len(train), "classes": list(train.classes), "digest": digest(rows)}
    if steps and trained_on.exists() and (old := read_json(trained_on)) != videos:
        with stored_in(trained_on):
            before = f"{old['videos']} of {len(old['classes'])} classes"
        raise CheckpointError(
            f"{out} holds a run of {steps[-1]} steps on other videos: {before}, now {len(train)} of "
            f"{len(train.classes)}, perhaps others of the same number. Name another --out, or bring back the old ones."
        )
    if steps and stored.exists():
        old_settings: Any = with_recipe(without_optional(settings), stored)
        lines = [
            f"{name} was {_shown(before)}, is {_shown(now)}"
            for name, (before, now) in changed_settings(old_settings, settings).items()
            if name not in FREE_ON_RESUME and not (name in PATHS and _same_place(before, now, old_settings.out, out))
        ]
        if lines:
            raise CheckpointError(
                f"{out} holds a run of {steps[-1]} steps with other settings: {'; '.join(lines)}. Name another --out, "
                f"or go on with its own: videomae {old_settings.TASK} --recipe {stored}."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(stored) as temporary:
            temporary.write_bytes(name_bytes(to_toml(with_absolute_paths(settings))))
        write_json(trained_on, videos)
    except OSError as error:
        raise CheckpointError(f"cannot write to {out} ({error}): correct the rights, or name another --out.") from error


def _same_place(old: Any, new: Any, old_out: Path, new_out: Path) -> bool:
    """Tell whether two paths are one however they are spelled, or were moved together with the run directory."""
    if old is None or new is None:
        return False
    places = [os.path.realpath(path) for path in (old, new)]
    within = [
        os.path.relpath(path, os.path.realpath(out)) for path, out in zip(places, (old_out, new_out), strict=True)
    ]
    return places[0] == places[1] or within[0] == within[1]


def _shown(value: Any) -> str:
    return repr(str(value) if isinstance(value, Path) else value)


def digest(rows: list[tuple[Any, ...]]) -> str:
    """Return a digest of what there is to say of each video, in their order."""
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def describe_model(folder: Path, config: VideoMAEConfig, processor: Callable[[], "VideoMAEImageProcessor"]) -> None:
    """Write config.json and the processor's file, which say how to load and to use the weights beside them."""
    config.save_pretrained(folder)
    processor().save_pretrained(folder)


def save_model(
    folder: Path,
    model_class: "type[PretrainedModel]",
    config: VideoMAEConfig,
    outcome: "Outcome",
    processor: Callable[[], "VideoMAEImageProcessor"],
    accelerator: "Accelerator",
) -> TrainingResult:
    """Write the trained model with its processor as a directory that transformers loads too.

    Args:
        folder: the run directory; the model goes to ``model/`` in it.
        model_class: what is written.
        config: its configuration.
        outcome: of the loop, with the weights.
        processor: makes what is saved with it.
        accelerator: knows the main process, which writes.
    """
    import torch

    place = None if outcome.interrupted else folder / MODEL_NAME
    if place is not None and accelerator.is_main_process:
        with torch.device("meta"):
            trained = model_class(config)
        trained.load_state_dict(outcome.weights, assign=True)
        trained.save_pretrained(place)
        processor().save_pretrained(place)
    accelerator.wait_for_everyone()
    return TrainingResult(
        model=place,
        steps=outcome.steps,
        bad_steps=outcome.bad_steps,
        best_score=outcome.best_score,
        best_step=outcome.best_step,
        score=outcome.score,
        model_step=outcome.model_step,
        seconds=outcome.seconds,
        interrupted=outcome.interrupted,
    )
