"""The back end ``torchcodec`` must give the frames that the default one gives, or say that it does not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from support import shared_dir
from videomae.errors import VideoError
from videomae.video.backends.torchcodec import decoder_class
from videomae.video.reader import VideoReader
from videos import moving_square, write_video

try:
    decoder_class()
    reason = ""
except ImportError as error:
    reason = str(error)
needs_torchcodec = pytest.mark.skipif(bool(reason), reason=reason)

MEAN_LEVELS = 1.5  # colours are converted in another way, so pixels differ by a few levels


def check_same(path: Path) -> None:
    with VideoReader(path) as expected, VideoReader(path, backend="torchcodec") as reader:
        count = len(expected)
        assert len(reader) == count
        np.testing.assert_array_equal(reader.times, expected.times)
        for name in ("fps", "duration", "width", "height", "rotation", "codec", "pixel_format"):
            assert getattr(reader, name) == getattr(expected, name)
        for indices in ([0], [count - 1], [count // 2, 0, 0, count - 1], range(count // 3, min(count // 3 + 9, count))):
            difference = reader.frames_at(indices).astype(np.int16) - expected.frames_at(indices)
            assert np.abs(difference).mean() < MEAN_LEVELS
        assert sum(1 for _ in reader) == count


@needs_torchcodec
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b-frames.mp4", {"b_frames": 3}),
        ("one-group.mkv", {"gop": 250}),
        ("variable-rate.mp4", {"times": np.cumsum([0.04 + 0.1 * (i % 7 == 0) for i in range(60)])}),
        ("turned.mp4", {"rotation": 90}),
    ],
)
def test_frames_are_those_of_the_default_back_end(name, options, tmp_path):
    check_same(write_video(tmp_path / name, moving_square(), **options))


@needs_torchcodec
@pytest.mark.parametrize("name", ["rate_29_97.mp4", "rotation_180.mov", "variable_rate.mp4", "no_duration.webm"])
def test_shared_clips_are_read_alike(name):
    check_same(shared_dir("clips") / name)


@needs_torchcodec
def test_a_binary_file_object_is_read(tmp_path):
    path = write_video(tmp_path / "video.mp4", moving_square(20))
    with path.open("rb") as file, VideoReader(file, backend="torchcodec") as reader:
        assert reader.frames_at([19]).shape == (1, 64, 96, 3)


@needs_torchcodec
def test_damage_is_reported():
    path = shared_dir("clips") / "corrupted_28_of_50.mp4"
    with pytest.raises(VideoError, match="is damaged"), VideoReader(path, backend="torchcodec") as reader:
        reader.frames_at([49])


def test_what_is_not_a_video_is_refused_alike(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"a\.mp4 must be a video file"):
        VideoReader(tmp_path / "a.mp4", backend="torchcodec")


def test_a_missing_package_is_no_fault_of_the_video(monkeypatch, tmp_path):
    """A data set skips videos that raise VideoError: it must not skip all of them for want of a package."""
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    path = write_video(tmp_path / "video.mp4", moving_square(4))
    with pytest.raises(ImportError, match=r"needs the package torchcodec \(pip install"):
        VideoReader(path, backend="torchcodec")
