"""What commands and runs show to people: lines beside the output, progress bars, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], object]
"""Called with the number of items that are done, and their total."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


def output() -> "Console":
    """Return the console of the standard output: what a command was asked for."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def notes() -> "Console":
    """Return the console of the standard error: what is said beside it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(lines: Iterable[str]) -> None:
    """Show some lines beside what a command prints, as they are."""
    console = notes()
    for line in lines:
        console.print(line, markup=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object as one line, at once."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def progress_bar(title: str, *, shown: bool = True) -> Iterator[Progress]:
    """Show a bar beside the output while the block runs, and yield what moves it.

    Args:
        title: in front of the bar.
        shown: False shows none, such as on all but the first of several processes.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=notes(), transient=True, disable=not shown) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
