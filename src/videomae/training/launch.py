"""What the command of a training method does: print its settings, or its plan, or train and say how it ended."""

import sys

from videomae.console import output
from videomae.files import name_bytes
from videomae.settings import to_toml
from videomae.training.dry_run import dry_run
from videomae.training.experiment import Experiment, run_experiment
from videomae.training.run_directory import MODEL_NAME, TrainingResult
from videomae.training.settings import TrainingSettings


def launch(settings: TrainingSettings, method: type[Experiment]) -> int:
    """Train by a method, or print what would be done, and return the exit code."""
    if settings.print_config:
        sys.stdout.flush()
        sys.stdout.buffer.write(name_bytes(to_toml(settings)))
        return 0
    if settings.dry_run:
        dry_run(method(settings))
        return 0
    return _report_end(run_experiment(method(settings)), settings)


def _report_end(result: TrainingResult, settings: TrainingSettings) -> int:
    """Print how a run ended on the main process, leave the others, and return the exit code."""
    import torch
    from accelerate import PartialState

    from videomae.training.loop import EXIT_PREEMPTED

    console = output()
    console.quiet = not PartialState().is_main_process
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if result.interrupted:
        console.print(
            f"stopped by SIGTERM after step {result.steps}; the same command goes on from there", markup=False
        )
        return EXIT_PREEMPTED
    skipped = f", {result.bad_steps} of them skipped" if result.bad_steps else ""
    console.print(
        f"{result.steps} steps{skipped} in {result.seconds:.0f} s{describe_score(result)}. "
        f"The model is in {settings.out / MODEL_NAME}",
        markup=False,
    )
    return 0


def describe_score(result: TrainingResult) -> str:
    """Say what the best validation gave, and whether the model is of its step; nothing without validation."""
    if result.best_score is None:
        return ""
    model = "that step's" if result.model_step == result.best_step else "the last one"
    return f"; best {result.score} {result.best_score:.1%} at step {result.best_step}; the model is {model}"
