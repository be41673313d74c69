"""Make the pictures of README.md from a run of `videomae quickstart`: nothing in them is from anybody's videos.

Usage: ``videomae quickstart --out RUN && python docs/make_images.py RUN``

The quickstart pre-trains for half a minute, too short to reconstruct anything: this script pre-trains a smaller model
for longer on the same videos (some ten minutes), in smaller patches and without normalising their pixels.
"""

import sys
from pathlib import Path

import numpy as np

from videomae.cli import run as videomae
from videomae.video.encode import write_video
from videomae.video.synthetic import MOTIONS, motion_video

IMAGES = Path(__file__).parent / "images"
SECONDS = 6  # of each motion in the long video
LONGER = (
    "--recipe pretrain-small-data --run.steps 4000 --run.batch-size 8 --clips.stride 1.5 "
    "--loader.augmentations-per-clip 1 --loader.num-workers 0"
)


def main(run: Path) -> None:
    """Write docs/images/*.png and *.gif."""
    work = run / "images"
    classifier, pretrained = str(run / "run" / "model"), run / "long" / "model"
    rng = np.random.default_rng(7)
    parts = [motion_video(motion, rng=rng, num_frames=16 * SECONDS) for motion in MOTIONS]
    work.mkdir(exist_ok=True)
    write_video(work / "long.mp4", np.concatenate(parts))
    turning, moving = str(work / "turning.mp4"), str(work / "moving.mp4")
    write_video(turning, motion_video("turning_clockwise", rng=np.random.default_rng(11)))
    write_video(moving, motion_video("moving_right", rng=np.random.default_rng(10)))
    IMAGES.mkdir(exist_ok=True)

    def draw(command: str, *arguments: str) -> None:
        if videomae([command, *arguments]):
            raise SystemExit(f"videomae {command} failed")

    draw("predict", str(work / "long.mp4"), "--model", classifier, "--window", "1s", "--hop", "0.5s",
         "--plot", str(IMAGES / "timeline.png"))  # fmt: skip
    if not pretrained.exists():
        draw("pretrain", str(run / "videos.csv"), "--out", str(run / "long"), *LONGER.split())
    draw("reconstruct", moving, "--model", str(pretrained), "--mask", "random", "--ratio", "0.5",
         "--out", str(IMAGES / "reconstruct.png"))  # fmt: skip
    draw("explain", moving, "--model", classifier, "--out", str(IMAGES / "explain.png"))
    index = str(work / "index")
    draw("embed", str(run / "videos.csv"), "--model", classifier, "--out", index)
    draw("search", turning, "--index", index, "--top-k", "4", "--sheet", str(IMAGES / "search.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
