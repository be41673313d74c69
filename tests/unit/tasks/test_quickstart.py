import numpy as np
import pytest

from videomae import DataError, VideoClassifier, VideoMAEForVideoClassification, VideoReader
from videomae.tasks.quickstart import QuickstartSettings, quickstart
from videomae.video.synthetic import MOTIONS, motion_video


def test_quickstart_trains_saves_and_predicts(tmp_path):
    seen = []
    settings = QuickstartSettings(out=tmp_path / "q", videos_per_class=4, steps=3, batch_size=4)
    result = quickstart(settings, progress=lambda *stage: seen.append(stage))
    assert result.num_test_videos == 6
    assert 0 <= result.accuracy <= 1
    assert {stage for stage, *_ in seen} == {"making train videos", "making test videos", "training"}
    model = VideoMAEForVideoClassification.from_pretrained(result.model)
    assert list(model.config.id2label.values()) == list(MOTIONS)
    assert len(VideoClassifier.from_pretrained(result.model, device="cpu")(result.example, stride=2)) == 5
    with pytest.raises(DataError, match="exists already"):
        quickstart(settings)


def test_a_seed_draws_the_same_videos(tmp_path):
    videos = [motion_video("moving_up", rng=np.random.default_rng(4), num_frames=3) for _ in range(2)]
    assert np.array_equal(*videos)


@pytest.mark.parametrize(("motion", "axis", "sign"), [("moving_right", 2, 1), ("moving_up", 1, -1)])
def test_the_motion_is_what_the_class_says(motion, axis, sign):
    frames = motion_video(motion, rng=np.random.default_rng(0), num_frames=12, size=64).max(-1) > 150
    shifts = [(np.roll(frames[0], sign * shift, axis - 1) != frames[8]).mean() for shift in range(20)]
    assert 5 <= int(np.argmin(shifts)) <= 15


def test_videos_are_read_back_as_drawn(tmp_path):
    settings = QuickstartSettings(out=tmp_path / "q", videos_per_class=1, steps=1, batch_size=2)
    with VideoReader(quickstart(settings).example) as reader:
        assert (reader.num_frames, reader.width, reader.height, reader.fps) == (32, 64, 64, 16)
