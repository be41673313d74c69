"""Frames are turned upright as the file's display matrix asks for."""

import av
import numpy as np
import pytest

from videomae.video.backends.orientation import format_of, upright
from videos import moving_square, write_video


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_stored_frame_becomes_upright(rotation, mirror, tmp_path):
    path = write_video(tmp_path / "video.mp4", moving_square(1), rotation=rotation, mirror=mirror)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        stored, found = frame.to_ndarray(format="rgb24"), format_of(frame)
    expected = np.rot90(stored, -rotation // 90)
    expected = expected[:, ::-1] if mirror else expected
    np.testing.assert_array_equal(upright(stored, found.orientation), expected)
    assert (found.height, found.width) == expected.shape[:2]
    assert found.stored_size == (stored.shape[1], stored.shape[0])
