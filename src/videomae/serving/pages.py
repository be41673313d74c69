"""The files of the page, by the paths at which they are answered."""

from importlib import resources
from typing import Any

_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMED = {"index.html": "/", "docs.html": "/docs"}
_FOLDER = resources.files("videomae.serving").joinpath("page")

PAGES: dict[str, tuple[Any, str]] = {
    _NAMED.get(file.name, f"/{file.name}"): (file, _MEDIA_TYPES[file.name.rpartition(".")[2]])
    for file in sorted(_FOLDER.iterdir(), key=lambda file: file.name)
}
"""By path, the file and its media type; anyone may see them, as they hold nothing of the model."""
