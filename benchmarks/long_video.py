"""Peak memory and events of `videomae predict --window` on videos of 1, 5 and 10 minutes.

    python benchmarks/long_video.py --model RUN/model [--size 320] [--minutes 1 5 10] [--plot out.png]

The model must know the motions of `videomae quickstart`, which trains one. A video is made of motions at random, a few
seconds each, and in it every event that is found is compared with what was put there. Each length runs in a process of
its own, so that its peak is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videomae.video.synthetic import MOTIONS, motion_video

FPS, SECONDS = 16, 4  # of a piece


def make_video(path: Path, minutes: float, size: int) -> list[str]:
    rng = np.random.default_rng(7)
    pieces = [str(rng.choice(list(MOTIONS))) for _ in range(round(minutes * 60 / SECONDS))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "20", "preset": "veryfast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for motion in pieces:
            for frame in motion_video(motion, rng=rng, num_frames=FPS * SECONDS, size=64):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(width=size, height=size)
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return pieces


def measure(video: Path, model: str, plot: str | None) -> None:
    from videomae.tasks.predict import VideoClassifier
    from videomae.tasks.timeline import draw_timeline, read_timeline

    timeline = read_timeline(VideoClassifier.from_pretrained(model), video, window=2, stride=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if plot:
        draw_timeline(timeline, title=video.name).savefig(plot, dpi=120)
    events = [(event.label, event.start, event.end) for event in timeline.events]
    print(json.dumps({"peak_mb": round(peak), "frames": timeline.num_frames, "events": events}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 10])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--plot")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.model, options.plot)
        return
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            video = Path(folder) / f"{minutes:g}_minutes.mp4"
            pieces = make_video(video, minutes, options.size)
            command = [sys.executable, __file__, "--model", options.model, "--measure", str(video)]
            command += ["--plot", options.plot] if options.plot else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            covered = sum(
                max(0.0, min(end, (i + 1) * SECONDS) - max(start, i * SECONDS))
                for i, motion in enumerate(pieces)
                for label, start, end in found["events"]
                if label == motion
            )
            total = sum(end - start for _, start, end in found["events"])
            print(
                f"{minutes:g} min: peak {found['peak_mb']} MB, {found['frames']} frames decoded of "
                f"{len(pieces) * FPS * SECONDS}; {covered / (len(pieces) * SECONDS):.1%} of the time is named right, "
                f"{covered / max(total, 1e-9):.1%} of what is named is right"
            )


if __name__ == "__main__":
    main()
