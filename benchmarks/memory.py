"""Peak memory of commands on large frames: of a command and the processes that it starts, the one that takes most.

    python benchmarks/memory.py [--sizes 256x144 3840x2160] [--source CHECKOUT/src ...] [--commands predict ...]

What counts is memory that a process has for itself, not the files of libraries that it shares with others: RssAnon in
/proc/PID/status, looked at 50 times a second.

The videos are made here: H.264, 40 frames of a gradient. A model of random weights, tiny, takes 16 frames of
224 x 224 pixels, so that what is measured is the reading. With several --source, such as those of two commits, all are
measured on the same files. What is larger than VIDEOMAE_MAX_PIXELS allows is refused: its exit code is shown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import psutil
from rich.console import Console

from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

NUM_FRAMES = 40
COMMANDS = {
    "predict": "predict {video} --model {model} --json",
    "predict --window": "predict {video} --model {model} --window 1s --json",
    "embed": "embed {folder} --model {model} --out {out}/features",
    "embed --per window": "embed {folder} --model {model} --out {out}/windows --per window",
    "prepare": "prepare {folder} {out}/copies --workers 1",
    "check": "check {folder} --workers 1",
}


def make_video(file: Path, width: int, height: int) -> None:
    rows, columns = np.ogrid[:height, :width]
    ground = ((rows + columns) // 16 % 256).astype(np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "40"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = width, height, "yuv420p", 1
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane in frame.planes:
                levels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                levels[:, : plane.width] = ground[: plane.height, : plane.width] if plane.width == width else 128
                levels[: plane.height // 8, : plane.width // 8] = 6 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_model(folder: Path) -> None:
    config = VideoMAEConfig.preset("nano", id2label=dict(enumerate(("no", "yes"))))
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    VideoMAEImageProcessor().save_pretrained(folder)


def peak(arguments: list[str], source: str | None) -> tuple[float, float, int]:
    """Run a command; return the most memory that one of its processes had, in MB, seconds, and the exit code."""
    environment = os.environ | ({} if source is None else {"PYTHONPATH": source})
    begin, most = time.monotonic(), 0.0
    command = [sys.executable, "-m", "videomae", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        family = psutil.Process(child.pid)
        while child.poll() is None:
            with suppress(psutil.Error):
                most = max(most, *(anonymous(process.pid) for process in (family, *family.children(recursive=True))))
            time.sleep(0.02)
    return most, time.monotonic() - begin, child.returncode


def anonymous(process: int) -> float:
    """Return what a process holds for itself, in MB; 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1e3
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x144", "3840x2160"])
    parser.add_argument("--source", nargs="+", default=[None])
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    given = parser.parse_args()
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_model(root / "model")
        for size in given.sizes:
            folder = root / size
            folder.mkdir()
            make_video(folder / "video.mp4", *map(int, size.split("x")))
            for name in given.commands:
                for number, source in enumerate(given.source):
                    names = {"video": folder / "video.mp4", "folder": folder, "model": root / "model"}
                    line = COMMANDS[name].format(**names, out=root / f"{number}-{size}")
                    megabytes, seconds, code = peak(line.split(), source)
                    end = f" (exit code {code})" if code else ""
                    found = f"{megabytes:6.0f} MB {seconds:6.1f} s{end}"
                    console.print(f"{size:12} {name:18} {found}  {source or 'installed'}", markup=False)


if __name__ == "__main__":
    main()
