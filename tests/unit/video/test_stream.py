"""Streams: their frames are upright, their time never goes back, and one that is silent is an error, not a wait."""

import functools
import http.server
import logging
import os
import socket
import tempfile
import threading

import numpy as np
import pytest

from videomae.errors import VideoError
from videomae.video import stream as stream_module
from videomae.video.reader import VideoReader
from videomae.video.stream import _Clock, is_stream, stream_frames
from videos import moving_square, write_video


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def seconds_of(stamps, *, step=0.1):
    clock = _Clock("camera", step=step)
    return [round(clock(stamp), 6) for stamp in stamps]


def test_time_follows_the_stamps_from_zero():
    assert seconds_of([100, 100.1, 100.4, 103]) == [0, 0.1, 0.4, 3]


@pytest.mark.parametrize("restarted", [[0, 0.1, 0.3], [9000, 9000.1, 9000.3]])
def test_stamps_that_go_back_or_jump_go_on_from_frame_to_frame_and_are_told(restarted, caplog):
    assert seconds_of([5, 5.1, 5.2, *restarted]) == [0, 0.1, 0.2, 0.3, 0.4, 0.6]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"jump by {restarted[0] - 5.2:.3f} s after 0.200 s" in record.getMessage()


def test_frames_without_stamps_follow_from_the_rate():
    assert seconds_of([None, None, None, 50, 50.1]) == [0, 0.1, 0.2, 0.3, 0.4]


def test_a_slow_stream_is_no_jump(caplog):
    assert seconds_of([0, 15, 30], step=15) == [0, 15, 30]
    assert not caplog.records


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_stream_whose_clock_was_set_goes_on(tmp_path, caplog):
    times = [i / 25 for i in range(20)] + [500 + i / 25 for i in range(20)]
    file = write_video(tmp_path / "jump.mkv", moving_square(40), times=times, b_frames=0)
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(file.read_bytes()), daemon=True).start()
    seconds = [second for second, _ in stream_frames(tmp_path / "pipe")]
    assert len(seconds) == 40
    assert seconds[-1] < 3
    assert min(np.diff(seconds)) >= 0
    assert "jump" in caplog.text


def test_a_streams_frames_are_upright(tmp_path):
    file = write_video(tmp_path / "turned.mp4", moving_square(12), rotation=90)
    with VideoReader(file) as reader:
        upright = [frame for _, frame in reader]
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        streamed = [frame for _, frame in stream_frames(f"http://127.0.0.1:{server.server_port}/turned.mp4")]
        server.shutdown()
    assert upright[0].shape == (96, 64, 3)
    assert all(np.array_equal(a, b) for a, b in zip(upright, streamed, strict=True))


def test_an_address_that_never_answers_is_an_error(monkeypatch):
    monkeypatch.setattr(stream_module, "OPEN_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/camera"
        with pytest.raises(VideoError, match=r"no answer for 0\.2 s"):
            next(stream_frames(url))


def test_a_reader_gives_the_frames_of_a_stretch(tmp_path):
    with VideoReader(write_video(tmp_path / "video.mp4", moving_square(40))) as reader:
        every = list(reader)
        for first, last in ((0, None), (13, 27), (39, 40), (40, None), (5, 5)):
            stretch = list(reader.frames(first, last))
            assert [time for time, _ in stretch] == [time for time, _ in every[first:last]]
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(stretch, every[first:last], strict=True))
        for first, last in ((-1, 5), (0, 41), (7, 6)):
            with pytest.raises(VideoError, match="has no frames"):
                next(reader.frames(first, last))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_read_as_it_comes(tmp_path):
    import av

    video = write_video(tmp_path / "video.mp4", moving_square(160), fps=16)
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


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no memory disk on this system")
def test_a_file_on_the_memory_disk_is_no_stream():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        assert not is_stream(file.name)
    assert is_stream("/dev/video99")
