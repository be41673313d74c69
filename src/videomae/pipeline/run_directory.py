"""What a run directory remembers, so that a run that was stopped goes on as it began."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomae.data.manifest import Manifest
from videomae.errors import CheckpointError
from videomae.files import write_json
from videomae.hub import read_json, stored_in
from videomae.pipeline.decisions import TrainPlan
from videomae.pipeline.settings import TrainSettings
from videomae.settings import flatten, with_required
from videomae.training.metrics_log import METRICS_NAME
from videomae.training.run_directory import digest

PLAN_NAME, SECONDS_NAME = "plan.json", "seconds.json"
STAGES = ("check", "plan", "copy", "pretrain", "finetune", "distill", "evaluate", "compare", "report")
FREE_ON_RESUME = ("out", "json", "num_workers", "device")
BEFORE = {name: f"data.{name}" for name in ("format", "videos", "fold")} | {"data": "data.path"}  # names in old plans


def open_run_directory(settings: TrainSettings) -> None:
    """Make the run directory, or check that the run in it has the same settings.

    Raises:
        CheckpointError: if it has others, or the directory cannot be written.
    """
    if (stored := _stored(settings.out)) is not None:
        with stored_in(settings.out / PLAN_NAME):
            begun = dict(stored["requested"] if "requested" in stored else stored["asked"])
        old = flatten(with_required(TrainSettings, None)) | {BEFORE.get(name, name): begun[name] for name in begun}
        new = _requested(settings)
        if changed := [f"{name} was {old[name]!r}, is {new[name]!r}" for name in new if old[name] != new[name]]:
            raise CheckpointError(f"{settings.out} holds another run: {'; '.join(changed)}. Name another --out.")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {settings.out} ({error}): correct the rights, or name another --out."
        ) from error


def refuse_other_videos(folder: Path, manifest: Manifest) -> None:
    """Raise a CheckpointError if the run was planned for other videos than there are now."""
    stored, new = _stored(folder), _fingerprint(manifest)
    old = new if stored is None else stored.get("data", new)
    if old != new:
        others = ", with other names, labels, splits or groups" if old["videos"] == new["videos"] else ""
        raise CheckpointError(
            f"{folder} holds a run, and the data changed: {new['videos']} videos were {old['videos']}{others}; "
            "name another --out, or bring back the old data."
        )


def is_planned(folder: Path) -> bool:
    """Tell whether the directory holds a run that has its plan."""
    return (folder / PLAN_NAME).exists()


def keep_plan(settings: TrainSettings, manifest: Manifest, make: Callable[[], TrainPlan]) -> TrainPlan:
    """Return the plan of the run; one that has none yet gets it made and stored, with what it was made for."""
    if (stored := _stored(settings.out)) is not None:
        with stored_in(settings.out / PLAN_NAME):
            return TrainPlan.from_dict(stored["plan"])
    plan = make()
    content = {"requested": _requested(settings), "data": _fingerprint(manifest), "plan": dataclasses.asdict(plan)}
    write_json(settings.out / PLAN_NAME, content)
    return plan


def _stored(folder: Path) -> dict[str, Any] | None:
    return read_json(folder / PLAN_NAME) if is_planned(folder) else None


def _requested(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that a run must not change half-way."""
    fields = {name: value for name, value in flatten(settings).items() if name not in FREE_ON_RESUME}
    for name in ("data.path", "data.videos", "init"):
        if fields[name] is not None and (name != "init" or Path(fields[name]).exists()):
            fields[name] = str(Path(fields[name]).resolve())
    return fields


def _fingerprint(manifest: Manifest) -> dict[str, Any]:
    """Return what tells whether a run goes on with the same videos, labels, splits and groups."""
    labels = [None if video.label is None else manifest.classes[video.label] for video in manifest]
    rows = [(v.path, label, v.split, v.start, v.end, v.group) for v, label in zip(manifest, labels, strict=True)]
    return {"videos": len(manifest), "digest": digest(rows)}


class Stopwatch:
    """Measures the stages, and adds up all parts of a run in seconds.json.

    A part that was killed, or ended in an error, counts up to the last line of its metrics.

    Attributes:
        seconds: by stage.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / SECONDS_NAME
        stored = read_json(self.file) if self.file.exists() else {"seconds": {}}
        self.seconds: dict[str, float] = {name: stored["seconds"][name] for name in STAGES if name in stored["seconds"]}
        if "stage" in stored and (metrics := folder / stored["stage"] / METRICS_NAME).exists():
            self._add(stored["stage"], max(metrics.stat().st_mtime - stored["began"], 0.0))

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        began = time.perf_counter()  # the time of day may be set meanwhile
        write_json(self.file, {"seconds": self.seconds, "stage": stage, "began": time.time()})
        yield
        self._add(stage, time.perf_counter() - began)
        write_json(self.file, {"seconds": self.seconds})

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
