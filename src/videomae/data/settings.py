"""Which videos a command or a function reads: the settings that all of them share."""

import dataclasses
from pathlib import Path
from typing import Annotated, Self

import tyro

from videomae.data.formats import FORMATS
from videomae.data.manifest import Manifest, read_manifest
from videomae.video.damage import OnError

FORMAT_HELP = f"How to read DATA: {', '.join(FORMATS)}; auto tells them apart."


@dataclasses.dataclass
class DataSettings:
    """Which videos there are, and how they are read."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of videos (with a folder per class, where classes matter), CSV manifest, or official list."""

    format: Annotated[str, tyro.conf.arg(help=FORMAT_HELP)] = "auto"

    videos: Path | None = None
    """Folder of the videos, where DATA is a list and they lie elsewhere."""

    fold: int = 1
    """Of the official splits of UCF101 and HMDB51: 1, 2 or 3."""

    fps: float | None = None
    """Frames per second of files that hold no times, such as a raw .h264 or .mjpeg; others keep their own."""

    on_error: OnError = "raise"
    """Where a video does not decode: raise leaves it out or stops, as the command does with what cannot be read; skip
    goes on behind the damage, truncate ends the video there."""

    def read(self) -> Manifest:
        """Read the list; arguments and errors are those of `read_manifest` and `Manifest.read_as`."""
        manifest = read_manifest(self.path, format=self.format, videos=self.videos, fold=self.fold)
        return manifest.read_as(fps=self.fps, on_error=self.on_error)

    def resolved(self) -> Self:
        """Return the same with absolute paths, for a process that works in another directory."""
        videos = None if self.videos is None else self.videos.resolve()
        return dataclasses.replace(self, path=self.path.resolve(), videos=videos)


Data = Annotated[DataSettings, tyro.conf.arg(name="")]
"""The data of a command: ``DATA --format --videos --fold --fps --on-error``, without a prefix."""

DataSource = str | Path | Manifest | DataSettings
"""What functions take for a data set: where it lies, with or without how to read it, or a manifest that was read."""


def read_data(data: DataSource) -> tuple[Manifest, Path | None]:
    """Return the manifest of a data set, and the path that it was read from; None where it was read before.

    Raises:
        DataError: as `read_manifest` does.
    """
    if isinstance(data, Manifest):
        return data, None
    settings = data if isinstance(data, DataSettings) else DataSettings(Path(data))
    return settings.read(), settings.path
