"""Streams: their frames are upright, their time never goes back, and one that is silent is an error, not a wait."""

import contextlib
import functools
import http.server
import io
import os
import socket
import tempfile
import threading
import time

import numpy as np
import pytest
from PIL import Image, features

from videomae.errors import VideoError
from videomae.video import stream as stream_module
from videomae.video.reader import VideoReader
from videomae.video.stream import is_stream, stream_frames
from videos import moving_square, shift_packets, write_video


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize(("jump", "gaps"), [(500, 1), (0, 0)])
def test_a_pipe_has_the_clock_of_the_file(jump, gaps, tmp_path):
    """A clock that jumps ahead leaves a gap; one that begins anew goes on from frame to frame."""
    source = write_video(tmp_path / "source.ts", moving_square(20), b_frames=2)
    later = shift_packets(source, tmp_path / "later.ts", lambda number: jump)
    file = tmp_path / "joined.ts"
    file.write_bytes(source.read_bytes() + later.read_bytes())
    with VideoReader(file) as reader:
        expected, frames = reader.times, list(reader)
        assert len(reader.gaps) == gaps
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(file.read_bytes()), daemon=True).start()
    streamed = list(stream_frames(tmp_path / "pipe"))
    np.testing.assert_allclose([second for second, _ in streamed], expected, atol=1e-6)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(frames, streamed, strict=True))


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


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends pictures without times, five in a second."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for image in moving_square(12, 32, 48):
            picture = io.BytesIO()
            Image.fromarray(image).save(picture, "JPEG")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.getvalue())}\r\n\r\n"
            self.wfile.write(head.encode() + picture.getvalue() + b"\r\n")
            self.wfile.flush()
            time.sleep(0.2)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(("fps", "expected"), [(None, 0.2), (2, 0.5)])
def test_a_camera_that_sends_no_times_has_those_of_the_clock_on_the_wall(fps, expected):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seconds = []
        with contextlib.suppress(VideoError):  # it hangs up without a farewell
            for second, _ in stream_frames(f"http://127.0.0.1:{server.server_port}/camera", fps=fps):
                seconds.append(second)
        server.shutdown()
    assert len(seconds) >= 11
    assert seconds[0] == 0
    assert np.median(np.diff(seconds)) == pytest.approx(expected, abs=0.05)
    assert seconds[-1] == pytest.approx(expected * (len(seconds) - 1), rel=0.35)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_an_mp4_whose_index_is_at_its_end_cannot_come_through_a_pipe_and_it_is_said(on_error, tmp_path):
    """As encoders write them; what is small enough for FFmpeg's buffer is read all the same."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), dtype=np.uint8)
    file = write_video(tmp_path / "video.mp4", noise, options={"qp": "10"})
    assert file.stat().st_size > 200_000
    os.mkfifo(tmp_path / "pipe")

    def feed():
        with contextlib.suppress(BrokenPipeError):
            (tmp_path / "pipe").write_bytes(file.read_bytes())

    threading.Thread(target=feed, daemon=True).start()
    with pytest.raises(VideoError, match=r"index comes after its frames.*faststart"):
        list(stream_frames(tmp_path / "pipe", on_error=on_error))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
@pytest.mark.parametrize("number", [1, 10])
def test_an_animated_picture_is_a_video_of_all_its_frames(number, tmp_path):
    """An animated AVIF holds its first picture beside them, as a stream of its own."""
    pictures = [Image.fromarray(frame) for frame in moving_square(number)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=100)
    with VideoReader(tmp_path / "a.avif") as reader:
        assert (len(reader), reader.codec) == (number, "av1")
        assert reader.duration == pytest.approx(number / 10) or number == 1
    assert len(list(stream_frames(tmp_path / "a.avif"))) == number
