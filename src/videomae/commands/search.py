"""``videomae search``: find the clips that are most like a given one."""

import dataclasses
from pathlib import Path

import tyro

from videomae.console import notes, output, print_json, working
from videomae.errors import VideoError
from videomae.files import atomic_write
from videomae.inference.search import search
from videomae.options import Device, Flag
from videomae.plots.contact_sheet import contact_sheet


@dataclasses.dataclass
class SearchSettings:
    """Find the clips that are most like a given one, in what `videomae embed` wrote."""

    query: tyro.conf.Positional[str]
    """Video to look for; its middle counts: a clip or a window, as the index holds."""

    index: Path
    """Folder that `videomae embed` wrote (per clip or per window)."""

    top_k: int = 8
    """How many to show."""

    sheet: Path | None = None
    """Draw frames of the query and of what was found here, as .png."""

    model: str | None = None
    """Where the model lies now; by default where it lay when the index was made."""

    root: Path | None = None
    """Folder that the videos of the index lie in now; by default where they lay when it was made."""

    json: Flag = False
    """Print one JSON object."""

    device: Device = None


def main(settings: SearchSettings) -> int:
    """Print what was found, and draw it; the exit code is 1 if it cannot be drawn."""
    from rich.markup import escape
    from rich.table import Column, Table

    s = settings
    if s.sheet is not None and s.sheet.suffix != ".png":
        raise ValueError(f"--sheet must end in .png, got {s.sheet}.")
    if s.root is not None and not s.root.is_dir():
        raise ValueError(f"--root must be the folder that the videos lie in, and {s.root} is not a folder.")
    with working("searching"):
        matches = search(s.query, s.index, top_k=s.top_k, model=s.model, root=s.root, device=s.device)
    if s.json:
        print_json({"query": s.query, "matches": [dataclasses.asdict(match) for match in matches]})
    else:
        table = Table(Column("video", overflow="fold"), "from", "to", "similarity")
        for match in matches:
            table.add_row(escape(match.path), f"{match.start:.1f} s", f"{match.end:.1f} s", f"{match.similarity:.3f}")
        output().print(table, soft_wrap=False)
    if s.sheet is not None:
        try:
            with atomic_write(s.sheet) as temporary:
                contact_sheet(Path(s.query), matches).save(temporary, "PNG")
        except (VideoError, OSError) as error:
            notes().print(f"[red]error:[/red] no sheet was drawn: {escape(str(error))}")
            notes().print("if the videos were moved, name their folder with --root")
            return 1
    return 0
