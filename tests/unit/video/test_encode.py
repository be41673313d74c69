"""What is written is read back: the frames, their size, their times, and what the file says of itself."""

import av
import numpy as np
import pytest

from videomae.errors import VideoError
from videomae.video.encode import VideoWriter, write_video
from videomae.video.reader import VideoReader
from videos import moving_square


def test_frames_come_back_nearly_as_they_were(tmp_path):
    frames = np.full((20, 64, 96, 3), 10, np.uint8) * np.arange(1, 21, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "a.mp4", frames, fps=10, key_frame_distance=4)
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (len(reader), reader.fps, reader.codec, reader.pixel_format) == (20, 10, "h264", "yuv420p")
        assert np.abs(reader.frames_at(range(20)).astype(int) - frames).max() <= 3


def test_frames_are_resized_and_shown_at_their_ticks(tmp_path):
    ticks = [0, 300, 350, 1000]
    with VideoWriter(tmp_path / "a.mp4", size=(32, 48), fps=10, clock=1000, comment="made here", threads=1) as writer:
        for frame, tick in zip(moving_square(4), ticks, strict=True):
            writer.write(frame, tick=tick)
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (reader.height, reader.width) == (32, 48)
        np.testing.assert_allclose(reader.times, np.array(ticks) / 1000)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == "made here"


@pytest.mark.parametrize(("clock", "tick"), [(None, 0), (1000, None)])
def test_a_tick_needs_a_clock_and_a_clock_needs_ticks(tmp_path, clock, tick):
    with (
        VideoWriter(tmp_path / "a.mp4", size=(64, 96), fps=10, clock=clock) as writer,
        pytest.raises(ValueError, match="Give both, or neither"),
    ):
        writer.write(moving_square(1)[0], tick=tick)


def test_a_video_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(VideoError, match="cannot write"):
        write_video(tmp_path / "odd.mp4", np.zeros((2, 33, 47, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
