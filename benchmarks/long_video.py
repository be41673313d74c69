"""Peak memory and events of `videomae predict --window` on videos of 1, 5 and 10 minutes.

    python benchmarks/long_video.py --model RUN/model [--size 320] [--minutes 1 5 10] [--plot out.png]
    python benchmarks/long_video.py --clips WANTED OTHER... [--minutes 1 5 10] [--plot out.png]

With ``--model`` a video is made of the motions of `videomae quickstart`, which trains one, at random. With ``--clips``
each file is a class: a tiny model is trained on excerpts of them, and a video is made of the first clip, looped,
between stretches of the others. In it every event that is found is compared with what was put there. Each length runs
in a process of its own, so that its peak is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videomae.video.reader import VideoReader
from videomae.video.synthetic import MOTIONS, motion_video

FPS, SECONDS = 16, 4  # of a piece
EXCERPTS = 12  # of each clip, to train on
TRAINING = (
    "--model.preset tiny --model.image-size 64 --model.patch-size 16 --model.num-frames 8 --loader.num-workers 0 "
    "--recipe finetune-small-data --clips.stride 2 --optim.layer-decay 1 --run.batch-size 6"
)

Piece = tuple[str, Iterable[np.ndarray]]  # label, frames


def motions(number: int) -> Iterator[Piece]:
    """Yield pieces of quickstart's motions, drawn at random."""
    rng = np.random.default_rng(7)
    for motion in [str(rng.choice(list(MOTIONS))) for _ in range(number)]:
        yield motion, motion_video(motion, rng=rng, num_frames=FPS * SECONDS, size=64)


def looped(files: list[Path], number: int) -> Iterator[Piece]:
    """Yield the first file, twice in a row, between two pieces of the others; each goes on where it was."""
    positions = dict.fromkeys(files, 0)
    for i in range(number):
        file = files[0] if i % 4 in (2, 3) else files[1 + i // 4 % (len(files) - 1)]
        yield file.stem, stretch(file, positions[file], FPS * SECONDS)
        positions[file] += FPS * SECONDS


def stretch(file: Path, first: int, number: int) -> np.ndarray:
    """Return frames of a clip that is played at FPS there and back: a cut is where pieces meet, nowhere else."""
    with VideoReader(file) as reader:
        steps = np.floor(np.arange(first, first + number) * reader.fps / FPS).astype(int)
        period = max(2 * (len(reader) - 1), 1)
        return reader.frames_at(np.minimum(steps % period, period - steps % period))


def write(path: Path, pieces: Iterable[Piece], size: int) -> list[str]:
    """Write a video of pieces, frame by frame, and return their labels."""
    labels = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "20", "preset": "veryfast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for label, frames in pieces:
            labels.append(label)
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(width=size, height=size)
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return labels


def train_on(files: list[Path], folder: Path, size: int) -> str:
    """Train a tiny model to tell files apart by excerpts of two seconds, and return its directory."""
    for file in files:
        (folder / "data" / file.stem).mkdir(parents=True)
        for i in range(EXCERPTS):
            write(folder / "data" / file.stem / f"{i}.mp4", [("", stretch(file, 13 * i, 2 * FPS))], size)
    command = [sys.executable, "-m", "videomae", "finetune", str(folder / "data"), "--out", str(folder / "run")]
    subprocess.run([*command, *TRAINING.split()], check=True, capture_output=True)
    return str(folder / "run" / "model")


def measure(video: Path, model: str, plot: str | None) -> None:
    from videomae.inference.classifier import VideoClassifier
    from videomae.inference.timeline import read_timeline
    from videomae.plots.timeline import draw_timeline

    timeline = read_timeline(VideoClassifier.from_pretrained(model), video, window=2, hop=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if plot:
        draw_timeline(timeline, title=video.name).savefig(plot, dpi=120)
    events = [(event.label, event.start, event.end) for event in timeline.events]
    print(json.dumps({"peak_mb": round(peak), "frames": timeline.num_frames, "events": events}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="directory of a model that knows quickstart's motions")
    source.add_argument("--clips", type=Path, nargs="+", help="two files or more, the wanted one first")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 10])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--plot")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.model, options.plot)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or train_on(options.clips, Path(folder), options.size)
        for minutes in options.minutes:
            video = Path(folder) / f"{minutes:g}_minutes.mp4"
            number = round(minutes * 60 / SECONDS)
            pieces = write(video, looped(options.clips, number) if options.clips else motions(number), options.size)
            command = [sys.executable, __file__, "--model", model, "--measure", str(video)]
            command += ["--plot", options.plot] if options.plot else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            covered = sum(
                max(0.0, min(end, (i + 1) * SECONDS) - max(start, i * SECONDS))
                for i, piece in enumerate(pieces)
                for label, start, end in found["events"]
                if label == piece
            )
            total = sum(end - start for _, start, end in found["events"])
            print(
                f"{minutes:g} min: peak {found['peak_mb']} MB, {found['frames']} frames decoded of "
                f"{len(pieces) * FPS * SECONDS}; {covered / (len(pieces) * SECONDS):.1%} of the time is named right, "
                f"{covered / max(total, 1e-9):.1%} of what is named is right",
                flush=True,
            )
            if options.clips:
                wanted = [(start, end) for label, start, end in found["events"] if label == options.clips[0].stem]
                begins = [i * SECONDS for i, piece in enumerate(pieces) if piece == options.clips[0].stem][::2]
                off = [min((abs(start - begin) for start, _ in wanted), default=float("inf")) for begin in begins]
                print(
                    f"  {options.clips[0].stem} was put in {len(begins)} times and found {len(wanted)} times; the "
                    f"event nearest to each begins {max(off):.2f} s from it at most"
                )


if __name__ == "__main__":
    main()
