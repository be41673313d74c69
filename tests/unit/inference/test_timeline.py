"""Long videos: windows show what the video shows at their times, each frame is decoded once, events have hysteresis."""

import dataclasses
import functools
import http.server
import json
import os
import signal
import tempfile
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.cli import run as videomae
from videomae.errors import VideoError
from videomae.inference import timeline as timeline_module
from videomae.inference.classifier import VideoClassifier
from videomae.inference.timeline import Window, merge_events, read_timeline
from videomae.plots.timeline import draw_timeline, write_overlay
from videomae.training.runs import make_processor
from videomae.video.clips import read_ahead, slide
from videomae.video.reader import VideoReader
from videomae.video.stream import is_stream, stream_frames
from videomae.video.synthetic import write_video
from videos import write_video as write_stamped

CLASSES = ("dark", "bright")


class BrightModel:
    """Says "bright" where a clip's mean is above that of the pixels' range."""

    config = VideoMAEConfig(image_size=32, num_frames=4, id2label=dict(enumerate(CLASSES)))
    device, dtype = torch.device("cpu"), torch.float32

    def __call__(self, pixel_values, return_dict):
        mean = pixel_values.mean((1, 2, 3, 4))
        return SimpleNamespace(logits=20 * torch.stack([-mean, mean], dim=1))


@pytest.fixture
def classifier():
    return VideoClassifier(BrightModel(), make_processor(BrightModel.config, ((0.5,) * 3, (0.5,) * 3)))


@pytest.fixture
def video(tmp_path):
    """10 seconds at 16 frames per second, bright from 4 to 7."""
    frames = np.full((160, 32, 48, 3), 20, np.uint8)
    frames[64:112] = 235
    write_video(tmp_path / "long video.mp4", frames)
    return tmp_path / "long video.mp4"


def test_a_clip_holds_what_is_on_show_at_its_moments():
    frames = [(i / 10, i) for i in range(40)]
    clips = dict(slide(frames, window=1.0, stride=0.5, num_frames=4))
    assert clips[0.0] == [1, 3, 6, 8]
    assert clips[0.5] == [6, 8, 11, 13]
    assert sorted(clips) == [i / 2 for i in range(len(clips))]
    assert max(clips) == 3.0
    assert clips[3.0][-1] == 38


def test_a_video_shorter_than_a_window_gives_one_clip_that_repeats_its_last_frame():
    assert list(slide([(0.0, "a"), (0.1, "b")], window=4.0, stride=4.0, num_frames=3)) == [(0.0, ["b", "b", "b"])]


def test_held_frames_do_not_grow_with_the_length():
    alive, most = set(), 0

    class Frame:
        def __init__(self, i):
            self.i = i
            alive.add(i)

        def __del__(self):
            alive.discard(self.i)

    for _ in slide(((i / 10, Frame(i)) for i in range(3000)), window=2.0, stride=1.0, num_frames=4):
        most = max(most, len(alive))
    assert most < 25


def windows(*scores):
    return [Window(i, i + 2.0, np.float32([1 - s, s])) for i, s in enumerate(scores)]


def test_an_event_begins_high_and_ends_low():
    found = merge_events(windows(0.1, 0.4, 0.6, 0.35, 0.2, 0.4, 0.1), CLASSES, stride=1, end=8, threshold=0.5)
    bright = [event for event in found if event.label == "bright"]
    assert [(event.start, event.end) for event in bright] == [(1.5, 4.5)]
    assert bright[0].score == pytest.approx((0.4 + 0.6 + 0.35) / 3)


def test_events_reach_to_the_ends_of_the_video():
    (event,) = merge_events(windows(0.9, 0.9, 0.9), CLASSES, stride=1, end=4.2)
    assert (event.label, event.start, event.end) == ("bright", 0.0, 4.2)


def test_short_events_are_left_out_on_request():
    found = merge_events(windows(0.0, 0.9, 0.0), CLASSES, stride=1, end=4, min_length=1.2)
    assert [event.label for event in found] == ["dark", "dark"]


def test_an_end_above_the_beginning_is_refused():
    with pytest.raises(ValueError, match="leave"):
        merge_events(windows(0.9), CLASSES, stride=1, end=2, threshold=0.5, leave=0.6)


def test_events_fall_where_the_video_changes_and_each_frame_is_decoded_once(classifier, video):
    timeline = read_timeline(classifier, video, window=1, stride=0.5)
    bright = [event for event in timeline.events if event.label == "bright"]
    assert len(bright) == 1
    assert bright[0].start == pytest.approx(4, abs=0.5)
    assert bright[0].end == pytest.approx(7, abs=0.5)
    assert timeline.num_frames == 160


def test_a_file_whose_stamps_begin_later_counts_from_its_first_frame(classifier, tmp_path):
    frames = np.full((80, 32, 48, 3), 20, np.uint8)
    frames[32:] = 235
    late = write_stamped(tmp_path / "late.mkv", frames, fps=16, times=[100 + i / 16 for i in range(80)])
    timeline = read_timeline(classifier, late, window=1, stride=0.5)
    assert len(timeline.windows) == 9
    assert timeline.events[-1].end == pytest.approx(5, abs=0.01)
    write_overlay(late, timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as overlay:
        assert overlay.times[0] == 0


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_windows_counted_in_frames_take_evenly_spaced_frames(fps):
    frames = [(i / fps, i) for i in range(200)]
    for _, clip in list(slide(frames, window=64 / fps, stride=16 / fps, num_frames=16))[:8]:
        assert set(np.diff(clip)) == {4}


def test_a_stream_over_http_gives_the_same(classifier, video):
    handler = functools.partial(QuietHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/long%20video.mp4"
        streamed = read_timeline(classifier, url, window=1, stride=0.5)
        server.shutdown()
    assert streamed.events == read_timeline(classifier, video, window=1, stride=0.5).events


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_read_as_it_comes(video, tmp_path):
    import av

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "stream.ts").touch()
    with av.open(str(video)) as source, av.open(str(tmp_path / "stream.ts"), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    writer = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "stream.ts").read_bytes()))
    writer.start()
    assert is_stream(pipe)
    times = [time for time, _ in stream_frames(pipe)]
    writer.join()
    assert len(times) == 160
    assert times[0] == 0
    assert times[-1] == pytest.approx(159 / 16, abs=0.01)


def test_an_address_that_answers_nothing_is_one_error(classifier):
    with pytest.raises(VideoError, match="Is the address right"):
        read_timeline(classifier, "http://127.0.0.1:9/none.mp4")


@pytest.mark.parametrize("options", [{"window": 0}, {"stride": 0}, {"window": 1, "stride": 2}, {"batch_size": 0}])
def test_windows_without_sense_are_refused(classifier, video, options):
    with pytest.raises(ValueError, match=r"above 0|gaps"):
        read_timeline(classifier, video, **options)


def test_the_overlay_has_the_frames_of_the_video_and_a_label(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, stride=0.5)
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


@pytest.fixture
def saved(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, id2label=dict(enumerate(CLASSES)), **sizes)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "model")
    make_processor(config, ((0.5,) * 3, (0.5,) * 3)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_writes_timeline_plot_and_overlay(saved, video, tmp_path, capsys):
    files = {"timeline": tmp_path / "t.csv", "plot": tmp_path / "p.png", "overlay": tmp_path / "o.mp4"}
    outputs = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    arguments = [str(video), "--model", str(saved), "--window", "2s", "--stride", "1s", "--threshold", "0.1", "--json"]
    assert videomae(["predict", *arguments, *outputs]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {event["label"] for event in found["events"]} == set(CLASSES)
    assert files["timeline"].read_text().splitlines()[0] == "label,start,end,score"
    assert all(file.stat().st_size for file in files.values())


def test_windows_may_be_counted_in_frames(saved, video, capsys):
    assert videomae(["predict", str(video), "--model", str(saved), "--window", "32", "--stride", "16", "--json"]) == 0
    starts = [window["start"] for window in json.loads(capsys.readouterr().out)["windows"]]
    assert starts[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--window", "two"], "such as 2s"),
        (["--stride", "1s"], "needs --window"),
        (["--plot", "p.png"], "needs --window"),
        (["--threshold", "0.5"], "--threshold needs --window"),
        (["--leave", "0.3"], "--leave needs --window"),
        (["--min-length", "0"], "--min-length needs --window"),
        (["--window", "2s", "--leave", "0.6"], "leave not above it"),
        (["--window", "2s", "--top-k", "2"], "needs --json"),
        (["--window", "2s", "--top-k", "0", "--json"], "at least 1"),
        (["--window", "infs"], "such as 2s"),
        (["--window", "2s", "--threshold", "1.5"], "up to 1"),
        (["--window", "2s", "--views", "5x3"], "leave it out"),
        (["--window", "2s", "--plot", "p.jpg"], ".png"),
        (["--window", "2s", "--timeline", "t.txt"], ".csv or .json"),
        (["--window", "2s", "--overlay", "o.avi"], "mp4"),
    ],
)
def test_what_does_not_go_together_is_refused(saved, video, capsys, extra, message):
    assert videomae(["predict", str(video), "--model", str(saved), *extra]) == 2
    assert message in capsys.readouterr().err


def test_the_overlay_never_replaces_the_video(saved, video, capsys):
    before = video.read_bytes()
    assert videomae(["predict", str(video), "--model", str(saved), "--window", "2s", "--overlay", str(video)]) == 2
    assert "the video itself" in capsys.readouterr().err
    assert video.read_bytes() == before


def test_windows_of_nothing_are_refused(saved, capsys):
    assert videomae(["predict", "--model", str(saved), "--window", "2s"]) == 2
    assert "name at least one" in capsys.readouterr().err


def frames_until(error):
    for i in range(100):
        yield i / 10, np.full((32, 48, 3), 235, np.uint8)
    raise error


@pytest.mark.parametrize("error", [VideoError("connection lost"), KeyboardInterrupt()])
def test_a_stream_that_ends_early_keeps_what_was_seen_and_a_file_does_not(classifier, monkeypatch, error):
    monkeypatch.setattr(timeline_module, "stream_frames", lambda source: frames_until(error))
    seen = read_timeline(classifier, "rtsp://camera", window=1, stride=0.5, batch_size=1)
    assert [event.label for event in seen.events] == ["bright"]
    assert seen.error == (str(error) or None)
    assert seen.to_dict()["error"] == seen.error
    with pytest.raises(type(error)):
        read_timeline(classifier, "video.mp4", window=1, stride=0.5)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no memory disk on this system")
def test_a_file_on_the_memory_disk_is_no_stream():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        assert not is_stream(file.name)
    assert is_stream("/dev/video99")


def test_a_file_that_cannot_be_read_is_named_and_the_exit_code_tells(saved, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    assert videomae(["predict", str(tmp_path / "broken.mp4"), "--model", str(saved), "--window", "2s"]) == 1
    assert "broken.mp4" in capsys.readouterr().err


def test_the_picture_shows_scores_and_events(classifier, video):
    figure = draw_timeline(read_timeline(classifier, video, window=1, stride=0.5), title="a video")
    above, below = figure.axes
    assert len(above.lines) == 2
    assert len(below.patches) >= 3


def test_a_dollar_in_a_name_is_no_formula(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, stride=0.5)
    timeline = dataclasses.replace(timeline, classes=(r"$\foo$", "bright"))
    draw_timeline(timeline, title=r"a$\foo$.mp4").savefig(tmp_path / "p.png")


def test_a_model_that_answers_nan_is_refused(saved, video, capsys):
    model = VideoMAEForVideoClassification.from_pretrained(saved)
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(saved)
    for extra in ([], ["--window", "2s"]):
        assert videomae(["predict", str(video), "--model", str(saved), "--json", *extra]) == 2
        captured = capsys.readouterr()
        assert "NaN" in captured.err
        assert not captured.out


def test_the_next_item_is_made_meanwhile_and_order_and_errors_stay():
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield i
        raise VideoError("broke off")

    seen = []

    def work():
        for item in read_ahead(items()):
            deadline = time.monotonic() + 5
            while len(made) < min(item + 2, 3) and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append((item, len(made)))

    with pytest.raises(VideoError, match="broke off"):
        work()
    assert seen == [(0, 2), (1, 3), (2, 3)]


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
    monkeypatch.setattr(timeline_module, "stream_frames", lambda source: silent_after(30, arrived))

    def interrupt():
        arrived.wait(30)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    seen = read_timeline(classifier, "rtsp://camera", window=1, stride=0.5, batch_size=1)
    assert [event.label for event in seen.events] == ["bright"]
    assert time.monotonic() - begin < 30


def camera_until_sigterm(source):
    for i in range(100_000):
        yield i / 10, np.full((32, 48, 3), 235, np.uint8)
        time.sleep(0.001)
        if i == 60:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on this system")
def test_a_stream_prints_a_line_per_window_and_ends_with_sigterm(saved, monkeypatch, capsys):
    monkeypatch.setattr(timeline_module, "stream_frames", camera_until_sigterm)
    before = signal.getsignal(signal.SIGTERM)
    arguments = ["predict", "rtsp://camera", "--model", str(saved), "--window", "1s", "--stride", "0.5s", "--json"]
    assert videomae(arguments) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(lines) == len(last["windows"]) > 1
    assert lines[1].keys() == {"path", "start", "end", "label", "score"}
    assert (lines[1]["path"], lines[1]["start"], lines[1]["end"]) == ("rtsp://camera", 0.5, 1.5)
    assert last["events"]
    assert last["error"] is None


def test_a_stream_that_broke_off_shows_in_the_exit_code(saved, monkeypatch, capsys):
    monkeypatch.setattr(timeline_module, "stream_frames", lambda source: frames_until(VideoError("connection lost")))
    assert videomae(["predict", "rtsp://camera", "--model", str(saved), "--window", "1s", "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["error"] == "connection lost"
    assert last["windows"]


def test_a_file_that_cannot_be_read_is_a_json_line_too(saved, video, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    files = [str(tmp_path / "broken.mp4"), str(video)]
    assert videomae(["predict", *files, "--model", str(saved), "--window", "2s", "--json"]) == 1
    broken, sound = map(json.loads, capsys.readouterr().out.splitlines())
    assert (broken["path"], broken["events"], broken["windows"]) == (files[0], [], [])
    assert "broken.mp4" in broken["error"]
    assert sound["windows"]
    assert sound["error"] is None


def test_merging_can_be_done_again_from_the_json(classifier, video, tmp_path):
    timeline = read_timeline(classifier, video, window=1, stride=0.5, leave=0.4, min_length=0.5)
    timeline.save(tmp_path / "t.json")
    stored = json.loads((tmp_path / "t.json").read_text())
    settings = stored["settings"]
    assert settings == {"window": 1, "stride": 0.5, "threshold": 0.5, "leave": 0.4, "min_length": 0.5}
    again = merge_events(
        [Window(w["start"], w["end"], np.float32(w["scores"])) for w in stored["windows"]],
        stored["classes"],
        end=stored["duration"],
        **{name: value for name, value in settings.items() if name != "window"},
    )
    assert [(e.label, e.start, e.end) for e in again] == [(e.label, e.start, e.end) for e in timeline.events]
    assert stored["classes"] == list(CLASSES)


def test_what_is_printed_is_short_and_has_the_settings(saved, video, capsys):
    arguments = ["predict", str(video), "--model", str(saved), "--window", "2s", "--leave", "0.2", "--json"]
    for extra, keys in (([], set()), (["--top-k", "2"], {"top"})):
        assert videomae([*arguments, *extra]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["settings"]["model"] == str(saved)
        assert (found["settings"]["threshold"], found["settings"]["leave"]) == (0.5, 0.2)
        assert found["windows"][0].keys() == {"start", "end", "label", "score"} | keys
    top = found["windows"][0]["top"]
    assert [best["label"] for best in top[:1]] == [found["windows"][0]["label"]]
    assert len(top) == 2


def test_a_window_of_fewer_frames_than_a_clip_is_doubted(saved, video, caplog):
    assert videomae(["predict", str(video), "--model", str(saved), "--window", "2", "--json"]) == 0
    assert "2 frames are fewer than the model's 4; did you mean 2s?" in caplog.text
    caplog.clear()
    assert videomae(["predict", str(video), "--model", str(saved), "--window", "2s", "--json"]) == 0
    assert not caplog.text


def test_the_event_of_a_single_frame_lasts_and_is_drawn(classifier, tmp_path):
    write_video(tmp_path / "one.mp4", np.full((1, 32, 48, 3), 235, np.uint8))
    timeline = read_timeline(classifier, tmp_path / "one.mp4")
    (event,) = timeline.events
    assert event.start == 0
    assert event.end == pytest.approx(1 / 16, abs=1e-3)
    write_overlay(tmp_path / "one.mp4", timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as reader:
        assert reader.frames_at([0])[0][:30].min() < 150  # the label's dark ground


def test_a_name_in_brackets_is_printed_whole(saved, video, tmp_path, capsys):
    named = video.rename(tmp_path / "Show [abc].mp4")
    assert videomae(["predict", str(named), "--model", str(saved), "--window", "2s", "--threshold", "1"]) == 0
    assert "Show [abc].mp4: nothing reaches the threshold 1" in capsys.readouterr().out
