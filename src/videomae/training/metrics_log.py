"""The record of a run: a progress bar or lines on the terminal, metrics.jsonl, and Accelerate's trackers."""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from videomae.files import atomic_write
from videomae.hub import stored_in

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Where a run says how it goes; only the main process writes.

    Args:
        folder: the run directory.
        accelerator: knows the main process, and has the trackers.
        total: steps of the schedule.
        step: steps that are done already; later lines of an interrupted run are dropped.
        reached: step of the schedule that the run goes on from.
        title: what the progress bar is called.
    """

    def __init__(
        self, folder: Path, accelerator: "Accelerator", *, total: int, step: int, reached: int, title: str
    ) -> None:
        self.path = folder / METRICS_NAME
        self.accelerator = accelerator
        self.active = accelerator.is_main_process
        self.total, self.first, self.reached = total, reached, reached
        self.title = title
        self.began = time.perf_counter()
        if self.active:
            _drop_lines_after(self.path, step)

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        shown = self.active and self.console.is_terminal
        self.bar = Progress(*columns, TextColumn("{task.fields[remark]}"), console=self.console, disable=not shown)
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.total, completed=self.first, remark="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, reached: int) -> None:
        """Move the bar to a step of the schedule."""
        self.reached = reached
        self.bar.update(self.task, completed=reached)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record some values of a step: to the file, the trackers and the terminal."""
        if self.active:
            line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            remark = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.bar.update(self.task, remark=remark)
            if not self.console.is_terminal:
                self.console.print(
                    f"{self.title} {self.reached}/{self.total}  {remark}  left {self._left()}", markup=False
                )
        self.accelerator.log(values, step=step)

    def say(self, text: str) -> None:
        """Show a line of text."""
        if self.active:
            self.console.print(text, markup=False)

    def _left(self) -> str:
        seconds = (time.perf_counter() - self.began) / max(self.reached - self.first, 1) * (self.total - self.reached)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl; a last line that a kill cut short is left out."""
    path = folder / METRICS_NAME
    with stored_in(path):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole, _, _ = text.rpartition("\n")
    with stored_in(path):
        lines = [json.loads(line) for line in whole.splitlines()]
        if not all(isinstance(line, dict) and isinstance(line["step"], int) for line in lines):
            raise ValueError("every line must be an object with its step.")
    return lines


def memory_used(device: "torch.device") -> float:
    """Return the memory a run takes, in GB: the most that was allocated on a GPU, else what the process holds now."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9
    import psutil

    return psutil.Process().memory_info().rss / 1e9


def _drop_lines_after(path: Path, step: int) -> None:
    """Keep the lines up to ``step``: those after it are written again by the run that goes on from there."""
    if path.exists():
        kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
