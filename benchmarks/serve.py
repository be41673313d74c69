"""`videomae serve` under load, beside a plain handler around transformers' pipeline; and what strangers do to it.

    python benchmarks/serve.py VIDEO [--preset base] [--parts load overload hostile end worker] [--minutes 10]

All servers are processes on 127.0.0.1, of the same model with random weights, and one is asked at a time.

load      requests a second and p50, p95, p99 at 1, 8 and 32 clients: with batching, without, and the plain handler, all
          of them asked about the first 16 frames
overload  for --minutes, requests at four times the rate that the server can answer: every 200 must be the right answer,
          all others 429 with Retry-After; memory of all its processes at the beginning and at the end
hostile   200 uploads, each of which must get a 4xx in words (or, where it is a video, a 200), and the good request
          after it the right answer. --files are tried as they are, and cut and with flipped bits
end       SIGTERM under load: no request that was accepted may be lost
worker    kill -9 of a decoding process under load: its request fails in words, the next one is answered

Needs `pip install -e '.[dev,serve]' fastapi`.
"""

import argparse
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

PARTS = ("load", "overload", "hostile", "end", "worker")
CLIENTS = (1, 8, 32)
CLIP_FRAMES = 16
NUM_HOSTILE = 200
TIMEOUT = 600  # seconds that a client waits
LONG_UPLOAD = 3  # seconds that hostile uploads may take, in place of 60

PLAIN = """
import sys, tempfile
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from transformers import pipeline

classify = pipeline("video-classification", model=sys.argv[1])
classify.video_processor = None  # which decodes with torchcodec only; without it PyAV reads the first frames
app = FastAPI()

@app.post("/")
async def answer(request: Request):
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(await request.body())
        file.flush()
        return await run_in_threadpool(classify, file.name)

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


class Answer(NamedTuple):
    """What a client got: status 0 is a connection that was refused, -1 one that broke after it was accepted."""

    status: int
    body: bytes
    seconds: float
    retry_after: str | None = None

    @property
    def label(self) -> str:
        return json.loads(self.body)[0]["label"]


def ask(port: int, content: "bytes | Iterable[bytes]", path: str = "/", **headers: str) -> Answer:
    """Post bytes; or what is iterated over, as chunks, of a length that is not told."""
    began = time.perf_counter()
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    except OSError:
        return Answer(0, b"", time.perf_counter() - began)
    whole = isinstance(content, bytes)
    size = f"content-length: {len(content)}" if whole else "transfer-encoding: chunked"
    fields = {"host": "localhost", "connection": "close", "content_type": "application/octet-stream"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    with connection:
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before all is sent
                connection.sendall("\r\n".join([f"POST {path} HTTP/1.1", size, *lines, "", ""]).encode())
                for part in [content] if whole else content:
                    connection.sendall(part if whole else b"%x\r\n%b\r\n" % (len(part), part))
                if not whole:
                    connection.sendall(b"0\r\n\r\n")
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            body, wait = answer.read(), answer.headers.get("retry-after")
        except (OSError, http.client.HTTPException):
            return Answer(-1, b"", time.perf_counter() - began)
    return Answer(answer.status, body, time.perf_counter() - began, wait)


def together(clients: int, work: Callable[[], object]) -> None:
    """Run a function in so many threads."""
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def load(port: int, content: bytes, clients: int, seconds: float, path: str = "/") -> tuple[float, list[float]]:
    """Ask with so many clients, each again as soon as it has its answer; return requests a second, and seconds each."""
    answers: list[Answer] = []
    began = time.perf_counter()

    def client() -> None:
        while time.perf_counter() - began < seconds or len(answers) < clients:
            answers.append(ask(port, content, path))

    together(clients, client)
    wrong = Counter(answer.status for answer in answers if answer.status != 200)
    assert not wrong, f"not all were answered: {wrong}"
    return len(answers) / (time.perf_counter() - began), sorted(answer.seconds for answer in answers)


def quantile(values: list[float], fraction: float) -> float:
    return values[min(int(fraction * len(values)), len(values) - 1)]


# ------------------------------------------------------------------------------------------------------- servers


@contextmanager
def serving(model: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """Start `videomae serve`, and yield its port and process."""
    command = [sys.executable, "-m", "videomae", "serve", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stderr.readline()
            yield int(re.search(r":(\d+) ", line)[1]), psutil.Process(server.pid)
        finally:
            server.kill()


def is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def plain(model: Path) -> Iterator[tuple[int, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", PLAIN, str(model), str(port)]) as server:
        try:
            while not is_listening(port):
                time.sleep(0.2)
            yield port, psutil.Process(server.pid)
        finally:
            server.kill()


def memory(server: psutil.Process) -> float:
    """Return the MB that a server and its processes hold for themselves."""
    total = 0
    for process in [server, *server.children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


# --------------------------------------------------------------------------------------------------------- parts


def measure_load(model: Path, video: Path, seconds: float, rounds: int) -> None:
    from videomae import VideoReader

    content = video.read_bytes()
    with VideoReader(video) as reader:
        first_frames = f"/?start=0&end={CLIP_FRAMES / reader.fps}"  # which the pipeline takes
    with serving(model) as batched, serving(model, "--limits.max-batch", "1") as single, plain(model) as handler:
        servers = {"with batching": batched, "without": single, "plain handler": handler}
        labels = [ask(port, content, first_frames).label for port, _ in servers.values()]
        print(f"the labels {'are the same' if len(set(labels)) == 1 else 'differ'}")
        for clients in CLIENTS:
            found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, (port, _) in servers.items():
                    found[name].append(load(port, content, clients, seconds, first_frames))
            print(f"{clients} clients; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
            for name, runs in found.items():
                rates = [rate for rate, _ in runs]
                ratios = [rate / theirs for rate, (theirs, _) in zip(rates, found["plain handler"], strict=True)]
                waits = sorted(wait for _, taken in runs for wait in taken)
                shown = "  ".join(f"p{round(100 * q)} {quantile(waits, q):.3f} s" for q in (0.5, 0.95, 0.99))
                print(
                    f"  {name:14} {statistics.median(rates):7.2f} requests/s ({statistics.median(ratios):.2f}x)  "
                    f"{shown}  of {len(waits)}",
                    flush=True,
                )


def overload(model: Path, content: bytes, seconds: float) -> None:
    with serving(model) as (port, server):
        right = ask(port, content).label
        capacity, _ = load(port, content, 8, min(seconds / 10, 20))
        answers: list[Answer] = []
        held = [memory(server)]
        threads: list[threading.Thread] = []
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            while sent < 4 * capacity * now:
                thread = threading.Thread(target=lambda: answers.append(ask(port, content)))
                thread.start()
                threads.append(thread)
                sent += 1
            if len(held) < 20 * now / seconds:
                held.append(memory(server))
                threads = [thread for thread in threads if thread.is_alive()]
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        statuses = Counter(answer.status for answer in answers)
        wrong = sum(answer.status == 200 and answer.label != right for answer in answers)
        unsaid = sum(answer.status == 429 and not answer.retry_after for answer in answers)
        early, late = statistics.median(held[2:7]), statistics.median(held[-5:])
        print(
            f"overload: {capacity:.2f} requests/s are its capacity, {sent} came in {seconds:.0f} s, four times as many"
        )
        print(f"  answers by status {dict(statuses)}; wrong answers {wrong}; 429 without Retry-After {unsaid}")
        print(f"  memory {early:.0f} MB at first, {late:.0f} MB at the end, {max(held):.0f} MB at most", flush=True)
        assert set(statuses) <= {200, 429}
        assert not wrong
        assert not unsaid


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("video.mp4", bytes(10_000))
    return content.getvalue()


def endless(part: bytes) -> Iterator[bytes]:
    while True:
        yield part


def slow() -> Iterator[bytes]:
    for _ in range(20 * LONG_UPLOAD):
        yield b"\0"
        time.sleep(0.2)


def hostile_uploads(files: list[Path]) -> Iterator[tuple[str, "bytes | Iterable[bytes]", dict[str, str]]]:
    """Yield names, bodies and headers; files come as they are, and then, as often as needed, damaged."""
    rng = random.Random(0)
    form = {"content_type": "multipart/form-data; boundary=x"}
    opening = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    huge = (16384).to_bytes(2, "little") * 2
    yield "zip", archive(), {}
    yield "html", b"<!DOCTYPE html><html><body>404</body></html>", {}
    yield "gif of 16384 x 16384", b"GIF89a" + huge + b"\xf0\0\0" + bytes(6) + b",\0\0\0\0" + bytes(100) + b";", {}
    yield (
        "bmp of 16384 x 16384",
        b"BM"
        + bytes(12)
        + (40).to_bytes(4, "little")
        + ((16384).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)),
        {},
    )
    yield "endless zeros", endless(bytes(2**20)), {}
    yield "endless noise", endless(rng.randbytes(2**20)), {}
    yield "slow body", slow(), {}
    yield "truncated multipart", opening + rng.randbytes(1000), form
    yield "multipart without a file", b"--x--\r\n", form
    yield "JSON", b'{"inputs": 3}', {"content_type": "application/json"}
    yield "deep JSON", b"[" * 100_000, {"content_type": "application/json"}
    yield "address", b'{"inputs": "http://169.254.169.254/"}', {"content_type": "application/json"}
    yield "nothing", b"", {}
    for file in files:
        yield file.name, file.read_bytes(), {}
    while True:
        file = rng.choice(files)
        content = bytearray(file.read_bytes()[: 2**20])
        if not content:
            continue
        for _ in range(rng.randrange(1, 200)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        yield f"damaged {file.name}", bytes(content[: rng.randrange(1, len(content) + 1)]), {}


def hostile(model: Path, content: bytes, files: list[Path]) -> None:
    options = ("--limits.upload-seconds", str(LONG_UPLOAD), "--limits.decode-seconds", "20")
    with serving(model, *options) as (port, server):
        right = ask(port, content).label
        statuses: Counter[int] = Counter()
        for number, (name, body, headers) in enumerate(hostile_uploads(files)):
            if number == NUM_HOSTILE:
                break
            answer = ask(port, body, **headers)
            statuses[answer.status] += 1
            assert answer.status == 200 or 400 <= answer.status < 500, f"{name}: {answer}"
            assert answer.status == 200 or json.loads(answer.body)["error"], f"{name}: {answer}"
            after = ask(port, content)
            assert after.status == 200, f"after {name}: {after}"
            assert after.label == right
        print(f"hostile: {number} uploads, answers by status {dict(statuses)}; every good one after it was right")
        print(f"  memory at the end {memory(server):.0f} MB", flush=True)


def end(model: Path, content: bytes, clients: int = 16) -> None:
    with serving(model) as (port, server):
        ask(port, content)
        answers: list[Answer] = []

        def client() -> None:
            while (answer := ask(port, content)).status != 0:
                answers.append(answer)

        asking = threading.Thread(target=lambda: together(clients, client))
        asking.start()
        while len(answers) < clients:
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        asking.join()
        code = server.wait(TIMEOUT)
        statuses = Counter(answer.status for answer in answers)
        print(f"SIGTERM with {clients} clients: exit code {code}, answers by status {dict(statuses)} (-1: lost)")
        assert -1 not in statuses


def worker(model: Path, content: bytes) -> None:
    with serving(model) as (port, server):
        right = ask(port, content).label
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: together(8, lambda: answers.append(ask(port, content))))
        victims = server.children()
        asking.start()
        time.sleep(0.2)
        for victim in victims:
            victim.kill()
        asking.join()
        after = ask(port, content)
        failed = [json.loads(answer.body)["error"] for answer in answers if answer.status != 200]
        print(f"kill -9 of {len(victims)} workers: {len(failed)} of 8 failed ({set(failed)}), the next: {after.status}")
        assert after.label == right
        assert all(400 <= answer.status < 500 for answer in answers if answer.status != 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="a real clip of about 10 seconds")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="of overload")
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="files and folders of hostile uploads")
    options = parser.parse_args()

    from videomae import VideoMAEConfig, VideoMAEForVideoClassification
    from videomae.config import IMAGENET_MEAN, IMAGENET_STD
    from videomae.video.checkpoint_processor import make_processor

    content = options.video.read_bytes()
    files = [file for path in options.files for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        config = VideoMAEConfig.preset(options.preset, num_labels=400, image_size=options.image_size)
        VideoMAEForVideoClassification(config).save_pretrained(model)
        make_processor(config, (IMAGENET_MEAN, IMAGENET_STD)).save_pretrained(model)
        for part in options.parts:
            if part == "load":
                measure_load(model, options.video, options.seconds, options.rounds)
            elif part == "overload":
                overload(model, content, 60 * options.minutes)
            elif part == "hostile":
                hostile(model, content, [file for file in files if file.is_file()] or [options.video])
            else:
                {"end": end, "worker": worker}[part](model, content)


if __name__ == "__main__":
    main()
