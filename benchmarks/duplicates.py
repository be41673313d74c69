"""How many copies `near_duplicates` finds, and how many different videos it takes for copies.

    python benchmarks/duplicates.py DATA [--videos 60] [--seed 0]
    python benchmarks/duplicates.py --scale 1000 4000 16000

Some videos of DATA are re-encoded in seven ways; each copy should be found, and nothing else of DATA. What is found
between videos of DATA itself is listed, to be looked at: it may be a true copy. ``--scale`` times sets of so many made
fingerprints of ten seconds, of which every tenth is a trimmed copy with noise.
"""

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videomae.data.audit.duplicates import MIN_SIMILARITY, near_duplicates
from videomae.data.audit.pool import inspect_videos
from videomae.data.manifest import read_manifest

# Name: scale, share cut from the start and from the end, every n-th frame, codec, its quality.
COPIES = {
    "re-encoded": (1.0, 0.0, 0.0, 1, "libx264", {"crf": "35"}),
    "half the size": (0.5, 0.0, 0.0, 1, "libx264", {"crf": "28"}),
    "trimmed 11 % + 20 %": (1.0, 0.11, 0.20, 1, "libx264", {"crf": "26"}),
    "trimmed, half the size": (0.5, 0.17, 0.13, 1, "libx264", {"crf": "32"}),
    "middle half": (1.0, 0.27, 0.23, 1, "libx264", {"crf": "28"}),
    "half the rate": (1.0, 0.0, 0.0, 2, "libx264", {"crf": "28"}),
    "other codec, 0.6 the size": (0.6, 0.07, 0.0, 1, "mpeg4", {"b": "200000"}),
}


def copy(source: Path, target: Path, how: str) -> Path:
    scale, before, after, step, codec, options = COPIES[how]
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = old.streams.video[0]
        frames = list(old.decode(video))
        frames = frames[int(before * len(frames)) : len(frames) - int(after * len(frames))]
        rate = Fraction(video.average_rate) / step
        stream = new.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = (int(side * scale) // 2 * 2 for side in (video.width, video.height))
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames[::step]):
            frame = frame.reformat(stream.width, stream.height, "yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            new.mux(stream.encode(frame))
        new.mux(stream.encode())
    return target


def made_fingerprints(number: int, seed: int) -> list[np.ndarray]:
    """Three blobs that wander over a background of their own, (80, 8, 8); every tenth is a copy of the one before."""
    rng, made = np.random.default_rng(seed), []
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), -1)
    for i in range(number):
        if i % 10 == 9:
            copy_of = made[-1][12:]
            made.append(copy_of + rng.normal(0, 0.5, copy_of.shape).astype(np.float16))
            continue
        place = rng.uniform(0, 8, (3, 2)) + np.cumsum(rng.normal(0, 0.5, (80, 3, 2)), 0)
        distance = ((grid - place[:, :, None, None] % 8) ** 2).sum(-1)
        made.append((rng.uniform(40, 200, (8, 8)) + 60 * np.exp(-distance / 2).sum(1)).astype(np.float16))
    return made


def time_scales(numbers: list[int], seed: int) -> None:
    for number in numbers:
        made = made_fingerprints(number, seed)
        began = time.process_time()
        pairs = {pair[:2] for pair in near_duplicates(made)}
        seconds = time.process_time() - began
        planted = {(i - 1, i) for i in range(9, number, 10)}
        print(
            f"{number} videos: {seconds:.1f} s of processor time, {1000 * seconds / number:.2f} ms each; "
            f"{len(planted & pairs)} of {len(planted)} copies found, {len(pairs - planted)} others"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--scale", type=int, nargs="+", metavar="VIDEOS", help="time sets of so many")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    if settings.scale:
        time_scales(settings.scale, settings.seed)
        return
    if settings.data is None:
        parser.error("name the data, or --scale")

    files = list(dict.fromkeys(sample.file for sample in read_manifest(settings.data)))
    facts = list(inspect_videos(files))
    chosen = np.random.default_rng(settings.seed).permutation(len(files))[: settings.videos].tolist()
    with tempfile.TemporaryDirectory() as folder:
        made = [(i, how) for i in chosen for how in COPIES]
        paths = [copy(files[i], Path(folder) / f"{number}.mp4", how) for number, (i, how) in enumerate(made)]
        copies = list(inspect_videos(paths))

    pairs = near_duplicates([fact.fingerprint for fact in facts + copies])
    found = {(i, j - len(files)) for i, j, _ in pairs if i < len(files) <= j}
    print(f"{settings.data}: {len(files)} videos, {len(made)} copies, similarity of at least {MIN_SIMILARITY}")
    for how in COPIES:
        numbers = [number for number, (_, name) in enumerate(made) if name == how]
        print(f"  {how:28} {sum((made[number][0], number) in found for number in numbers)} of {len(numbers)} found")
    same = [facts[i].content == facts[made[number][0]].content for i, number in found]
    print(f"  taken for a copy of another video: {same.count(False)} of {len(files) * len(made)} pairs")
    for i, j, value in pairs:
        if j < len(files) and facts[i].content != facts[j].content:
            print(f"  in the data: {value:.3f} {files[i].name} {files[j].name}")


if __name__ == "__main__":
    main()
