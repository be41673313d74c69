"""Processes that survive what files do to them."""

import shutil
from pathlib import Path

import pytest

from videomae.data.audit import pool
from videomae.data.audit.inspect import inspect_video
from videomae.data.audit.pool import inspect_videos
from videos import moving_square, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", moving_square(30))


def test_many_files_come_in_order_from_processes(video: Path, tmp_path: Path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    files = [video, empty, tmp_path / "gone.mp4", video]
    facts = list(inspect_videos(files, workers=2, thumbnails={video}))
    assert [Path(fact.file) for fact in facts] == files
    assert [fact.problem for fact in facts] == [None, "empty", "missing", None]
    assert facts[0] == inspect_video(video, thumbnail=True)
    assert facts[0].fingerprint.shape == (10, 8, 8)


MISCHIEF = """
import os, time
from videomae.data.audit import pool
look = pool.inspect_video
def inspect_video(file, **options):
    if "crash" in file.name:
        os.kill(os.getpid(), 9)
    if "hang" in file.name:
        time.sleep(60)
    if "bug" in file.name:
        raise KeyError("a bug")
    print("a library that prints", flush=True)
    return look(file, **options)
pool.inspect_video = inspect_video
pool.serve()
"""


def test_a_crash_and_a_hang_cost_one_file_each(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "PROGRAM", MISCHIEF)
    files = [shutil.copy(video, tmp_path / f"{name}.mp4") for name in ("crash", "a", "hang", "b", "bug", "c")]
    facts = list(inspect_videos(files, workers=1, timeout=2))
    assert [fact.problem for fact in facts] == ["crashed", None, "timed-out", None, "unreadable", None]
    assert "a bug" in (facts[4].reason or "")


def test_processes_that_cannot_start_are_an_error(video: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise every file would be said to crash the decoder."""
    monkeypatch.setattr(pool, "PROGRAM", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="cannot import"):
        list(inspect_videos([video]))


def test_stopping_early_ends_the_processes(video: Path):
    looks = inspect_videos([video] * 50, workers=2)
    next(looks)
    looks.close()
