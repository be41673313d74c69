"""Make the pictures of README.md from a run of `videomae quickstart`: nothing in them is from anybody's videos.

Usage: ``videomae quickstart --out RUN && python docs/make_images.py RUN``
"""

import sys
from pathlib import Path

import numpy as np

from videomae.cli import run as videomae
from videomae.video.synthetic import MOTIONS, motion_video, write_video

IMAGES = Path(__file__).parent / "images"
SECONDS = 6  # of each motion in the long video


def main(run: Path) -> None:
    """Write docs/images/*.png and *.gif."""
    work = run / "images"
    classifier, pretrained = str(run / "run" / "model"), str(run / "run" / "pretrain" / "model")
    rng = np.random.default_rng(7)
    parts = [motion_video(motion, rng=rng, num_frames=16 * SECONDS) for motion in MOTIONS]
    work.mkdir(exist_ok=True)
    write_video(work / "long.mp4", np.concatenate(parts))
    write_video(work / "clip.mp4", motion_video("turning_clockwise", rng=rng))
    clip = str(work / "clip.mp4")
    IMAGES.mkdir(exist_ok=True)

    def draw(command: str, *arguments: str) -> None:
        if videomae([command, *arguments]):
            raise SystemExit(f"videomae {command} failed")

    draw("predict", str(work / "long.mp4"), "--model", classifier, "--window", "1.9s", "--stride", "0.5s",
         "--plot", str(IMAGES / "timeline.png"))  # fmt: skip
    draw("reconstruct", clip, "--model", pretrained, "--ratio", "0.75", "--out", str(IMAGES / "reconstruct.png"))
    draw("explain", clip, "--model", classifier, "--out", str(IMAGES / "explain.png"))
    index = str(work / "index")
    draw("embed", str(run / "videos.csv"), "--model", classifier, "--out", index)
    draw("search", clip, "--index", index, "--top-k", "4", "--sheet", str(IMAGES / "search.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
