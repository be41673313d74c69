"""What several tests share: where the optional shared material lies."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_dir(name: str) -> Path:
    """Return ``shared/<name>`` beside the repository, or skip the test where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name!r} in the folder 'shared' beside the repository")
    return path
