"""Find the clips that are most like a given one."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from videomae.errors import CheckpointError, DataError, VideoError
from videomae.files import atomic_write
from videomae.tasks.embed import FORMAT, SETTINGS_NAME, VideoEmbedder, part_files, read_features
from videomae.video.manifest import Sample
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from PIL.Image import Image

STORE, TABLE = "lance", "features"
SHEET_FRAMES, SHEET_HEIGHT = 5, 96


@dataclasses.dataclass
class SearchSettings:
    """Find the clips that are most like a given one, in what `videomae embed` wrote."""

    query: tyro.conf.Positional[Path]
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

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default a GPU if there is one."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A clip that was found.

    Attributes:
        path: of its video in the manifest.
        file: where it lies.
        start: its first second.
        end: the second after it.
        similarity: cosine, -1 to 1.
    """

    path: str
    file: str
    start: float
    end: float
    similarity: float


def search(settings: SearchSettings) -> list[Match]:
    """Return the most similar clips, best first. The store is made from the features when it is first asked.

        >>> best = search(SearchSettings(Path("clip.mp4"), Path("index")))[0]
        >>> best.path, round(best.similarity, 3)
        ('moving_up/000.mp4', 1.0)

    Raises:
        CheckpointError: if the model is not the one that the index was made with.
        DataError: if there is no index, or LanceDB is missing.
        VideoError: if the query cannot be read.
    """
    from importlib.util import find_spec

    if find_spec("lancedb") is None:
        raise DataError("searching needs LanceDB: pip install 'videomae[search]'")
    s = settings
    if s.top_k < 1:
        raise ValueError(f"--top-k must be at least 1, got {s.top_k}")
    stored = s.index / SETTINGS_NAME
    if not stored.exists():
        raise DataError(f"{s.index} holds no features: make them with `videomae embed DATA --out {s.index}`")
    about = json.loads(stored.read_text(encoding="utf-8"))
    if about.get("format") != FORMAT:
        raise DataError(f"{s.index} was written by another version of `videomae embed`: embed again")
    if about["per"] not in ("clip", "window"):
        raise DataError(f"{s.index} holds a vector per {about['per']}: search needs one per clip or window")
    embedder = VideoEmbedder.from_pretrained(s.model or about["model"], device=s.device)
    if embedder.fingerprint() != about["fingerprint"]:
        raise CheckpointError(
            f"{s.model or about['model']} is not the model that {s.index} was made with (weights, config or processor "
            "differ): name that one with --model, or embed again"
        )
    chosen = {"clip_sampling": about["sampling"], "clip_stride": about["stride"], "clip_fps": about["fps"]}
    embedder.model.config = embedder.model.config.replace(**chosen)
    query = _query(s.query, embedder, about)
    found = _store(s.index).search(query).distance_type("cosine").limit(s.top_k).to_list()
    root = Path(about["root"]) if s.root is None else s.root
    return [
        Match(row["path"], str(root / row["path"]), row["start"], row["end"], 1 - float(row["_distance"]))
        for row in found
    ]


def _query(video: Path, embedder: VideoEmbedder, about: dict[str, Any]) -> NDArray[np.float32]:
    """Return the vector (D,) of the middle of a video, seen as the clips or windows of the index were."""
    if about["per"] == "clip":
        return embedder(video, layer=about["layer"]).vectors[0]
    window = about["window"]
    with VideoReader(video) as reader:
        first = float(reader.times[0])
        start = first + max(reader.duration - window, 0) / 2
    sample = Sample(str(video), video, start=start, end=start + window)
    return embedder(sample, per="window", layer=about["layer"], window=window, hop=window).vectors[0]


def _store(index: Path) -> Any:
    import lancedb

    marker = index / STORE / "complete"
    made_of = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in part_files(index)])
    if not marker.exists() or marker.read_text(encoding="utf-8") != made_of:
        shutil.rmtree(index / STORE, ignore_errors=True)  # of other features, or of a run that was killed meanwhile
        lancedb.connect(index / STORE).create_table(TABLE, read_features(index))
        marker.write_text(made_of, encoding="utf-8")
    return lancedb.connect(index / STORE).open_table(TABLE)


def contact_sheet(query: Path, matches: list[Match]) -> "Image":
    """Return a picture with a row of frames for the query and for each match."""
    from PIL import Image, ImageDraw, ImageFont

    rows: list[tuple[str, str, float, float | None]] = [(f"looked for: {query.name}", str(query), 0.0, None)]
    rows += [(f"{m.similarity:.3f}  {m.path}  {m.start:.1f} to {m.end:.1f} s", m.file, m.start, m.end) for m in matches]
    strips = [(title, _frames(file, start, end)) for title, file, start, end in rows]
    width = max(strip.width for _, strip in strips) + 12
    line, gap = 18, 8
    sheet = Image.new("RGB", (width, len(strips) * (SHEET_HEIGHT + line + gap) + gap), "white")
    font = ImageFont.load_default(12)
    for i, (title, strip) in enumerate(strips):
        top = gap + i * (SHEET_HEIGHT + line + gap)
        ImageDraw.Draw(sheet).text((6, top), title, fill="#3b6fd4" if i == 0 else "#1f2430", font=font)
        sheet.paste(strip, (6, top + line))
    return sheet


def _frames(file: str, start: float, end: float | None) -> "Image":
    from PIL import Image

    with VideoReader(file) as reader:
        first = float(reader.times[0])
        last = first + reader.duration
        times = np.linspace(max(start, first), last if end is None else min(end, last), SHEET_FRAMES + 2)
        frames = [Image.fromarray(frame) for frame in reader.frames_at_times(times[1:-1])]
    width = round(SHEET_HEIGHT * frames[0].width / frames[0].height)
    strip = Image.new("RGB", (SHEET_FRAMES * (width + 3) - 3, SHEET_HEIGHT), "white")
    for i, frame in enumerate(frames):
        strip.paste(frame.resize((width, SHEET_HEIGHT), Image.Resampling.BILINEAR), (i * (width + 3), 0))
    return strip


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
