"""Data sets of empty files, and lists of them."""

from pathlib import Path

from videomae.data.manifest import Manifest


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, text: str, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(**options))
    return path


def named(manifest: Manifest) -> dict[str, str | None]:
    return {s.path: None if s.label is None else manifest.classes[s.label] for s in manifest}
