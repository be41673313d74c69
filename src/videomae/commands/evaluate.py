"""``videomae evaluate``: measure a model on labelled videos."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.markup import escape

from videomae.inference.devices import choose_device, torchrun_group
from videomae.inference.evaluate import EvaluateSettings, run
from videomae.inference.metrics import Evaluation


def main(settings: EvaluateSettings) -> int:
    """Print the figures; the exit code is 1 if a video could not be read and counted as wrong."""
    device = choose_device(settings.device)
    settings = dataclasses.replace(settings, device=str(device))
    with torchrun_group(device) as rank:
        evaluation = _run_with_bar(settings, rank)
        if rank > 0:
            return 0
        if settings.json:
            sys.stdout.write(json.dumps(evaluation.to_dict(), ensure_ascii=False) + "\n")
        else:
            _print_tables(evaluation, settings)
        return 1 if evaluation.num_unreadable else 0


def _run_with_bar(settings: EvaluateSettings, rank: int) -> Evaluation:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=rank > 0) as bar:
        task = bar.add_task("evaluating", total=None)
        return run(settings, progress=lambda done, total: bar.update(task, completed=done, total=total))


def _print_tables(result: Evaluation, settings: EvaluateSettings) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(highlight=False, soft_wrap=True)
    low, high = result.interval
    protocol = result.about["protocol"]
    console.print(
        f"{result.num_videos} videos of {len(result.classes)} classes, protocol {protocol['name']}: "
        f"{protocol['clips']} x {protocol['crops']} views, {protocol['method']} sampling\n"
    )
    figures = Table.grid(padding=(0, 2))
    figures.add_row(
        "top-1",
        _percent(result.top1),
        f"{100 * result.confidence:g} % interval {_percent(low)} to {_percent(high)} ({result.interval_method})",
    )
    for trained, top1 in result.about["published_top1_percent"].items():
        figures.add_row("  published", f"{top1:.1f} %", f"{trained}, whole test set")
    figures.add_row("top-5", _percent(result.top5), "" if len(result.classes) > 5 else "no more than 5 classes")
    figures.add_row("mean class accuracy", _percent(result.mean_class_accuracy))
    figures.add_row("calibration error", _percent(result.ece), "ECE, 15 bins")
    if len(result.accuracy_by_views) > 1:
        figures.add_row("top-1 by views", "", _ablation(result.accuracy_by_views))
    console.print(figures)
    table = Table(Column("class", overflow="fold"), *(Column(name, justify="right") for name in _COLUMNS))
    for line in result.per_class:
        counts = (str(line.videos), str(line.correct))
        table.add_row(escape(line.name), *counts, _percent(line.accuracy), _percent(line.precision))
    console.print(table)
    for departure in result.about["departures"]:
        console.print(f"[yellow]not the published protocol:[/yellow] {escape(departure)}")
    for video in result.videos:
        if video.error is not None:
            console.print(f"[red]counted as wrong:[/red] {escape(video.path)}: {escape(video.error)}")
    if settings.out is not None:
        console.print(f"written: {settings.out}", markup=False)


_COLUMNS = ("videos", "right", "accuracy", "precision")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _ablation(accuracies: Sequence[float]) -> str:
    return ", ".join(f"{i}: {_percent(accuracy)}" for i, accuracy in enumerate(accuracies, start=1))
