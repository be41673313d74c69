"""Files that are either whole or not there: every save of the project goes through here."""

import csv
import hashlib
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_LONGEST_NAME = 255  # bytes

# What no encoding has: halves of surrogate pairs. Some stand for bytes of file names that are no UTF-8.
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_OF_NO_BYTE = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
_ESCAPED_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` once it is safely on the disk.

    A reader, or a run that is killed half-way, sees the old file or the new one, never a part. The temporary file lies
    in the same folder (a rename between disks copies) and has the same ending (some writers go by it).

    Args:
        path: the file to make or replace; missing folders above it are made.

    Yields:
        The path to write to. If the block raises, that file is removed and ``path`` stays as it was.

    Raises:
        OSError: if nothing can be written there; says so by the name that was given.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    ending = path.suffix if len(path.suffix) < 16 else ""  # a long name has no room for a longer one
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp{ending}")
    try:
        yield temporary
        temporary.chmod(_public_mode())  # some writers make private files
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) == temporary:
            raise _cannot_write(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is durable once the folder is; Windows cannot open folders
        _flush_to_disk(path.parent)


def fitting_name(stem: str, ending: str) -> str:
    """Return the name of a file, cut and marked where it would be longer than the 255 bytes that file systems take."""
    name = stem + ending
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    mark = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:12] + ending
    return os.fsencode(stem)[: _LONGEST_NAME - len(mark)].decode("utf-8", "ignore") + mark


def json_text(content: Any, **layout: Any) -> str:
    """Return JSON that UTF-8 can hold, also where a file's name is no UTF-8."""
    return escaped(json.dumps(content, ensure_ascii=False, **layout))


def escaped(text: str) -> str:
    r"""Return text that UTF-8 can hold: bytes of file names that are no UTF-8 appear as ``\udce9``."""
    return _SURROGATES.sub(lambda found: ascii(found[0])[1:-1], text)


def unescaped(text: str) -> str:
    """Return the file name that `escaped` was given."""
    return _ESCAPED_BYTE.sub(lambda found: chr(int(found[1], 16)), text)


def is_utf8(text: str) -> bool:
    """Tell whether UTF-8 can hold a text as it is, which it cannot where a file's name is no UTF-8."""
    return not _SURROGATES.search(text)


def name_bytes(text: str) -> bytes:
    """Return a list of file names as bytes: UTF-8, and the very bytes of names that are none."""
    return _OF_NO_BYTE.sub(lambda found: ascii(found[0])[1:-1], text).encode("utf-8", "surrogateescape")


@contextmanager
def utf8_address(path: Path) -> Iterator[str]:
    """Yield an address in UTF-8 of a file of any name, for libraries that take no other.

    Names that are no UTF-8 are a matter of Linux, where open files and folders have an address of their own. A file
    that is to be made needs a name in UTF-8; the folders above it may have any.
    """
    if is_utf8(str(path)):
        yield str(path)
        return
    opened, rest = (path.parent, f"/{path.name}") if is_utf8(path.name) else (path, "")
    descriptor = os.open(opened, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}{rest}"
    finally:
        os.close(descriptor)


def lasting_utf8_address(folder: Path) -> str:
    """Return an address as `utf8_address` gives it, of a folder that is made if need be, until this process ends."""
    if is_utf8(str(folder)):
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}"


def check_writable(folder: Path) -> None:
    """Make a folder, and raise an OSError now if a file could not be written there at the end of a long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, indented and with sorted keys, so that two versions compare line by line."""
    with atomic_write(path) as temporary:
        text = json_text(content, indent=2, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_csv(path: str | Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file atomically: UTF-8 (and file names as their bytes), commas, a line feed after each row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_write(path) as temporary:
        temporary.write_bytes(name_bytes(text.getvalue()))


def _cannot_write(path: Path, error: OSError) -> OSError:
    return type(error)(f"cannot write {path} ({error.strerror}): correct the rights, or name another place.")


@cache
def _public_mode() -> int:
    """Return the mode of an ordinary new file, which only setting the umask tells."""
    umask = os.umask(0o022)
    os.umask(umask)
    return 0o666 & ~umask


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
