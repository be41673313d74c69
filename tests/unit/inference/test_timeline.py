"""Long videos: windows show what the video shows at their times, each frame is decoded once, events have hysteresis."""

import functools
import http.server
import os
import signal
import threading
import time

import numpy as np
import pytest

from classifiers import LIGHT, bright_classifier, bright_until, long_video
from videomae.errors import VideoError
from videomae.inference.timeline import Window, merge_events, read_timeline
from videomae.video.stream import FrameStream
from videos import write_video as write_stamped


@pytest.fixture
def classifier():
    return bright_classifier()


@pytest.fixture
def video(tmp_path):
    return long_video(tmp_path / "long video.mp4")


def windows(*scores):
    return [Window(i, i + 2.0, np.float32([1 - s, s])) for i, s in enumerate(scores)]


def test_an_event_begins_high_and_ends_low():
    found = merge_events(windows(0.1, 0.4, 0.6, 0.35, 0.2, 0.4, 0.1), LIGHT, hop=1, end=8, threshold=0.5)
    bright = [event for event in found if event.label == "bright"]
    assert [(event.start, event.end) for event in bright] == [(1.5, 4.5)]
    assert bright[0].score == pytest.approx((0.4 + 0.6 + 0.35) / 3)


def test_events_reach_to_the_ends_of_the_video():
    (event,) = merge_events(windows(0.9, 0.9, 0.9), LIGHT, hop=1, end=4.2)
    assert (event.label, event.start, event.end) == ("bright", 0.0, 4.2)


def test_short_events_are_left_out_on_request():
    found = merge_events(windows(0.0, 0.9, 0.0), LIGHT, hop=1, end=4, min_length=1.2)
    assert [event.label for event in found] == ["dark", "dark"]


def test_an_end_above_the_beginning_is_refused():
    with pytest.raises(ValueError, match="exit_threshold"):
        merge_events(windows(0.9), LIGHT, hop=1, end=2, threshold=0.5, exit_threshold=0.6)


def test_events_fall_where_the_video_changes_and_each_frame_is_decoded_once(classifier, video):
    timeline = read_timeline(classifier, video, window=1, hop=0.5)
    bright = [event for event in timeline.events if event.label == "bright"]
    assert len(bright) == 1
    assert bright[0].start == pytest.approx(4, abs=0.5)
    assert bright[0].end == pytest.approx(7, abs=0.5)
    assert timeline.num_frames == 160


def test_a_file_whose_stamps_begin_later_counts_from_its_first_frame(classifier, tmp_path):
    frames = np.full((80, 32, 48, 3), 20, np.uint8)
    frames[32:] = 235
    late = write_stamped(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(80)])
    timeline = read_timeline(classifier, late, window=1, hop=0.5)
    assert len(timeline.windows) == 9
    assert timeline.events[-1].end == pytest.approx(5, abs=0.01)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_stream_over_http_gives_the_same(classifier, video):
    handler = functools.partial(QuietHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/long%20video.mp4"
        streamed = read_timeline(classifier, url, window=1, hop=0.5)
        server.shutdown()
    assert streamed.events == read_timeline(classifier, video, window=1, hop=0.5).events


def test_an_address_that_answers_nothing_is_one_error(classifier):
    with pytest.raises(VideoError, match="Check the address, and that it sends"):
        read_timeline(classifier, "http://127.0.0.1:9/none.mp4")


@pytest.mark.parametrize("options", [{"window": 0}, {"hop": 0}, {"window": 1, "hop": 2}, {"batch_size": 0}])
def test_windows_without_sense_are_refused(classifier, video, options):
    with pytest.raises(ValueError, match=r"above 0|gaps"):
        read_timeline(classifier, video, **options)


@pytest.mark.parametrize("error", [VideoError("connection lost"), KeyboardInterrupt()])
def test_a_stream_that_ends_early_keeps_what_was_seen(classifier, monkeypatch, error):
    monkeypatch.setattr(FrameStream, "_of_stream", lambda stream: bright_until(error))
    seen = read_timeline(classifier, "rtsp://camera", window=1, hop=0.5, batch_size=1)
    assert [event.label for event in seen.events] == ["bright"]
    assert seen.error == (str(error) or None)
    assert seen.to_dict()["error"] == seen.error


def test_a_file_that_ends_early_keeps_what_was_seen_unless_told_to_raise(classifier, monkeypatch):
    monkeypatch.setattr(FrameStream, "_of_file", lambda stream: bright_until(VideoError("the disk is gone")))
    seen = read_timeline(classifier, "video.mp4", window=1, hop=0.5)
    assert [event.label for event in seen.events] == ["bright"]
    assert seen.error == "the disk is gone"
    with pytest.raises(VideoError, match="the disk is gone"):
        read_timeline(classifier, "video.mp4", window=1, hop=0.5, on_error="raise")


def test_ctrl_c_ends_the_reading_of_a_file(classifier, monkeypatch):
    monkeypatch.setattr(FrameStream, "_of_file", lambda stream: bright_until(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read_timeline(classifier, "video.mp4", window=1, hop=0.5)


def silent_after(frames, arrived):
    yield from ((i / 10, np.full((32, 48, 3), 235, np.uint8)) for i in range(frames))
    arrived.set()
    threading.Event().wait(60)


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, also where the shell has started the tests in the background and so has SIGINT ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on this system")
def test_ctrl_c_ends_a_stream_that_has_fallen_silent(classifier, monkeypatch, interruptible):
    monkeypatch.setattr("videomae.video.clips.GRACE", 0.1)
    arrived, begin = threading.Event(), time.monotonic()
    monkeypatch.setattr(FrameStream, "_of_stream", lambda stream: silent_after(30, arrived))

    def interrupt():
        arrived.wait(30)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    seen = read_timeline(classifier, "rtsp://camera", window=1, hop=0.5, batch_size=1)
    assert [event.label for event in seen.events] == ["bright"]
    assert time.monotonic() - begin < 30
