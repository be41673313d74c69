import numpy as np
import pytest
from tests.videos import write_video

from videomae.data.dataset import VideoDataset
from videomae.data.manifest import Sample
from videomae.data.mirroring import Mirroring, direction_classes, resolve_mirroring
from videomae.video.sampling import ClipSampling


def test_classes_that_name_a_direction_are_noticed():
    names = ("04_V_Swiping_Left", "SwipeRight", "turn left", "CW_Rotation", "CCWRotation", "upright", "Bright", "cleft")
    assert direction_classes(names) == names[:5]
    assert len(direction_classes(sides := ("Leftward", "ClockWise", "righthand", "turn anti clockwise"))) == len(sides)


def test_clips_keep_their_labels_where_no_class_names_a_side():
    assert resolve_mirroring(None, ["walk", "run"]) == (0.5, None)
    assert resolve_mirroring(0.3, ["walk", "run"]) == (0.3, None)


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (["Push", "V_Swiping_Left", "V_Swiping_Right"], (0, 2, 1)),
        (["04_swipe left", "05_swipe right", "06_wave"], (1, 0, 2)),
        (["CCW_Rotation", "CW_Rotation"], (1, 0)),
        (["TurnCCW", "turn clockwise"], (1, 0)),
        (["anti-clockwise", "clockwise", "still"], (1, 0, 2)),
        (["counter clockwise", "clockwise"], (1, 0)),
        (["from left to right", "from right to left"], (1, 0)),
        (["leftward", "rightwards", "rightward", "leftwards"], (2, 3, 0, 1)),
        (["left_1", "left_2", "right_2", "right_1"], (3, 2, 1, 0)),
        (["\u5de6 left", "\u53f3 left", "\u53f3 right", "\u5de6 right"], (3, 2, 1, 0)),
    ],
)
def test_a_mirrored_clip_takes_the_label_of_the_other_side(classes, labels):
    assert resolve_mirroring(None, classes) == (0.0, Mirroring(0.5, labels))
    assert resolve_mirroring(0.2, classes) == (0.0, Mirroring(0.2, labels))


@pytest.mark.parametrize(
    "classes",
    [
        ["left", "walk"],
        ["left", "right", "turn clockwise"],
        ["01_left", "02_left", "03_right", "04_right"],  # which is whose is not known
    ],
)
def test_nothing_is_mirrored_unasked_where_a_side_has_no_other(classes):
    assert resolve_mirroring(None, classes) == (0.0, None)
    assert resolve_mirroring(0.4, classes) == (0.4, None)


def test_a_data_set_mirrors_pixels_and_label_together(tmp_path):
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    frames[:, :, :8] = 255
    write_video(tmp_path / "left.mp4", frames)
    samples = [Sample("left.mp4", tmp_path / "left.mp4", label=0)] * 40
    mirroring = Mirroring(0.5, (1, 0))
    clips = VideoDataset(samples, sampling=ClipSampling("whole"), training=True, clip_frames=4, mirroring=mirroring)
    sides = []
    for item in clips:
        left, right = item["pixel_values"][..., :8].float().mean(), item["pixel_values"][..., 8:].float().mean()
        assert (left > right) == (item["label"] == 0)
        sides.append(item["label"])
    assert 8 < sum(sides) < 32
    with pytest.raises(ValueError, match="never mirrors"):
        VideoDataset(samples, sampling=ClipSampling("whole"), training=False, mirroring=mirroring)
