"""What one video may ask for: pixels, packets, time and other files have limits; the other videos are read."""

import os
import struct
import time

import psutil
import pytest

from classifiers import save_light_model
from videomae import VideoReader
from videomae.data.audit.inspect import inspect_video
from videomae.data.copies import prepare
from videomae.data.transcode import Encoding
from videomae.errors import VideoError
from videomae.inference.classifier import predict
from videomae.video.backends import pyav
from videomae.video.limits import ReadLimits
from videomae.video.stream import stream_frames
from videos import moving_square, write_video

MOST_BYTES, MOST_SECONDS = 300e6, 30.0


def huge_gif(side):
    """Thirty bytes that stand for gigabytes of pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0xF0, 0, 0) + bytes(6)
    return head + b",\0\0\0\0" + struct.pack("<HHB", side, side, 0) + b"\x08\x02\0\0\0;"


@pytest.fixture
def folder(tmp_path):
    """A sound video, one of far too many pixels, and a playlist of the sound one under the name of a video."""
    place = tmp_path / "videos"
    place.mkdir()
    write_video(place / "sound.mp4", moving_square(12))
    (place / "bomb.gif").write_bytes(huge_gif(12_000))
    (place / "list.mp4").write_text("ffconcat version 1.0\nfile sound.mp4\n")
    return place


def test_pixels_that_no_memory_holds_are_refused_by_every_reader(folder):
    before, begin = psutil.Process().memory_info().rss, time.monotonic()
    with pytest.raises(VideoError, match=r"12000 x 12000 pixels, and 67,108,864 are the limit.*VIDEOMAE_MAX_PIXELS"):
        VideoReader(folder / "bomb.gif")
    (folder / "larger.gif").write_bytes(huge_gif(16_384))  # which FFmpeg itself refuses
    with pytest.raises(VideoError, match=r"most likely far too large: 67,108,864 pixels are the limit"):
        VideoReader(folder / "larger.gif")
    facts = inspect_video(folder / "bomb.gif")
    assert facts.problem == "unreadable"
    assert "are the limit" in facts.reason
    assert psutil.Process().memory_info().rss - before < MOST_BYTES
    assert time.monotonic() - begin < MOST_SECONDS


def test_the_other_videos_of_a_folder_are_read(folder, tmp_path):
    found = {
        os.path.basename(r.path): r for r in predict([folder], model=save_light_model(tmp_path / "m"), device="cpu")
    }
    assert "are the limit" in found["bomb.gif"].error
    assert "is a playlist of FFmpeg" in found["list.mp4"].error
    assert found["sound.mp4"].predictions
    encoding = Encoding(short_side=32, preset="ultrafast")
    report = prepare(folder, tmp_path / "copies", encoding=encoding, workers=1)
    assert (report.made, sorted(report.unreadable)) == (1, ["bomb.gif", "list.mp4"])


def test_a_limit_is_raised_or_lowered_by_the_environment(folder, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_MAX_PIXELS", "1000")
    with pytest.raises(VideoError, match="1,000 are the limit"):
        VideoReader(folder / "sound.mp4")
    monkeypatch.setenv("VIDEOMAE_MAX_PIXELS", str(96 * 64))
    with VideoReader(folder / "sound.mp4") as reader:
        assert len(reader) == 12
    monkeypatch.setenv("VIDEOMAE_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="VIDEOMAE_MAX_PIXELS must be a number above 0"):
        VideoReader(folder / "sound.mp4")


def test_packets_and_seconds_of_opening_are_bounded(folder, monkeypatch):
    with pytest.raises(VideoError, match=r"holds more than 5 packets.*VIDEOMAE_MAX_PACKETS"):
        VideoReader(folder / "sound.mp4", limits=ReadLimits(max_packets=5))
    monkeypatch.setattr(pyav, "PACKETS_PER_LOOK", 1)
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(pyav.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(VideoError, match=r"takes longer than 60 s to open.*VIDEOMAE_OPEN_SECONDS"):
        VideoReader(folder / "sound.mp4")


def test_memory_that_one_file_wants_in_vain_is_that_files_error(folder, monkeypatch):
    def reformat(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("videomae.video.backends.conversion.FrameConverter._scale", reformat)
    with VideoReader(folder / "sound.mp4", peek=False) as reader, pytest.raises(VideoError, match="more memory than"):
        reader.frames_at([0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_that_nobody_writes_to_is_never_waited_for(folder, tmp_path, monkeypatch):
    os.mkfifo(folder / "pipe.mp4")
    model = save_light_model(tmp_path / "model")
    names = {os.path.basename(result.path) for result in predict([folder], model=model, device="cpu")}
    assert names == {"sound.mp4", "bomb.gif", "list.mp4"}
    with pytest.raises(VideoError, match="is a pipe, which can be read only forwards"):
        VideoReader(folder / "pipe.mp4")
    monkeypatch.setattr("videomae.video.stream.OPEN_TIMEOUT", 0.2)
    with pytest.raises(VideoError, match=r"no answer for 0\.2 s"):
        next(stream_frames(folder / "pipe.mp4"))
