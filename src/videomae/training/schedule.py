"""What a run will do, in numbers, before it starts: batches, steps and the learning rate of each step."""

import dataclasses
import math
from typing import Self

from videomae.errors import DataError
from videomae.training.settings import OptimSettings, RunSettings

REFERENCE_BATCH = 256  # lr is given for this many videos (v1, v2)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The course of a run.

    Attributes:
        batch_size: videos per optimiser step, over all processes.
        per_device_batch: videos that a process takes at once.
        accumulation: such micro-batches per step.
        world_size: processes.
        steps_per_epoch: optimiser steps in a pass over the data; what does not fill one is left out of that epoch.
        steps: in all.
        warmup_steps: in which the learning rate rises.
        lr: the highest learning rate, scaled.
        min_lr: the last one, scaled.
    """

    batch_size: int
    per_device_batch: int
    accumulation: int
    world_size: int
    steps_per_epoch: int
    steps: int
    warmup_steps: int
    lr: float
    min_lr: float

    @classmethod
    def make(cls, run: RunSettings, optim: OptimSettings, *, num_videos: int, world_size: int) -> Self:
        """Work out the course of a run over ``num_videos`` with ``world_size`` processes.

        Raises:
            ValueError: for a number that makes no sense, if the batch cannot be shared out, or if the warm-up does not
                fit into the run.
            DataError: if the videos do not fill one step.
        """
        run.check()
        per_device = run.per_device_batch or run.batch_size // world_size
        if per_device < 1 or run.batch_size % (per_device * world_size):
            raise ValueError(
                f"run.batch_size must be a multiple of run.per_device_batch x processes, got {run.batch_size} for "
                f"{per_device} x {world_size}."
            )
        steps_per_epoch = num_videos // run.batch_size
        if not steps_per_epoch:
            raise DataError(
                f"{num_videos} videos do not fill one step of run.batch_size = {run.batch_size}: take a smaller one."
            )
        steps = run.epochs * steps_per_epoch if run.steps is None else run.steps
        warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
        if steps < 1 or warmup_steps > steps:
            raise ValueError(
                f"the run has {steps} steps ({steps_per_epoch} an epoch), of which {warmup_steps} are to warm up: "
                "set run.epochs (or run.steps) higher, or optim.warmup_epochs lower."
            )
        scale = run.batch_size / REFERENCE_BATCH if optim.scale_lr else 1.0
        return cls(
            batch_size=run.batch_size,
            per_device_batch=per_device,
            accumulation=run.batch_size // (per_device * world_size),
            world_size=world_size,
            steps_per_epoch=steps_per_epoch,
            steps=steps,
            warmup_steps=warmup_steps,
            lr=optim.lr * scale,
            min_lr=optim.min_lr * scale,
        )

    def learning_rate(self, step: float) -> float:
        """Return the learning rate of a step from 0: a line from 0 up to ``lr``, then a cosine to ``min_lr`` (v1).

        As in v1 the line reaches ``lr`` at its last step, and the cosine starts from there. A step may lie between two,
        see `videomae.training.pace`.
        """
        if step < self.warmup_steps:
            return self.lr * step / max(self.warmup_steps - 1, 1)
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * done))

    def muon_scale(self, optim: OptimSettings) -> float | None:
        """Return Muon's learning rate over AdamW's, which is the same at every step; None without Muon.

        Raises:
            ValueError: if AdamW's is 0, from which Muon's would follow.
        """
        if optim.name != "muon":
            return None
        if self.lr <= 0 or optim.muon_lr <= 0:
            raise ValueError(f"optim.lr and optim.muon_lr must be above 0, got {self.lr:g} and {optim.muon_lr:g}.")
        return optim.muon_lr / self.lr

    def describe(self) -> str:
        """Say the course in one line."""
        return (
            f"batch {self.batch_size} videos = {self.per_device_batch} x {self.accumulation} accumulated x "
            f"{self.world_size} processes; {self.steps} steps, {self.steps_per_epoch} an epoch; learning rate "
            f"{self.lr:.3g} after {self.warmup_steps} steps of warm-up, {self.min_lr:.3g} at the end"
        )


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, rising: the parts in which a batch can be taken."""
    return [part for part in range(1, number + 1) if number % part == 0]
