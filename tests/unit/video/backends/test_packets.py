"""What is known of a file's packets is remembered until the file changes, and never believed of another file."""

import os
from pathlib import Path

import numpy as np
import pytest

from videomae.data.transcode import FAST_TO_DECODE
from videomae.video.backends import pyav
from videomae.video.backends.packets import IndexCache, state_of
from videomae.video.reader import VideoReader
from videos import decode_in_sequence, moving_square, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", moving_square(), b_frames=3)


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose packets were read; nothing is remembered yet."""
    names = []
    read = pyav.index_packets
    monkeypatch.setattr(pyav, "INDICES", IndexCache(max_frames=150))
    monkeypatch.setattr(
        pyav,
        "index_packets",
        lambda packets, stream, *, name: (names.append(name), read(packets, stream, name=name))[1],
    )
    return names


def test_packets_of_a_file_are_read_once_until_it_changes(video, indexed):
    for _ in range(3):
        VideoReader(video).close()
    assert len(indexed) == 1
    write_video(video, moving_square(40, seed=1), b_frames=3)
    with VideoReader(video) as reader:
        np.testing.assert_array_equal(reader.frames_at(range(40)), decode_in_sequence(video)[0])
    assert len(indexed) == 2


def test_a_file_that_is_replaced_while_it_is_opened_is_not_remembered(video, tmp_path, indexed, monkeypatch):
    other = write_video(tmp_path / "other.mp4", moving_square(), options=FAST_TO_DECODE)
    read = pyav.index_packets
    with monkeypatch.context() as patch:
        patch.setattr(
            pyav,
            "index_packets",
            lambda packets, stream, *, name: (read(packets, stream, name=name), os.replace(other, video))[0],
        )
        VideoReader(video, peek=False).close()
    with VideoReader(video) as reader:
        np.testing.assert_array_equal(reader.frames_at(range(60)), decode_in_sequence(video)[0])
    assert indexed == [str(video)] * 2


def test_an_index_of_another_file_is_not_believed(video, tmp_path, indexed):
    other = write_video(tmp_path / "other.mp4", moving_square(seed=1), options=FAST_TO_DECODE)
    VideoReader(video).close()
    kept = pyav.INDICES.get(state_of(str(video)))
    pyav.INDICES.put(state_of(str(other)), kept)
    with VideoReader(other) as reader:
        np.testing.assert_array_equal(reader.frames_at(range(60)), decode_in_sequence(other)[0])
    assert indexed == [str(video), str(other)]


def test_what_is_remembered_of_files_is_bounded(tmp_path, indexed):
    files = [write_video(tmp_path / f"{number}.mp4", moving_square(60)) for number in range(3)]
    for file in (files[0], files[1], files[0], files[2], files[0], files[1]):  # two of them fit in
        VideoReader(file).close()
    assert indexed == [str(files[number]) for number in (0, 1, 2, 1)]
    long = write_video(tmp_path / "long.mp4", moving_square(160))  # does not fit in, and drives nothing out
    for file in (long, files[1]):
        VideoReader(file).close()
    assert indexed[4:] == [str(long)]
