import dataclasses
import json

import numpy as np
import pytest

from classifiers import LIGHT, bright_classifier, long_video
from videomae.inference.timeline import Window, merge_events, read_timeline
from videomae.plots.timeline import draw_timeline, write_overlay, write_timeline
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader
from videos import write_video as write_stamped


@pytest.fixture
def classifier():
    return bright_classifier()


@pytest.fixture
def video(tmp_path):
    return long_video(tmp_path / "long video.mp4")


def test_the_overlay_has_the_frames_of_the_video_and_a_label(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, hop=0.5)
    write_overlay(video, timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as reader, VideoReader(video) as source:
        assert reader.num_frames == 160
        assert reader.fps == pytest.approx(16)
        assert np.abs(reader.times - source.times).max() < 0.002
        assert reader.width >= 320  # enlarged, so that the label can be read
        enlarged = (
            source.frames_at([88])[0].repeat(reader.width // source.width, 0).repeat(reader.width // source.width, 1)
        )
        drawn = np.abs(reader.frames_at([88])[0].astype(int) - enlarged)
    assert np.median(drawn[8:18, 8:60]) > 30
    assert np.median(drawn[-100:-10]) < 10


def test_the_picture_shows_scores_and_events(classifier, video):
    figure = draw_timeline(read_timeline(classifier, video, window=1, hop=0.5), title="a video")
    above, below = figure.axes
    assert len(above.lines) == 2
    assert len(below.patches) >= 3


def test_a_dollar_in_a_name_is_no_formula(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, hop=0.5)
    timeline = dataclasses.replace(timeline, classes=(r"$\foo$", "bright"))
    draw_timeline(timeline, title=r"a$\foo$.mp4").savefig(tmp_path / "p.png")


def test_merging_can_be_done_again_from_the_json(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, hop=0.5, exit_threshold=0.4, min_length=0.5)
    write_timeline(timeline, tmp_path / "t.json")
    stored = json.loads((tmp_path / "t.json").read_text())
    settings = stored["settings"]
    assert settings == {"window": 1, "hop": 0.5, "threshold": 0.5, "exit_threshold": 0.4, "min_length": 0.5}
    again = merge_events(
        [Window(w["start"], w["end"], np.float32(w["scores"])) for w in stored["windows"]],
        stored["classes"],
        end=stored["duration"],
        **{name: value for name, value in settings.items() if name != "window"},
    )
    assert [(e.label, e.start, e.end) for e in again] == [(e.label, e.start, e.end) for e in timeline.events]
    assert stored["classes"] == list(LIGHT)


def test_the_event_of_a_single_frame_lasts_and_is_drawn(classifier, tmp_path):
    write_video(tmp_path / "one.mp4", np.full((1, 32, 48, 3), 235, np.uint8))
    timeline = read_timeline(classifier, tmp_path / "one.mp4")
    (event,) = timeline.events
    assert event.start == 0
    assert event.end == pytest.approx(1 / 16, abs=1e-3)
    write_overlay(tmp_path / "one.mp4", timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as reader:
        assert reader.frames_at([0])[0][:30].min() < 150  # the label's dark ground


def test_the_overlay_of_a_file_whose_stamps_begin_later_begins_at_zero(classifier, tmp_path):
    frames = np.full((80, 32, 48, 3), 20, np.uint8)
    late = write_stamped(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(80)])
    timeline = read_timeline(classifier, late, window=1, hop=0.5)
    write_overlay(late, timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as overlay:
        assert overlay.times[0] == 0
