"""What `videomae train` makes of labelled videos in a budget, beside a small convolutional network given the same time.

    python benchmarks/train.py DATA --out WORK --budget 20m [--network] [--seeds 1] [--choose]
    python benchmarks/train.py DATA --out WORK --budget 5m --folds 5

DATA needs a test split; with ``--folds`` it is cross-validated by the column "group" instead, and with ``--choose``
the last fifth of each class's training videos takes the place of the test split, to choose settings by. ``--network``
trains the network of `videomae.models.teacher` alone for the whole budget, on the same clips. Printed are top-1 with
its 95 % interval, and the seconds that each took by the clock. Every run is a run directory under WORK; the same
command goes on where it was stopped.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import Manifest, read_manifest
from videomae.data.settings import DataSettings
from videomae.data.unreadable import UnreadableVideos
from videomae.inference.metrics import accuracy_interval
from videomae.options import parse_duration
from videomae.pipeline.run import train
from videomae.pipeline.settings import TrainSettings
from videomae.settings import from_recipe
from videomae.training.devices import build_accelerator
from videomae.training.distillation import Distillation, DistillSettings, train_teacher
from videomae.training.experiment import Run
from videomae.training.schedule import Schedule
from videomae.training.settings import TrainingDataSettings
from videomae.video.augment import normalize, squeezed_view

VIEWS = 3


def with_last_fifth_as_test(manifest: Manifest) -> Manifest:
    """Leave the test videos out, and test on the last fifth of each class's training videos instead."""
    by_class: dict[int | None, list] = {}
    for sample in manifest.split("train"):
        by_class.setdefault(sample.label, []).append(sample)
    samples = []
    for of_class in by_class.values():
        kept = len(of_class) - round(len(of_class) / 5)
        samples += [dataclasses.replace(s, split="train" if i < kept else "test") for i, s in enumerate(of_class)]
    return Manifest(tuple(samples), manifest.classes, manifest.root)


def ours(data: Path, out: Path, budget: str, seed: int) -> tuple[list[bool], float]:
    """Run `videomae train`, and return which test videos are right, and the seconds of all stages."""
    result = train(TrainSettings(DataSettings(data), out, budget=budget, seed=seed), say=print)
    assert result.evaluation is not None
    return [video.right for video in result.evaluation.videos], sum(result.seconds.values())


def network(data: Path, out: Path, budget: str, seed: int) -> tuple[list[bool], float]:
    """Train the network alone for the whole budget, and return the same."""
    began = time.monotonic()
    settings = dataclasses.replace(
        from_recipe(DistillSettings, "distill-small-data"), data=TrainingDataSettings(data), out=out
    )
    settings.teacher = dataclasses.replace(settings.teacher, held_out=0.0, steps_fraction=1.0)
    # With as many steps as the run's own it gets a third of the time: TEACHER_COST / (1 + TEACHER_COST).
    settings.run = dataclasses.replace(
        settings.run, epochs=400, seed=seed, budget=f"{3 * parse_duration(budget, name='--budget'):.0f}s"
    )
    experiment = Distillation(settings)
    schedule = Schedule.make(settings.run, settings.optim, num_videos=len(experiment.samples), world_size=1)
    accelerator = build_accelerator(settings.run, folder=out)
    run = Run(accelerator, schedule, UnreadableVideos(out, experiment.samples, max_fraction=1, rank=0, world_size=1))
    cache = experiment.cache()
    mean, std = cache.statistics()
    experiment.statistics = (mean,) * 3, (std,) * 3
    net, _ = train_teacher(experiment, experiment._new_teacher(), run)
    test, size = read_manifest(data).split("test"), experiment.config.frame_size[0]
    loader = build_loader(
        VideoDataset(
            test,
            sampling=settings.clips,
            clip_frames=experiment.config.num_frames,
            num_clips=VIEWS,
            training=False,
            transform=lambda clip: squeezed_view(clip, side=experiment.side, image_size=size)[0],
            on_bad="mark",
        ),
        batch_size=8,
    )
    right = [False] * len(test)
    with torch.inference_mode():
        for batch in loader:
            pixels = normalize(batch["pixel_values"], mean=experiment.statistics[0], std=experiment.statistics[1])
            scores = net(pixels)[0].softmax(dim=1).unflatten(0, (VIEWS, -1)).mean(dim=0)
            for index, guess in zip(batch["index"][: len(scores)].tolist(), scores.argmax(1).tolist(), strict=True):
                right[index] = guess == test.samples[index].label
    return right, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--network", action="store_true", help="also train the network alone")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--choose", action="store_true", help="measure on a part of the training videos instead")
    options = parser.parse_args()
    manifest = read_manifest(options.data)
    parts = {"whole": manifest}
    if options.folds:
        folds = manifest.grouped_folds(options.folds, seed=0, held_out="test")
        parts = {f"fold-{number}": fold for number, fold in enumerate(folds)}
    elif options.choose:
        parts = {"chosen": with_last_fifth_as_test(manifest)}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, way in {"videomae train": ours, "the network alone": network}.items():
        if way is network and not options.network:
            continue
        for seed in range(options.seeds):
            right, groups, took = [], [], []
            for part, samples in parts.items():
                data = options.out / f"{part}.csv"
                samples.to_csv(data)
                found, seconds = way(data, options.out / f"{part}-{way.__name__}-{seed}", options.budget, seed)
                right += found
                groups += [sample.group or sample.path for sample in samples.split("test")]
                took.append(f"{seconds:.0f}")
            (low, high), _ = accuracy_interval(np.array(right), groups, confidence=0.95, seed=0)
            print(
                f"{name}, seed {seed}: {sum(right) / len(right):.1%} of {len(right)} ({low:.1%} to {high:.1%}), "
                f"{' + '.join(took)} s"
            )


if __name__ == "__main__":
    main()
