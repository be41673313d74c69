"""The one training loop, for every task and every device, on Accelerate.

A task gives it a model, a loss, and batches (`Job`); it gives back trained weights. All randomness of a step is a
function of (seed, step, micro-batch, process), so that a run which was killed ends with the same bits as one that was
not.

The host never waits for a GPU within a step: what the processes tell each other travels in one all-reduce, a step
whose figures are not finite is skipped on the device, and the host reads the figures of a step when the next one is
under way.
"""

import dataclasses
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from videomae.errors import CheckpointError, VideoMAEError
from videomae.options import parse_duration
from videomae.training.checkpoint import Checkpoints, RunState
from videomae.training.devices import SHARDED, compiles
from videomae.training.metrics_log import MetricsLog, memory_used
from videomae.training.optim import Ema, build_optimizer
from videomae.training.pace import Pace
from videomae.training.schedule import Schedule
from videomae.training.settings import OptimSettings, RunSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = dict[str, Any]

EXIT_PREEMPTED = 128 + signal.SIGTERM


class Loader(Protocol):
    """Endless batches of one process; its ``sampler`` has ``set_epoch(epoch, start_batch=)``, as `EpochSampler` has."""

    sampler: Any

    def __iter__(self) -> Iterator[Batch]: ...


class Meter(Protocol):
    """Measures how long a loop waits for its batches, as `DataTimeMeter` does."""

    @property
    def wait_fraction(self) -> float:
        """Fraction of the time spent waiting, 0-1."""

    def track(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, timing the wait for each."""

    def reset(self) -> None:
        """Start counting anew."""


class Reports(Protocol):
    """What a process meets on its way and the others should know of, as `UnreadableVideos` does."""

    @property
    def untold(self) -> int:
        """How many things the others do not know of."""

    def share(self, gather: Callable[[list], list]) -> None:
        """Tell the others, and hear of theirs; every process calls this."""


@dataclasses.dataclass
class Job:
    """What a task gives the loop.

    Attributes:
        model: on the CPU, as it starts.
        loss: from (model, batch, seed) to a scalar, the mean over the batch's clips. The model may be wrapped for
            several devices: call it, do not look inside. The batch's tensors are on the device.
        loader: micro-batches of this process; those of a step share the videos of `Schedule.batch_size`.
        groups: of parameters, as `parameter_groups` returns them.
        meter: of the time spent waiting for the loader.
        validate: from the model to figures, where there is something to validate on; called on every process.
        score: the figure that says which weights are best; higher is better.
        title: what the progress bar is called.
        before_step: is called before each step with the step of the schedule that it stands for, from 0; see `Pace`.
        describe: writes what the model is into the folder of each checkpoint, beside its weights.
        reports: are shared between the processes wherever a line of the log is due and there is something to tell.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Batch, int], Tensor]
    loader: Loader
    groups: list[dict]
    meter: Meter
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    score: str = ""
    title: str = "training"
    before_step: Callable[[float], None] | None = None
    describe: Callable[[Path], None] | None = None
    reports: Reports | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: optimiser steps that are done.
        bad_steps: how many of them were skipped, as the loss or the gradient was not finite.
        best_step: of the best validation; None without.
        best_score: its score.
        score: name of that figure, such as "val_top1"; empty without validation.
        model_step: the step that the weights are of.
        seconds: that it took, without what was lost where it was killed.
        interrupted: whether SIGTERM ended it early; the same command goes on from there.
        weights: all of the model's, gathered on the main process where they are sharded; none when interrupted.
    """

    steps: int
    bad_steps: int
    best_step: int | None
    best_score: float | None
    score: str
    model_step: int
    seconds: float
    interrupted: bool
    weights: dict[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)


def fit(
    accelerator: "Accelerator", job: Job, schedule: Schedule, *, folder: Path, run: RunSettings, optim: OptimSettings
) -> Outcome:
    """Train, from the start or from the newest checkpoint in the run directory.

    The weights that are returned are those that ``run.final`` asks for, averaged ones with ``optim.ema``.

    Args:
        accelerator: as `videomae.training.devices.build_accelerator` returns it.
        job: what to train, on what.
        schedule: batches, steps and learning rates.
        folder: the run directory; checkpoints and metrics go there.
        run: how to run.
        optim: how to optimise.

    Raises:
        CheckpointError: if a checkpoint cannot be written or read; older ones are intact.
        VideoMAEError: if the loss is not finite for ``run.max_bad_steps`` steps in a row.
        ValueError: for settings that do not go together.
    """
    trainer = _Trainer(accelerator, job, schedule, folder, run, optim)
    return trainer.run_all()


class _Trainer:
    """The state of one run, and its loop."""

    def __init__(
        self,
        accelerator: "Accelerator",
        job: Job,
        schedule: Schedule,
        folder: Path,
        run: RunSettings,
        optim: OptimSettings,
    ) -> None:
        self.accelerator, self.job, self.schedule = accelerator, job, schedule
        self.folder, self.run, self.optim = folder, run, optim
        if run.patience is not None and job.validate is None:
            raise ValueError(f"run.patience = {run.patience} needs something to validate on: leave it out, or give it.")
        self.model, self.optimizer = self._prepare()
        self.ema = self._make_ema()
        self.checkpoints = Checkpoints(
            folder / "checkpoints", accelerator, self.model, self.optimizer, self.ema,
            keep_last=run.keep_last, describe=job.describe,
        )  # fmt: skip
        self.state = self._resume()
        budget = None if run.budget is None else parse_duration(run.budget, name="run.budget")
        self.pace = Pace(folder, accelerator, steps=schedule.steps, budget=budget, done=self.state)
        self.sums = _Sums()
        # Where the host computes itself there is nothing to run ahead of.
        self.lag = 0 if accelerator.device.type == "cpu" else 1
        self.unread: deque[_Step] = deque()
        self.untold = False
        self.steps_in_backward = accelerator.distributed_type == "DEEPSPEED"

    def run_all(self) -> Outcome:
        """Run to the end, or until SIGTERM."""
        accelerator, state = self.accelerator, self.state
        purge = {"tensorboard": {"purge_step": state.step + 1}} if "tensorboard" in self.run.trackers else {}
        accelerator.init_trackers("videomae", init_kwargs=purge)
        reached = round(self.pace.place(state.step))
        log = MetricsLog(
            self.folder,
            accelerator,
            total=self.schedule.steps,
            step=state.step,
            reached=reached,
            title=self.job.title,
        )
        with log, _Termination() as self.termination:
            self._run(log)
        outcome = Outcome(
            steps=state.step,
            bad_steps=state.bad_steps,
            best_step=state.best_step,
            best_score=state.best_score,
            score=self.job.score if self.job.validate else "",
            model_step=self._final_step(),
            seconds=self.pace.seconds,
            interrupted=self.termination.everywhere,
            weights={} if self.termination.everywhere else self._final_weights(),
        )
        for tracker in accelerator.trackers:
            tracker.finish()
        return outcome

    def _prepare(self) -> tuple[nn.Module, Any]:
        model = self.job.model.train()
        if self.run.gradient_checkpointing:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        # The position tables, the only buffers, are the same on every process: DDP need not send them around.
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            model, [name for name, _ in model.named_buffers()]
        )
        if compiles(self.run, self.accelerator.device, sharded=self.accelerator.distributed_type in SHARDED):
            model.compile()
        self.accelerator.gradient_accumulation_steps = self.schedule.accumulation
        if self.accelerator.distributed_type == "DEEPSPEED":
            settings = self.accelerator.state.deepspeed_plugin.deepspeed_config
            settings["train_micro_batch_size_per_gpu"] = self.schedule.per_device_batch
            settings["gradient_accumulation_steps"] = self.schedule.accumulation
            settings["gradient_clipping"] = self.optim.clip_grad or 0.0
        optimizer = build_optimizer(self.job.groups, self.optim, self.accelerator.device)
        return self.accelerator.prepare(model, optimizer)

    def _make_ema(self) -> Ema | None:
        if self.optim.ema is None:
            return None
        if self.accelerator.distributed_type == "DEEPSPEED":
            raise ValueError(
                "optim.ema is not available with DeepSpeed, which keeps its weights to itself: leave it out, or use "
                "run.strategy = 'fsdp' or 'auto'."
            )
        return Ema(self.job.model, self.optim.ema)

    def _resume(self) -> RunState:
        steps = self.checkpoints.steps()
        if not steps:
            return RunState()
        if self.run.resume == "never":
            raise CheckpointError(
                f"{self.folder} has checkpoints up to step {steps[-1]}: name another --out, or go on with "
                "--run.resume auto."
            )
        state = self.checkpoints.load(steps[-1])
        self.accelerator.step = 0  # counts micro-batches, of which there may be more or fewer to a step now
        return state

    def _finished(self) -> bool:
        out_of_patience = self.run.patience is not None and self.state.waited >= self.run.patience
        return self._is_through() or out_of_patience

    def _is_through(self) -> bool:
        return self.pace.place(self.state.step) >= self.schedule.steps

    def _run(self, log: MetricsLog) -> None:
        """Run what is left, or until SIGTERM; the loader goes on from one epoch to the next."""
        state, schedule = self.state, self.schedule
        epoch, done = divmod(state.step, schedule.steps_per_epoch)
        self.job.loader.sampler.set_epoch(epoch, start_batch=done * schedule.accumulation)
        batches = self.job.meter.track(self.job.loader)
        while not self._finished() and not self.termination.everywhere:
            self._step(batches)
            self.pace.after_step(state.step)
            log.advance(round(self.pace.place(state.step)))
            last = self._is_through()
            logs = state.step % self.run.log_every == 0 or last
            validates = self.job.validate is not None and (self._validation_is_due() or last)
            saves = validates or last or state.step % self.run.save_every == 0
            self._read(log, keep=0 if logs or saves else self.lag)
            if logs:
                log.write(state.step, self._figures())
                self._share_reports()
            if validates:
                self._validate(log)
            if saves or self.termination.everywhere:
                self._read(log, keep=0)
                state.seconds = self.pace.seconds
                self.checkpoints.save(state)
                self.pace.skip_pause()

    def _step(self, batches: Iterator[Batch]) -> None:
        """Make one optimiser step, or skip it where the loss or the gradient is not finite.

        DeepSpeed steps in the backward pass, before the gradient's norm is known: there it is only a loss that is not
        finite, for which there is no backward pass, that is skipped.
        """
        place = self.pace.place(self.state.step)
        if self.job.before_step is not None:
            self.job.before_step(place)
        rate = self.schedule.learning_rate(place)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        shared, clips = self._accumulate(batches)
        norm = self._clip()
        good = shared[0].isfinite() if norm is None else shared[0].isfinite() & norm.isfinite()
        self._move(good)
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(good)
        self.state.step += 1
        figures = torch.stack([*shared, shared[0] * math.nan if norm is None else norm, good.float()])
        self.unread.append(_Step(self.state.step, figures, clips, rate))

    def _move(self, good: Tensor) -> None:
        """Let the optimiser step if ``good``, which only the device knows."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        if self.accelerator.scaler is not None:  # it skips by itself, and adapts
            self.optimizer.step()
        elif getattr(optimizer, "_step_supports_amp_scaling", False):  # PyTorch's word for: minds ``found_inf``
            optimizer.found_inf = 1 - good.float()
            self.optimizer.step()
        elif good:
            self.optimizer.step()

    def _read(self, log: MetricsLog, *, keep: int) -> None:
        """Take note of the figures of all steps but the last ``keep``.

        Raises:
            VideoMAEError: after too many steps in a row without finite figures.
        """
        state = self.state
        while len(self.unread) > keep:
            step = self.unread.popleft()
            loss, told, untold, norm, good = step.read()
            self.termination.everywhere |= told > 0
            self.untold |= untold > 0
            state.bad_in_row = 0 if good else state.bad_in_row + 1
            state.bad_steps += not good
            self.sums.add(loss, norm, step.clips, step.rate, good=bool(good))
            if not good:
                log.say(f"step {step.number} is skipped: loss {loss:.4g}, gradient norm {norm:.4g}")
            if state.bad_in_row >= self.run.max_bad_steps:
                raise VideoMAEError(
                    f"loss or gradient were not finite for {state.bad_in_row} steps in a row (now step {step.number}): "
                    "lower optim.lr, set optim.clip_grad (such as 1.0), warm up longer, or use run.precision = 'bf16' "
                    "or 'float32' in place of 'fp16', in a run with another --out. Weights are those before these "
                    "steps; the checkpoints are intact."
                )

    def _share_reports(self) -> None:
        from accelerate.utils import gather_object

        if self.untold and self.job.reports is not None:
            self.job.reports.share(gather_object)
        self.untold = False

    def _accumulate(self, batches: Iterator[Batch]) -> tuple[Tensor, int]:
        """Add up the gradient of a step.

        Returns:
            (3,), on the device: means over all processes of the loss, of whether one was told to end, and of how many
            reports it has; and the number of clips.
        """
        accelerator, clips = self.accelerator, 0
        total = torch.zeros((), device=accelerator.device)
        for micro in range(self.schedule.accumulation):
            batch = _to_device(next(batches), accelerator.device)
            seed = step_seed(self.run.seed, self.state.step, micro, accelerator.process_index)
            torch.manual_seed(seed)
            with accelerator.accumulate(self.model):
                loss = self.job.loss(self.model, batch, seed)
                if not self.steps_in_backward or self._is_finite_everywhere(loss):
                    accelerator.backward(loss)
            total += loss.detach()
            clips += len(batch["pixel_values"]) * accelerator.num_processes
        own = (float(self.termination.here), float(self.job.reports.untold if self.job.reports else 0))
        told = [torch.full_like(total, value) for value in own]  # a fill, where a copy would be waited for
        return accelerator.reduce(torch.stack([total / self.schedule.accumulation, *told]), reduction="mean"), clips

    def _is_finite_everywhere(self, loss: Tensor) -> bool:
        return math.isfinite(self.accelerator.reduce(loss.detach(), reduction="mean"))

    def _clip(self) -> Tensor | None:
        """Clip the gradient and return its norm before that, or None where nobody knows it."""
        largest = math.inf if self.optim.clip_grad is None else self.optim.clip_grad
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), largest)
        if norm is None:  # DeepSpeed does not always tell
            return None
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return torch.as_tensor(norm, dtype=torch.float32, device=self.accelerator.device)

    def _figures(self) -> dict[str, float]:
        """Return what the log shows of the steps since its last line."""
        figures = self.sums.figures() | {
            "data_wait_fraction": self.job.meter.wait_fraction,
            "memory_gb": memory_used(self.accelerator.device),
            "epoch": self.state.step / self.schedule.steps_per_epoch,
            "bad_steps": float(self.state.bad_steps),
        }
        self.sums = _Sums()
        self.job.meter.reset()
        return figures

    def _validation_is_due(self) -> bool:
        return self.state.step % (self.run.validate_every * self.schedule.steps_per_epoch) == 0

    def _validate(self, log: MetricsLog) -> None:
        state, validate = self.state, self.job.validate
        if validate is None:
            return
        self.model.eval()
        if self.ema is None:
            figures = validate(self.model)
        else:
            with self.ema.swapped():
                figures = validate(self.model)
        self.model.train()
        log.write(state.step, figures)
        score, best = figures[self.job.score], state.best_score
        if best is None or score >= best:  # of equal ones the later, which has learnt for longer
            state.best_step, state.best_score = state.step, score
        state.waited = 0 if best is None or score > best else state.waited + 1
        self.sums.skip_pause()
        self.job.meter.reset()

    def _final_step(self) -> int:
        best = self.state.best_step
        return self.state.step if best is None or self.run.final == "last" else best

    def _final_weights(self) -> dict[str, Tensor]:
        if self._final_step() != self.state.step:
            self.checkpoints.load(self._final_step())
        if self.ema is not None:
            self.ema.swap()
        return self.accelerator.get_state_dict(self.model)


def step_seed(*key: int) -> int:
    """Return a seed that is a function of the numbers, such as (seed, step, micro-batch, process)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Step:
    """The figures of a step, on their way to the host.

    Args:
        number: of the step, from 1.
        figures: (5,), on the device: loss, told to end, reports, gradient norm, and whether it was a good step.
        clips: that it learnt from.
        rate: its learning rate.
    """

    def __init__(self, number: int, figures: Tensor, clips: int, rate: float) -> None:
        self.number, self.clips, self.rate = number, clips, rate
        self.figures = figures.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if figures.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()
        elif figures.device.type != "cpu":  # only CUDA tells when a copy has arrived
            self.figures = figures.cpu()

    def read(self) -> list[float]:
        """Return the figures, once the device has computed them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.figures.tolist()


class _Sums:
    """What is averaged between two lines of the log."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.clips = 0
        self.rate = 0.0
        self.began = time.perf_counter()

    def add(self, loss: float, norm: float, clips: int, rate: float, *, good: bool) -> None:
        """Take the figures of a step; those of a skipped one are only counted."""
        self.clips += clips
        self.rate = rate
        if good:
            self.losses.append(loss)
            self.norms.append(norm)

    def skip_pause(self) -> None:
        """Do not count the time of a validation."""
        self.began, self.clips = time.perf_counter(), 0

    def figures(self) -> dict[str, float]:
        """Return the means."""
        return {
            "loss": float(np.mean(self.losses)) if self.losses else math.nan,
            "lr": self.rate,
            "grad_norm": float(np.mean(self.norms)) if self.norms else math.nan,
            "clips_per_s": self.clips / (time.perf_counter() - self.began),
        }


class _Termination:
    """Notices SIGTERM, with which schedulers announce that they take a machine away.

    Attributes:
        here: whether this process received it.
        everywhere: whether any process was, as all of them know after a step.
    """

    def __init__(self) -> None:
        self.here = self.everywhere = False
        self.owner = os.getpid()

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere SIGTERM stays what it was.
        self.installed = threading.current_thread() is threading.main_thread()
        if self.installed:
            self.previous = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.installed:
            signal.signal(signal.SIGTERM, self.previous)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a worker of the loader, forked with this handler
            os._exit(EXIT_PREEMPTED)
        self.here = True


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
