"""What commands and runs show to people: lines beside the output, progress bars, JSON for programs."""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from videomae.files import json_text

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], object]
"""Called with the number of items that are done, and their total."""


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


# What a terminal obeys, all control characters but tab and line feed, what changes the direction of text around it,
# and what no encoding has: halves of surrogate pairs, which stand for bytes of file names that are no UTF-8.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text, such as a stranger's label, with what a terminal would obey as an escape that it shows."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def output() -> "Console":
    """Return the console of the standard output: what a command was asked for."""
    return _console(stderr=False)


def notes() -> "Console":
    """Return the console of the standard error: what is said beside it."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render_str(self, text: str, **options: Any) -> Any:  # before a table measures it
            return super().render_str(printable(text), **options)

        def render(self, *arguments: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return PrintableConsole(stderr=stderr, highlight=False, soft_wrap=True)


class NotesHandler(logging.Handler):
    """Shows what the library logs among the notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show the message."""
        say([record.getMessage()])


def say(lines: Iterable[str]) -> None:
    """Show some lines beside what a command prints, as they are."""
    console = notes()
    for line in lines:
        console.print(line, markup=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object as one line, at once."""
    sys.stdout.write(json_text(content) + "\n")
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


@contextmanager
def working(title: str, *, shown: bool = True) -> Iterator[None]:
    """Show beside the output that the block is at work, where its length is not known; nothing off a terminal.

    Args:
        title: what it does.
        shown: False shows nothing.
    """
    if not shown:
        yield
        return
    with notes().status(f"{title} ..."):
        yield
