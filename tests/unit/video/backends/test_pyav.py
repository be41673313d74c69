"""The default back end decodes what is needed and no more."""

import numpy as np
import pytest

from videomae.data.transcode import FAST_TO_DECODE
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.reader import VideoReader
from videos import decode_in_sequence, moving_square, write_video


@pytest.fixture
def opened(monkeypatch) -> list[PyAVDecoder]:
    """The decoders below the readers, in the order they were opened."""
    decoders, really_open = [], PyAVDecoder.open
    monkeypatch.setattr(
        PyAVDecoder, "open", lambda *a, **options: decoders.append(really_open(*a, **options)) or decoders[-1]
    )
    return decoders


def test_a_late_clip_does_not_decode_from_the_start(tmp_path, opened):
    path = write_video(tmp_path / "video.mp4", moving_square(400), gop=20, b_frames=3)
    with VideoReader(path, threads=1) as reader:
        walked = []
        walk = opened[0].decode_from
        opened[0].decode_from = lambda entry: (walked.append(pair[0]) or pair for pair in walk(entry))
        reader.frames_at(range(370, 386))
    assert min(walked) >= 350
    assert len(walked) <= 36


@pytest.mark.parametrize("options", [{}, {"b-pyramid": "none", "bf": "3", "b_strategy": "0"}, FAST_TO_DECODE])
def test_frames_that_nobody_needs_are_left_out_and_the_others_stay_exact(tmp_path, options, opened):
    video = write_video(
        tmp_path / "b.mp4", moving_square(120, 64, 96), codec="libx264", gop=30, b_frames=3, options=options
    )
    expected, _ = decode_in_sequence(video)
    rng = np.random.default_rng(0)
    left_out = 0
    with VideoReader(video, threads=1) as reader:
        for _ in range(60):
            indices = rng.integers(0, 60) + int(rng.integers(1, 5)) * np.arange(15)
            assert np.array_equal(reader.frames_at(indices), expected[indices])
            left_out += len(opened[0].left_out)
            some = rng.integers(0, 120, 5)
            assert np.array_equal(reader.frames_at(some), expected[some])
        assert opened[0].is_trusted
        assert np.array_equal(np.stack([frame for _, frame in reader]), expected)
    assert left_out > 60
