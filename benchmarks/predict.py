"""From a video file to a label: the whole process, ours against the usage example with transformers.

    python benchmarks/predict.py [VIDEO] [--preset base] [--rounds 3]

Base size with random weights, saved once and loaded by both. Two videos: VIDEO (by default one that is generated, 10
seconds long), with the clip in its last third, and a 10-minute one made of it. The implementations take turns, each run
in a fresh process: "ours" does what the usage example does, on the same frames, with this package; "command" is
`videomae predict VIDEO --json`, which takes the middle clip. "steps" tells where the time of our last run went. Needs
transformers (`pip install -e '.[dev]'`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The usage example of transformers' documentation, with the clip at a given place instead of a random one.
THEIRS = """
import sys
import av
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification

path, model_path, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
indices = np.arange(start, start + 16)
container = av.open(path)
frames = []
container.seek(0)
for i, frame in enumerate(container.decode(video=0)):
    if i > indices[-1]:
        break
    if i >= indices[0] and i in indices:
        frames.append(frame)
video = np.stack([x.to_ndarray(format="rgb24") for x in frames])
image_processor = AutoImageProcessor.from_pretrained(model_path)
model = AutoModelForVideoClassification.from_pretrained(model_path, dtype="auto")
inputs = image_processor(list(video), return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(model.config.id2label[logits.argmax(-1).item()], float(logits.max()))
"""

OURS = """
import json
import sys
import time
began = time.perf_counter()
steps = {}
def step(name):
    global began
    now = time.perf_counter()
    steps[name], began = round(now - began, 2), now
from concurrent.futures import ThreadPoolExecutor
from videomae.video.reader import VideoReader
path, model_path, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
def read():
    with VideoReader(path) as reader:
        return reader.frames_at(range(start, start + 16))
step("import reader")
with ThreadPoolExecutor(1) as pool:
    reading = pool.submit(read)
    import torch
    step("import torch")
    from videomae import AutoImageProcessor, AutoModelForVideoClassification
    image_processor = AutoImageProcessor.from_pretrained(model_path)
    model = AutoModelForVideoClassification.from_pretrained(model_path, dtype="auto")
    step("load")
    video = reading.result()
    step("wait for frames")
inputs = image_processor(list(video), return_tensors="pt")
step("process")
with torch.inference_mode():
    logits = model(**inputs).logits
step("model")
print(model.config.id2label[logits.argmax(-1).item()], float(logits.max()))
sys.stderr.write(json.dumps(steps))
"""


def run(arguments: list[str]) -> tuple[float, str, str]:
    """Run Python in a fresh process and return seconds, its answer, and where its time went."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - began, done.stdout.strip(), done.stderr.strip()


def make_long(source: Path, target: Path, seconds: float) -> None:
    """Repeat the packets of a video, without encoding them again, until it is long enough."""
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.dts is not None]
        first = min(packet.dts for packet in packets)
        length = max(packet.pts + (packet.duration or 0) for packet in packets) - first
        repeats = int(seconds / float(length * stream.time_base)) + 1
        for repeat in range(repeats):
            container.seek(0)
            for packet in container.demux(stream):
                if packet.dts is None:
                    continue
                packet.pts += repeat * length
                packet.dts += repeat * length
                packet.stream = copy
                out.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="a real clip of about 10 seconds")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    import numpy as np

    from videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor, VideoReader
    from videomae.video.encode import write_video
    from videomae.video.synthetic import motion_video

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        config = VideoMAEConfig.preset(arguments.preset, num_labels=400, layer_norm_eps=1e-12, output_norm_eps=1e-5)
        VideoMAEForVideoClassification(config).save_pretrained(model)
        VideoMAEImageProcessor(image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225)).save_pretrained(model)
        short = arguments.video or Path(folder) / "short.mp4"
        if arguments.video is None:
            frames = motion_video("moving_right", rng=np.random.default_rng(0), num_frames=300, size=320)
            write_video(short, frames, fps=30)
        long = Path(folder) / "long.mp4"
        make_long(short, long, seconds=600)
        for title, video in (("short", short), ("10 minutes", long)):
            with VideoReader(video) as reader:
                length, start = reader.duration, int(reader.num_frames * 0.8)
            place = [str(video), str(model), str(start)]
            commands = {
                "ours": ["-c", OURS, *place],
                "command": ["-m", "videomae", "predict", str(video), "--model", str(model), "--json"],
                "transformers": ["-c", THEIRS, *place],
            }
            times: dict[str, list[float]] = {name: [] for name in commands}
            answers, steps = set(), {}
            for _ in range(arguments.rounds):
                for name, arguments_of in commands.items():
                    seconds, answer, report = run(arguments_of)
                    times[name].append(seconds)
                    if name != "command":
                        label, logit = answer.split()
                        answers.add((label, round(float(logit), 4)))
                    steps = json.loads(report) if name == "ours" else steps
            print(f"{title} ({length:.0f} s, clip at frame {start})")
            for name, taken in times.items():
                ratios = [theirs / ours for ours, theirs in zip(taken, times["transformers"], strict=True)]
                seconds_taken = " ".join(f"{seconds:.2f}" for seconds in taken)
                print(f"  {name:13} {statistics.median(ratios):.2f}x faster   {seconds_taken} s")
            print(f"  our steps     {steps}")
            print(f"  same answer   {len(answers) == 1} {sorted(answers)}")


if __name__ == "__main__":
    main()
