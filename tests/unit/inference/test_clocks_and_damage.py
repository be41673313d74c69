"""One content gives the same events whatever the clock of its file does; damage costs what is damaged, and is named."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from classifiers import bright_classifier, save_light_model
from videomae.cli import run as videomae
from videomae.errors import VideoError
from videomae.inference.timeline import read_timeline
from videomae.video.reader import VideoReader
from videos import copy_with_sound, damage_packets, drop_ts_packets, shift_packets, write_video

RATE = 16


@pytest.fixture
def classifier():
    return bright_classifier()


def light(*stretches: tuple[float, int]) -> np.ndarray:
    """Frames of these lengths in seconds and levels."""
    levels = np.concatenate([np.full(round(seconds * RATE), level, np.uint8) for seconds, level in stretches])
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 48, 3)).copy()


FIRST, SECOND = light((2, 20), (2, 235)), light((1, 235), (3, 20))


def whole(folder: Path) -> Path:
    return write_video(folder / "whole.mp4", np.concatenate([FIRST, SECOND]), fps=RATE, b_frames=2)


def late(folder: Path) -> Path:
    source = write_video(folder / "source.ts", np.concatenate([FIRST, SECOND]), fps=RATE, b_frames=2)
    return shift_packets(source, folder / "late.ts", lambda number: 36_000)


def joined(folder: Path, *, later: float = 0) -> Path:
    first = write_video(folder / "first.ts", FIRST, fps=RATE, b_frames=2)
    second = write_video(folder / "second.ts", SECOND, fps=RATE, b_frames=2)
    second = shift_packets(second, folder / "later.ts", lambda number: later)
    (folder / "joined.ts").write_bytes(first.read_bytes() + second.read_bytes())
    return folder / "joined.ts"


def through_a_pipe(folder: Path, *, later: float = 0) -> Path:
    file = joined(folder, later=later)
    os.mkfifo(folder / "pipe")
    threading.Thread(target=lambda: (folder / "pipe").write_bytes(file.read_bytes()), daemon=True).start()
    return folder / "pipe"


def bright_seconds(timeline, *, gap: float = 0.0) -> list[tuple[float, float]]:
    """When it is bright, with the gap after four seconds taken out, so that what it divides is one again."""
    found: list[tuple[float, float]] = []
    for event in (event for event in timeline.events if event.label == "bright"):
        begin, end = (time - gap * (time > 4 + gap / 2) for time in (event.start, event.end))
        if found and begin - found[-1][1] < 1 / RATE:
            begin = found.pop()[0]
        found.append((begin, end))
    return found


@pytest.mark.parametrize("make", [whole, late, joined, through_a_pipe])
def test_one_content_gives_the_same_events_in_every_container(make, classifier, tmp_path):
    expected = read_timeline(classifier, whole(tmp_path), window=1, hop=0.25)
    got = read_timeline(classifier, make(tmp_path), window=1, hop=0.25)
    assert (got.num_frames, len(got.windows)) == (expected.num_frames, len(expected.windows))
    np.testing.assert_allclose(bright_seconds(got), bright_seconds(expected), atol=1 / RATE)
    np.testing.assert_allclose(bright_seconds(got), [(2, 5)], atol=0.5)
    assert got.duration == pytest.approx(8, abs=1 / RATE)
    assert (got.gaps, got.damage, got.error) == ((), (), None)


@pytest.mark.parametrize("make", [joined, through_a_pipe])
@pytest.mark.parametrize("jump", [60, 3600, 36_000])
def test_a_jump_of_the_clock_is_a_gap_without_windows_and_events(make, jump, classifier, tmp_path):
    expected = read_timeline(classifier, whole(tmp_path), window=1, hop=0.25)
    got = read_timeline(classifier, make(tmp_path, later=jump), window=1, hop=0.25)
    assert got.num_frames == expected.num_frames
    assert len(got.windows) <= len(expected.windows)
    ((begin, end),) = got.gaps
    assert (begin, end) == pytest.approx((4, jump), abs=0.1)
    assert all(event.end <= begin + 1e-3 or event.start >= end - 1e-3 for event in got.events)
    assert all(window.start <= begin or window.start >= end for window in got.windows)
    np.testing.assert_allclose(bright_seconds(got, gap=end - begin), bright_seconds(expected), atol=0.25)
    assert got.to_dict()["gaps"] == [{"start": begin, "end": end}]


def test_windows_begin_with_the_picture_where_the_sound_is_earlier(classifier, tmp_path):
    path = copy_with_sound(whole(tmp_path), tmp_path / "sound.mp4", picture_at=2)
    got = read_timeline(classifier, path, window=1, hop=0.25)
    assert got.windows[0].start == pytest.approx(2)
    np.testing.assert_allclose(bright_seconds(got), [(4, 7)], atol=0.5)


def test_a_picture_that_stays_is_looked_at_once(classifier, tmp_path, monkeypatch):
    times = [*np.arange(16) / 16, *(41 + np.arange(16) / 16)]
    path = write_video(tmp_path / "screen.mp4", light((1, 235), (1, 20)), times=times)
    scored, really_score = [], classifier.probabilities
    monkeypatch.setattr(
        classifier, "probabilities", lambda clips, **options: scored.extend(clips) or really_score(clips, **options)
    )
    got = read_timeline(classifier, path, window=1, hop=0.5)
    assert len(got.windows) == 83
    assert len(scored) < 10
    (bright,) = [event for event in got.events if event.label == "bright"]
    assert (bright.start, bright.end) == pytest.approx((0, 41), abs=1)


@pytest.fixture
def damaged(tmp_path) -> Path:
    source = write_video(tmp_path / "source.flv", np.concatenate([FIRST, SECOND]), fps=RATE, gop=8, b_frames=2)
    return damage_packets(source, tmp_path / "damaged.flv", {74, 75})


def test_two_bad_packets_cost_two_frames(classifier, damaged, tmp_path):
    expected = read_timeline(classifier, whole(tmp_path), window=1, hop=0.25)
    got = read_timeline(classifier, damaged, window=1, hop=0.25)
    assert got.num_frames == 126
    np.testing.assert_allclose(bright_seconds(got), bright_seconds(expected), atol=1 / RATE)
    assert not got.is_whole
    assert 1 <= len(got.damage) <= 2
    assert all(4.4 < d.start < d.end < 5 for d in got.damage)
    assert "did not decode from 4." in got.notes()[0]


def test_damage_may_end_a_video_or_be_an_error(classifier, damaged):
    ended = read_timeline(classifier, damaged, window=1, hop=0.25, on_error="truncate")
    assert 60 < ended.num_frames <= 76
    assert len(ended.damage) == 1
    with pytest.raises(VideoError, match="is damaged"):
        read_timeline(classifier, damaged, window=1, hop=0.25, on_error="raise")
    with pytest.raises(ValueError, match="on_error must be one of"):
        read_timeline(classifier, damaged, on_error="ignore")


def test_a_stream_goes_on_behind_a_bad_packet(classifier, damaged, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(damaged.read_bytes()), daemon=True).start()
    got = read_timeline(classifier, tmp_path / "pipe", window=1, hop=0.25)
    assert got.num_frames == 126
    assert got.damage
    np.testing.assert_allclose(bright_seconds(got), [(2, 5)], atol=0.5)


def test_lost_packets_of_a_broadcast_are_named(classifier, tmp_path):
    source = write_video(tmp_path / "source.ts", np.concatenate([FIRST, SECOND]), fps=RATE, gop=8, b_frames=2)
    got = read_timeline(classifier, drop_ts_packets(source, tmp_path / "lost.ts", fraction=0.03), window=1, hop=0.25)
    assert got.num_frames > 100
    assert got.damage
    assert got.duration == pytest.approx(8, abs=0.3)


def test_a_broadcast_that_begins_within_a_group_is_not_damaged(classifier, tmp_path):
    source = write_video(tmp_path / "source.ts", np.concatenate([FIRST, SECOND]), fps=RATE, gop=8, b_frames=0)
    packets = [source.read_bytes()[i : i + 188] for i in range(0, source.stat().st_size, 188)]
    (tmp_path / "cut.ts").write_bytes(b"".join(packets[:3] + packets[10:]))
    got = read_timeline(classifier, tmp_path / "cut.ts", window=1, hop=0.25)
    assert 100 < got.num_frames <= 128
    assert got.error is None


def test_the_command_names_damage_and_goes_on(damaged, tmp_path, capsys):
    model = save_light_model(tmp_path / "model")
    sound = whole(tmp_path)
    arguments = ["predict", str(damaged), str(sound), "--model", str(model), "--json"]
    for extra in (["--views", "8x1"], ["--window", "1s"], ["--window", "16"]):
        assert videomae([*arguments, *extra]) == 1
        captured = capsys.readouterr()
        first, second = map(json.loads, captured.out.splitlines())
        assert (first["error"], second["error"], second["damage"]) == (None, None, [])
        assert first["damage"][0].keys() == {"start", "end", "reason"}
        assert all(4.4 < found["start"] < found["end"] < 5 for found in first["damage"])
    assert videomae([*arguments, "--window", "1s", "--on-error", "raise"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "is damaged at frame" in first["error"]
    assert second["events"]


def test_an_overlay_of_a_damaged_video_has_what_decodes(classifier, damaged, tmp_path):
    from videomae.plots.timeline import write_overlay

    timeline = read_timeline(classifier, damaged, window=1, hop=0.25)
    write_overlay(damaged, timeline, tmp_path / "overlay.mp4")
    with VideoReader(tmp_path / "overlay.mp4") as reader:
        assert len(reader) == 126


def test_an_overlay_that_cannot_be_written_is_one_error_after_the_timeline(tmp_path, capsys):
    model, video = save_light_model(tmp_path / "model"), joined(tmp_path, later=36_000)
    arguments = ["predict", str(video), "--model", str(model), "--window", "1s", "--json"]
    assert videomae([*arguments, "--overlay", str(tmp_path / "overlay.mp4")]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["windows"]
    assert "overlay.mp4 cannot hold frames" in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "overlay.mp4").exists()


def test_a_file_without_times_says_so_and_takes_a_rate(tmp_path, capsys):
    model = save_light_model(tmp_path / "model")
    video = write_video(tmp_path / "camera.h264", np.concatenate([FIRST, SECOND]), b_frames=0)
    arguments = ["predict", str(video), "--model", str(model), "--window", "1s", "--json"]
    assert videomae(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["assumed_fps"] == 25
    assert "25 frames per second are assumed" in captured.err
    assert videomae([*arguments, "--fps", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["assumed_fps"] is None
    assert told["windows"][-1]["end"] == pytest.approx(32, abs=1)


@pytest.mark.parametrize("first", [0, 24])
def test_what_a_lost_key_frame_takes_with_it_is_damage_too(classifier, first, tmp_path):
    """Without it FFmpeg gives nothing, and says nothing, until the next; at the beginning of a file as behind it."""
    file = damage_packets(whole(tmp_path), tmp_path / "damaged.mp4", {first})
    for source in (file, through_pipe_of(file)):
        got = read_timeline(classifier, source, window=1, hop=0.25)
        (stretch,) = got.damage
        assert stretch.start == pytest.approx(first / RATE, abs=2.5 / RATE)
        assert got.num_frames <= 126
        if first == 0:
            assert stretch.end == pytest.approx(12 / RATE, abs=0.01)
    with pytest.raises(VideoError, match="is damaged at frame"), VideoReader(file) as reader:
        list(reader)


def through_pipe_of(file: Path) -> Path:
    pipe = file.with_name("pipe of it")
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True).start()
    return pipe
