"""What a clip of a training recipe costs on this machine, and which part of it limits the run."""

import dataclasses
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from videomae.config import PRESETS
from videomae.data.manifest import Manifest
from videomae.inference.peak import wait_for
from videomae.pipeline.measure import decodes_beside
from videomae.processes import processors
from videomae.settings import from_recipe, task_of_recipe
from videomae.training.finetuning import FinetuneSettings, Finetuning
from videomae.training.pretraining import Pretraining, PretrainSettings
from videomae.training.settings import TrainingDataSettings

if TYPE_CHECKING:
    import torch

    from videomae.training.experiment import Experiment

METHODS: dict[str, tuple[type[Any], type[Any]]] = {
    "pretrain": (PretrainSettings, Pretraining),
    "finetune": (FinetuneSettings, Finetuning),
}
LARGEST_CPU_BATCH = 4  # videos of a step that is timed on a CPU


@dataclasses.dataclass(frozen=True)
class RecipeSpeed:
    """What a clip of a training recipe costs, and which part of it limits the run.

    Attributes:
        recipe: its name.
        parameters: of the model that it trains.
        reading_seconds: of a clip, by one process, from the file to the model's input.
        workers: processes that read.
        model_seconds: of a clip, forward and backward.
        clips_per_second: of the run, at most: reading goes on beside a GPU, and shares a CPU with the model.
        limited_by: "reading" or "the model".
        reading_fraction: of the time of both.
    """

    recipe: str
    parameters: int
    reading_seconds: float
    workers: int
    model_seconds: float
    clips_per_second: float
    limited_by: str
    reading_fraction: float


def check_recipe(recipe: str | Path) -> str:
    """Return the method of a recipe.

    Raises:
        ValueError: if it is of none that is measured.
    """
    task = task_of_recipe(recipe)
    if task not in METHODS:
        raise ValueError(f"recipes of {' and '.join(METHODS)} are measured, {recipe} is one of {task or 'none'}.")
    return task


def recipe_speed(recipe: str | Path, model: str | Path | None, videos: Manifest, device: "torch.device") -> RecipeSpeed:
    """Measure reading and training of a recipe, each on its own, and say which of them limits a run.

    Args:
        recipe: built-in one, or TOML file.
        model: a preset or a checkpoint in place of its own.
        videos: to read.
        device: where to train.
    """
    settings_type, method = METHODS[check_recipe(recipe)]
    with tempfile.TemporaryDirectory() as folder:
        samples = tuple(dataclasses.replace(sample, split=None) for sample in videos)
        Manifest(samples, videos.classes, videos.root).to_csv(Path(folder) / "videos.csv")
        settings = _settings(from_recipe(settings_type, recipe), model, Path(folder), len(videos), device)
        reading, step, parameters = _training_seconds(method(settings), Path(folder), device)
    workers = max(settings.loader.workers(1), 1)
    beside = decodes_beside(device.type, settings.loader.num_workers)
    # Beside a GPU the slower part decides; on a CPU both want the same processors.
    read = reading / (workers if beside else processors())
    seconds = max(read, step) if beside else read + step
    return RecipeSpeed(
        recipe=str(recipe),
        parameters=parameters,
        reading_seconds=reading,
        workers=workers,
        model_seconds=step,
        clips_per_second=1 / seconds,
        limited_by="reading" if read > step else "the model",
        reading_fraction=read / (read + step),
    )


def _settings(settings: Any, model: str | Path | None, folder: Path, count: int, device: "torch.device") -> Any:
    """Return the settings of a recipe for one step on the videos."""
    settings.data, settings.out = TrainingDataSettings(folder / "videos.csv"), folder
    if model is not None:
        setattr(*((settings.model, "preset") if str(model) in PRESETS else (settings, "init")), str(model))
    settings.optim.warmup_epochs = 0.0
    batch = min(settings.run.per_device_batch or settings.run.batch_size, count)
    settings.run = dataclasses.replace(
        settings.run,
        steps=1,
        batch_size=min(batch, LARGEST_CPU_BATCH) if device.type == "cpu" else batch,
        per_device_batch=None,
        trackers=(),
        strategy="auto",
        device="cpu" if device.type == "cpu" else "auto",
    )
    if isinstance(settings, FinetuneSettings):
        settings.head.standardize = False
    return settings


def _training_seconds(experiment: "Experiment", folder: Path, device: "torch.device") -> tuple[float, float, int]:
    """Return the seconds of reading a clip in one process, those of the model for it, and the model's parameters."""
    from accelerate.utils import send_to_device

    from videomae.data.dataset import collate
    from videomae.data.unreadable import UnreadableVideos
    from videomae.training.devices import build_accelerator
    from videomae.training.experiment import Run, build_training_loader
    from videomae.training.schedule import Schedule

    e, s = experiment, experiment.settings
    accelerator = build_accelerator(s.run, folder=folder)
    schedule = Schedule.make(s.run, s.optim, num_videos=len(e.samples), world_size=1)
    run = Run(accelerator, schedule, UnreadableVideos(folder, e.samples, max_fraction=1, rank=0, world_size=1))
    model: Any = e.build_model().to(device).train()
    e.begin(model, run)
    dataset: Any = build_training_loader(e, run, seed=0).dataset
    dataset.threads = 1
    items, times = [], []
    for index in range(schedule.batch_size):
        began = time.perf_counter()
        items.append(dataset[index])
        times.append((time.perf_counter() - began) / len(items[-1]["pixel_values"]))
    batch = send_to_device(collate(items), device)
    steps = []
    for seed in range(3):  # the first one warms up
        began = time.perf_counter()
        with accelerator.autocast():
            loss = e.loss(model, batch, seed)
        loss.backward()
        wait_for(device)
        steps.append((time.perf_counter() - began) / len(batch["pixel_values"]))
    return median(times), min(steps[1:]), sum(parameter.numel() for parameter in model.parameters())
