"""``videomae embed``: write features of videos."""

import json
import sys
from datetime import timedelta

from videomae.inference.devices import torchrun_group
from videomae.inference.feature_store import UNREADABLE_NAME, EmbedSettings, _list_unreadable, embed


def main(settings: EmbedSettings) -> int:
    """Embed with a progress bar; the exit code is 1 if videos could not be read, in the first of several processes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    group = torchrun_group(timeout=timedelta(days=30))  # one may have far more to do than another
    with group as rank, Bar(*columns, console=notes, transient=True, disable=rank > 0) as bar:
        task = bar.add_task("", total=None)
        embed(settings, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if rank > 0:
        return 0
    unreadable = _list_unreadable(settings.out)
    if unreadable:
        notes.print(f"{len(unreadable)} videos could not be read: see {settings.out / UNREADABLE_NAME}", markup=False)
    answer = json.dumps({"out": str(settings.out), "unreadable": unreadable}) if settings.json else str(settings.out)
    sys.stdout.write(f"{answer}\n")
    return 1 if unreadable else 0
