"""Frames of videos beside each other."""

import numpy as np

from videomae.plots.contact_sheet import frame_strip, frames_between
from videos import write_video


def test_times_of_a_file_whose_stamps_begin_later_count_from_its_start(tmp_path):
    frames = np.full((64, 32, 32, 3), 20, np.uint8)
    frames[32:] = 235
    late = write_video(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(64)])
    strip = np.asarray(frame_strip(frames_between(late, 1.0, 3.0)))
    assert strip[:, :90].mean() < 60
    assert strip[:, -90:].mean() > 200
