"""What strangers send: each thing costs its sender a clear refusal, and nobody else anything."""

import io
import os
import signal
import struct
import threading
import time
import zipfile
import zlib

import pytest

from support import SHARED, shared_dir
from videos import moving_square, write_video


def ask(client, content, path="/"):
    return client.post(path, content=content, headers={"content-type": "application/octet-stream"})


def archive():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("video.mp4", b"0" * 1000)
    return content.getvalue()


def huge_gif():
    return b"GIF89a" + struct.pack("<HHBBB", 16384, 16384, 0xF0, 0, 0) + bytes(6) + b",\0\0\0\0" + bytes(100) + b";"


def huge_apng():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16384, 16384, 8, 2, 0, 0, 0)
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + control + chunk(b"IDAT", zlib.compress(bytes(100)))


def playlist(path):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n".encode()


HOSTILE = {
    "text": b"not a video",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "zip": archive(),
    "zeros": bytes(100_000),
    "huge gif": huge_gif(),
    "huge apng": huge_apng(),
    "playlist": playlist("/etc/passwd"),
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("path", ["/", "/timeline", "/timeline?live=true", "/embed", "/explain"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_video_is_refused_in_a_sentence(client, name, path):
    answer = ask(client, HOSTILE[name], path)
    assert answer.status_code in (413, 422), answer.text
    error = answer.json()["error"]
    assert error.endswith(".")
    assert "/dev/fd" not in error


def test_a_playlist_opens_no_other_file(client, video, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(video)
    assert ask(client, playlist(tmp_path / "secret.mp4")).status_code == 422


def test_what_is_cut_short_or_changed_is_answered_and_the_next_is_right(client, video):
    for i in range(0, len(video), len(video) // 8):
        flipped = video[:i] + bytes(byte ^ 0xFF for byte in video[i : i + 40]) + video[i + 40 :]
        for content in (video[:i], flipped):
            assert ask(client, content).status_code in (200, 400, 422)
    assert ask(client, video).json()[0]["label"] == "bright"


def test_limits_are_kept(client, video, tmp_path):
    assert ask(client, bytes(2**20 + 1)).status_code == 413
    assert client.post("/", json={"inputs": "A" * 2**19}).status_code == 413
    wide = write_video(tmp_path / "wide.mp4", moving_square(4, 402, 402)).read_bytes()
    answer = ask(client, wide)
    assert (answer.status_code, "402 x 402" in answer.json()["error"]) == (413, True)
    long = write_video(tmp_path / "long.mp4", moving_square(8, 32, 32), fps=0.25).read_bytes()
    for path in ("/", "/timeline"):
        answer = ask(client, long, path)
        assert (answer.status_code, "at most 30 s" in answer.json()["error"]) == (413, True)
    answer = client.post("/timeline", content=video, params={"window": 0.02, "hop": 0.0001})
    assert answer.status_code == 400


def test_a_process_that_is_killed_costs_one_answer(client, service, video):
    """A question stops its process, which then dies."""
    process = service.pool.workers[0].process
    os.kill(process.pid, signal.SIGSTOP)
    timer = threading.Timer(0.5, os.kill, (process.pid, signal.SIGKILL))
    timer.start()
    answer = ask(client, video)
    timer.join()
    assert answer.status_code == 422
    assert "ended the process" in answer.json()["error"]
    assert ask(client, video).json()[0]["label"] == "bright"
    idle = service.pool.workers[0].process
    os.kill(idle.pid, signal.SIGKILL)
    idle.wait()
    assert ask(client, video).json()[0]["label"] == "bright"


def test_a_process_that_hangs_is_ended(client, service, video):
    process = service.pool.workers[0].process
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    answer = ask(client, video)
    assert answer.status_code == 422
    assert "longer than 5 s" in answer.json()["error"]
    assert time.monotonic() - began < 8
    assert process.poll() == -signal.SIGKILL
    assert ask(client, video).json()[0]["label"] == "bright"


def test_nothing_of_an_upload_stays(client, video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    for content in (video, b"not a video", video + bytes(2**20)):
        ask(client, content)
        client.post("/", files={"file": content})
        ask(client, content, "/timeline?live=true")
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/dev/fd")) <= before + 2


@pytest.mark.skipif(not SHARED.exists(), reason="needs the folder 'shared' beside the repository")
def test_every_file_that_people_have_trouble_with_is_answered(client, video):
    for folder in ("clips", "faults"):
        for file in sorted(shared_dir(folder).iterdir()):
            answer = ask(client, file.read_bytes())
            assert answer.status_code in (200, 400, 413, 422), (file, answer.text)
    assert ask(client, video).json()[0]["label"] == "bright"
