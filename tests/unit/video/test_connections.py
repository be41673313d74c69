"""Streams of the network that break off, and playlists: bounded, said, and opened only where a person says so."""

import contextlib
import functools
import http.server
import io
import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from classifiers import bright_classifier
from videomae.errors import VideoError
from videomae.inference.timeline import read_timeline
from videomae.video import stream as stream_module
from videomae.video.reader import VideoReader
from videomae.video.stream import stream_frames
from videos import moving_square, write_video


@contextlib.contextmanager
def serving(handler):
    """Yield the address of a server that answers each request with ``handler``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def camera(num_connections: int, *, frames: int = 8, every: float = 0.05):
    """A camera that hangs up after some pictures, is not there for every second request, and is gone after so many."""
    requests = []

    class Camera(Quiet):
        def do_GET(self):
            requests.append(self.path)
            if len(requests) % 2 == 0 or len(requests) >= 2 * num_connections:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(frames):
                picture = io.BytesIO()
                Image.fromarray(np.full((32, 48, 3), 235, np.uint8)).save(picture, "JPEG")
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.getvalue())}\r\n\r\n"
                self.wfile.write(head.encode() + picture.getvalue() + b"\r\n")
                self.wfile.flush()
                time.sleep(every)

    return Camera


def test_a_camera_that_hangs_up_is_connected_to_again_for_so_long_and_no_longer(monkeypatch, caplog):
    monkeypatch.setattr(stream_module, "RECONNECT_PAUSE", 0.3)
    with serving(camera(2)) as address:
        stream = stream_frames(f"{address}/camera", reconnect=1.5)
        seconds, begin = [], time.monotonic()
        with pytest.raises(VideoError, match=r"broke off after .* did not come back within 1\.5 s"):
            seconds.extend(second for second, _ in stream)
        assert time.monotonic() - begin < 30
    assert len(seconds) >= 14
    assert (np.diff(seconds) >= 0).all()
    (resumed,) = stream.reconnected
    number = seconds.index(resumed)
    assert 0.3 < resumed - seconds[number - 1] < 20  # what the clock on the wall says
    assert [stream.is_gap(*pair) for pair in itertools.pairwise(seconds)].count(True) == 1
    assert "connecting again for 1.5 s" in caplog.text
    assert "was connected again after" in caplog.text


def test_without_being_told_to_nothing_connects_again():
    with serving(camera(2)) as address:
        stream, seconds = stream_frames(f"{address}/camera"), []
        with contextlib.suppress(VideoError):
            seconds.extend(second for second, _ in stream)
    assert 6 <= len(seconds) <= 8
    assert stream.reconnected == []


def test_no_event_spans_the_time_without_a_connection_and_it_is_said(monkeypatch):
    monkeypatch.setattr(stream_module, "RECONNECT_PAUSE", 0.3)
    with serving(camera(2)) as address:
        got = read_timeline(bright_classifier(), f"{address}/camera", window=0.2, hop=0.1, reconnect=1)
    ((start, end),) = got.reconnected
    assert len(got.events) == 2
    assert got.events[0].end <= round(start, 3)
    assert got.events[1].start >= round(end, 3)
    assert not got.is_whole
    assert got.to_dict()["reconnected"] == [{"start": start, "end": end}]
    assert got.notes() == [f"was not connected from {start:.2f} s to {end:.2f} s"]


def test_a_file_whose_server_breaks_off_is_asked_for_the_rest(tmp_path):
    file = write_video(tmp_path / "video.ts", moving_square(60, 128, 128), gop=6)
    content = file.read_bytes()

    class Breaking(Quiet):
        def do_GET(self):
            begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : begin + len(content) // 3])

    with serving(Breaking) as address:
        stream = stream_frames(f"{address}/video.ts", reconnect=20)
        streamed = list(stream)
    with VideoReader(file) as reader:
        expected = list(reader)
    assert [second for second, _ in streamed] == pytest.approx([second for second, _ in expected])
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(streamed, expected, strict=True))
    assert stream.reconnected == []


@pytest.mark.parametrize(("source", "seconds"), [("video.mp4", 10), ("http://127.0.0.1:9/a", 0)])
def test_only_urls_are_connected_to_again_and_for_a_time(source, seconds):
    with pytest.raises(ValueError, match="reconnect must be seconds above 0, for a URL"):
        stream_frames(source, reconnect=seconds)


# ------------------------------------------------------------------------------------------------- playlists


@pytest.fixture
def segments(tmp_path):
    """Two seconds of video in two segments, and a secret that no playlist may name."""
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(2):
        write_video(folder / f"part{number}.ts", moving_square(25, seed=number), b_frames=0)
    write_video(tmp_path / "secret.ts", moving_square(25, seed=5), b_frames=0)
    return folder


def hls(*names: str) -> str:
    parts = "".join(f"#EXTINF:1.0,\n{name}\n" for name in names)
    return f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n{parts}#EXT-X-ENDLIST\n"


def test_a_playlist_is_followed_where_a_person_says_so(segments):
    (segments / "list.m3u8").write_text(hls("part0.ts", "part1.ts"))
    (segments / "list.ffconcat").write_text("ffconcat version 1.0\nfile part0.ts\nfile part1.ts\n")
    with serving(functools.partial(Quiet, directory=segments)) as address:
        for source in (f"{address}/list.m3u8", segments / "list.m3u8", segments / "list.ffconcat"):
            frames = list(stream_frames(source, follow_playlist=True))
            assert len(frames) == 50, source
            with pytest.raises(VideoError, match="playlist"):
                next(stream_frames(source))


def test_a_playlist_of_the_network_opens_no_file_and_a_local_one_none_elsewhere(segments, tmp_path):
    secret = tmp_path / "secret.ts"
    (segments / "file.m3u8").write_text(hls(f"file://{secret}"))
    (segments / "path.m3u8").write_text(hls(str(secret)))
    (segments / "up.ffconcat").write_text(f"ffconcat version 1.0\nfile {secret}\n")
    with serving(functools.partial(Quiet, directory=segments)) as address:
        for source in (f"{address}/file.m3u8", f"{address}/path.m3u8", segments / "up.ffconcat"):
            with pytest.raises(VideoError):
                list(stream_frames(source, follow_playlist=True))


def test_a_playlist_that_names_itself_ends(segments):
    (segments / "loop.m3u8").write_text(hls("loop.m3u8"))
    begin = time.monotonic()
    with serving(functools.partial(Quiet, directory=segments)) as address, pytest.raises(VideoError):
        list(stream_frames(f"{address}/loop.m3u8", follow_playlist=True))
    assert time.monotonic() - begin < 60


def test_what_is_no_playlist_by_its_name_is_not_followed(segments):
    with pytest.raises(VideoError, match="is no playlist by its ending"):
        next(stream_frames(segments / "part0.ts", follow_playlist=True))
