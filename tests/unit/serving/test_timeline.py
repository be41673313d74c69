"""What happens when in a video, told at the end or while it is read."""

import json

import numpy as np
import pytest

from videomae.inference.timeline import read_timeline
from videos import write_video

QUESTION = {"window": 1, "hop": 0.5}


def events_of(client, video, **parameters):
    """Return the server-sent events, as (name, content)."""
    headers = {"accept": "text/event-stream", "content-type": "video/mp4"}
    answer = client.post("/timeline", content=video, params=QUESTION | parameters, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    told = []
    for block in filter(None, answer.text.split("\n\n")):
        name, data = block.split("\n")
        told.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return told


def test_the_events_are_those_of_the_file(client, video, service, tmp_path):
    (tmp_path / "v.mp4").write_bytes(video)
    expected = read_timeline(service.model.classifier, tmp_path / "v.mp4", window=1, hop=0.5)
    found = client.post("/timeline", content=video, params=QUESTION).json()
    assert [(e["label"], e["start"], e["end"]) for e in found["events"]] == [
        (e.label, e.start, e.end) for e in expected.events
    ]
    assert [e["label"] for e in found["events"]] == ["dark", "bright", "dark"]
    assert found["duration"] == pytest.approx(expected.duration)
    assert [(w["start"], w["end"], w["label"]) for w in found["windows"]] == [
        (w.start, w.end, ("dark", "bright")[w.scores.argmax()]) for w in expected.windows
    ]


def test_events_are_told_in_frames_too(client, video):
    bright = client.post("/timeline", content=video, params=QUESTION).json()["events"][1]
    assert bright["start_frame"] == round(bright["start"] * 16)
    assert bright["end_frame"] == round(bright["end"] * 16)


def test_frames_count_those_of_a_variable_rate(client, tmp_path):
    """40 frames dark in 4 s, then 10 bright ones in 4 s."""
    times = [*np.arange(40) / 10, *(4 + np.arange(10) / 2.5)]
    frames = np.full((50, 32, 32, 3), 20, np.uint8)
    frames[40:] = 235
    video = write_video(tmp_path / "v.mp4", frames, times=times, b_frames=0).read_bytes()
    dark, bright = client.post("/timeline", content=video, params={"window": 1, "hop": 0.5}).json()["events"]
    assert (dark["start_frame"], bright["end_frame"]) == (0, 50)
    assert 37 <= dark["end_frame"] <= 42


def test_windows_are_told_in_order_and_the_events_last(client, video):
    told = events_of(client, video)
    assert [name for name, _ in told] == ["start", *["window"] * 19, "end"]
    assert told[0][1]["duration"] == pytest.approx(10)
    starts = [content["start"] for name, content in told if name == "window"]
    assert starts == sorted(starts)
    assert told[-1][1]["events"] == client.post("/timeline", content=video, params=QUESTION).json()["events"]


def test_a_video_that_is_streamed_gives_the_same(client, tmp_path):
    frames = np.full((100, 32, 48, 3), 20, np.uint8)
    frames[40:70] = 235
    video = write_video(tmp_path / "v.ts", frames, fps=10, b_frames=0).read_bytes()
    chunks = (video[i : i + 1000] for i in range(0, len(video), 1000))
    live = events_of(client, chunks, live="true")
    whole = events_of(client, video)
    assert live[-1][1]["events"] == whole[-1][1]["events"]
    assert len(live) == len(whole)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": 0.2, "exit_threshold": 0.5}, "exit_threshold not above it"),
        ({"hop": 3}, "hop must lie between"),
        ({"window": 30, "hop": 0.1}, "hop must lie between"),
        ({"label": "bright"}, "no parameter 'label'"),
    ],
)
@pytest.mark.parametrize("live", [{}, {"live": "true"}])
def test_what_is_wrong_from_the_start_has_its_status(client, video, parameters, message, live):
    headers = {"accept": "text/event-stream"}
    answer = client.post("/timeline", content=video, params=QUESTION | parameters | live, headers=headers)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_what_turns_out_to_be_wrong_is_an_event(client, tmp_path):
    """The second half of the packets is damaged."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), np.uint8)
    video = write_video(tmp_path / "v.avi", noise, fps=10, codec="mpeg4", gop=1).read_bytes()
    half = len(video) // 2
    told = events_of(client, video[:half] + bytes(len(video) - half - 2000) + video[-2000:])
    assert told[0][0] == "start"
    assert told[-1][0] in ("error", "end")
