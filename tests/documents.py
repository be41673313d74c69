"""The code in README.md and docs/: its blocks, and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SHELLS, PYTHON = ("sh", "bash"), "python"


class Block(NamedTuple):
    """A block of code, and the line that it begins at."""

    language: str
    code: str
    line: int


def pages() -> dict[str, Path]:
    """Return all documents with code or commands, by their path in the repository."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {file.relative_to(ROOT).as_posix(): file for file in files}


def blocks(file: Path) -> list[Block]:
    """Return the blocks of a document that are to be run."""
    text = file.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    every = [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in found]
    return [block for block in every if block.language in (*SHELLS, PYTHON)]


def commands(code: str) -> list[list[str]]:
    """Return the words of each command of a shell block."""
    lines = code.replace("\\\n", " ").splitlines()
    return [
        words for line in lines for part in re.split(r"\s&&\s", line) if (words := shlex.split(part, comments=True))
    ]


def named_commands(file: Path) -> list[str]:
    """Return what a document calls a command of this package, between backticks."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`(videomae [a-z][^`]*)`", text)
