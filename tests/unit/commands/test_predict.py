import json
import os
import signal
import threading
import time

import av
import numpy as np
import pytest
import torch

from classifiers import LIGHT, bright_until, long_video, save_light_model
from videomae import VideoMAEForVideoClassification
from videomae.cli import run as videomae
from videomae.errors import VideoError
from videomae.video.stream import FrameStream


@pytest.fixture
def saved(tmp_path):
    return save_light_model(tmp_path / "model")


@pytest.fixture
def video(tmp_path):
    return long_video(tmp_path / "long video.mp4")


def test_the_command_writes_timeline_plot_and_overlay(saved, video, tmp_path, capsys):
    files = {"timeline": tmp_path / "t.csv", "plot": tmp_path / "p.png", "overlay": tmp_path / "o.mp4"}
    outputs = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    arguments = [str(video), "--model", str(saved), "--window", "2s", "--hop", "1s", "--threshold", "0.1", "--json"]
    assert videomae(["predict", *arguments, *outputs]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {event["label"] for event in found["events"]} == set(LIGHT)
    assert files["timeline"].read_text().splitlines()[0] == "label,start,end,score"
    assert all(file.stat().st_size for file in files.values())


def test_windows_may_be_counted_in_frames(saved, video, capsys):
    assert videomae(["predict", str(video), "--model", str(saved), "--window", "32", "--hop", "16", "--json"]) == 0
    starts = [window["start"] for window in json.loads(capsys.readouterr().out)["windows"]]
    assert starts[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--window", "two"], "such as 2s"),
        (["--hop", "1s"], "--hop needs --window"),
        (["--stride", "1s"], "needs --window"),
        (["--window", "2s", "--stride", "1s"], "write --hop 1s"),
        (["--plot", "p.png"], "needs --window"),
        (["--threshold", "0.5"], "--threshold needs --window"),
        (["--exit-threshold", "0.3"], "--exit-threshold needs --window"),
        (["--min-length", "0"], "--min-length needs --window"),
        (["--window", "2s", "--exit-threshold", "0.6"], "exit_threshold not above it"),
        (["--window", "2s", "--top-k", "2"], "needs --json"),
        (["--window", "2s", "--top-k", "0", "--json"], "at least 1"),
        (["--window", "infs"], "such as 2s"),
        (["--window", "2s", "--threshold", "1.5"], "up to 1"),
        (["--window", "2s", "--views", "5x3"], "leave it out"),
        (["--window", "2s", "--protocol", "k400"], "leave it out"),
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


def test_a_file_that_cannot_be_read_is_named_and_the_exit_code_tells(saved, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    assert videomae(["predict", str(tmp_path / "broken.mp4"), "--model", str(saved), "--window", "2s"]) == 1
    assert "broken.mp4" in capsys.readouterr().err


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


def camera_until_sigterm():
    for i in range(100_000):
        yield i / 10, np.full((32, 48, 3), 235, np.uint8)
        time.sleep(0.001)
        if i == 60:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on this system")
def test_a_stream_prints_a_line_per_window_and_ends_with_sigterm(saved, monkeypatch, capsys):
    monkeypatch.setattr(FrameStream, "_of_stream", lambda stream: camera_until_sigterm())
    before = signal.getsignal(signal.SIGTERM)
    arguments = ["predict", "rtsp://camera", "--model", str(saved), "--window", "1s", "--hop", "0.5s", "--json"]
    assert videomae(arguments) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(lines) == len(last["windows"]) > 1
    assert lines[1].keys() == {"path", "start", "end", "label", "score"}
    assert (lines[1]["path"], lines[1]["start"], lines[1]["end"]) == ("rtsp://camera", 0.5, 1.5)
    assert last["events"]
    assert last["error"] is None


def test_a_stream_that_broke_off_shows_in_the_exit_code(saved, monkeypatch, capsys):
    monkeypatch.setattr(FrameStream, "_of_stream", lambda stream: bright_until(VideoError("connection lost")))
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


def test_what_is_printed_is_short_and_has_the_settings(saved, video, capsys):
    arguments = ["predict", str(video), "--model", str(saved), "--window", "2s", "--exit-threshold", "0.2", "--json"]
    for extra, keys in (([], set()), (["--top-k", "2"], {"top"})):
        assert videomae([*arguments, *extra]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["settings"]["model"] == str(saved)
        assert (found["settings"]["threshold"], found["settings"]["exit_threshold"]) == (0.5, 0.2)
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


def test_a_name_in_brackets_is_printed_whole(saved, video, tmp_path, capsys):
    model = VideoMAEForVideoClassification.from_pretrained(saved)
    torch.nn.init.zeros_(model.classifier.weight)  # so sure that a score rounds to 1 it must not be
    model.save_pretrained(saved)
    named = video.rename(tmp_path / "Show [abc].mp4")
    assert videomae(["predict", str(named), "--model", str(saved), "--window", "2s", "--threshold", "1"]) == 0
    assert "Show [abc].mp4: nothing reaches the threshold 1" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="the standard input has no name on this system")
def test_a_dash_is_the_standard_input(saved, video, tmp_path, capsys):
    """Through a pipe, and as a file that is redirected to it."""
    before = os.dup(0)
    reading, writing = os.pipe()
    content = write_ts(video, tmp_path / "video.ts").read_bytes()

    def feed():
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    threading.Thread(target=feed, daemon=True).start()
    try:
        for descriptor in (reading, os.open(video, os.O_RDONLY)):
            os.dup2(descriptor, 0)
            assert videomae(["predict", "-", "--model", str(saved), "--window", "2s", "--json"]) == 0
            found = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert (found["path"], found["error"], len(found["windows"])) == ("/dev/stdin", None, 9)
            os.close(descriptor)
    finally:
        os.dup2(before, 0)
        os.close(before)


def write_ts(source, target):
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writing.mux(packet)
    return target
