"""``videomae search``: find the clips that are most like a given one."""

import dataclasses
import json
import sys

from videomae.errors import VideoError
from videomae.files import atomic_write
from videomae.inference.search import SearchSettings, search
from videomae.plots.contact_sheet import contact_sheet


def main(settings: SearchSettings) -> int:
    """Print what was found, and draw it; the exit code is 1 if it cannot be drawn."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if settings.sheet is not None and settings.sheet.suffix != ".png":
        raise ValueError(f"--sheet must end in .png, got {settings.sheet}")
    if settings.root is not None and not settings.root.is_dir():
        raise ValueError(f"--root must be the folder that the videos lie in, and {settings.root} is none")
    matches = search(settings)
    if settings.json:
        content = {"query": str(settings.query), "matches": [dataclasses.asdict(match) for match in matches]}
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
    else:
        table = Table(Column("video", overflow="fold"), "from", "to", "similarity")
        for match in matches:
            table.add_row(escape(match.path), f"{match.start:.1f} s", f"{match.end:.1f} s", f"{match.similarity:.3f}")
        Console(highlight=False).print(table)
    if settings.sheet is not None:
        try:
            with atomic_write(settings.sheet) as temporary:
                contact_sheet(settings.query, matches).save(temporary, "PNG")
        except (VideoError, OSError) as error:
            errors = Console(stderr=True, highlight=False, soft_wrap=True)
            errors.print(f"[red]error:[/red] no sheet was drawn: {escape(str(error))}")
            errors.print("if the videos were moved, name their folder with --root")
            return 1
    return 0
