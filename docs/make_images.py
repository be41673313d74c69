"""Make the pictures of README.md from a run of `videomae quickstart`: nothing in them is from anybody's videos.

Usage: ``videomae quickstart --out RUN && python docs/make_images.py RUN``

The quickstart pre-trains for half a minute, too short to reconstruct anything: this script pre-trains a smaller model
for longer on the same videos (some ten minutes), in smaller patches and without normalising their pixels.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videomae import VideoClassifier, VideoReader, random_mask, read_timeline, reconstruct
from videomae.cli import run as videomae
from videomae.inference.reconstruct import Reconstruction, load_pretrained
from videomae.inference.timeline import Timeline
from videomae.plots.animation import FRAMES_PER_SECOND
from videomae.plots.reconstruction import side_by_side
from videomae.plots.style import INK, SOFT
from videomae.plots.timeline import draw_timeline
from videomae.video.clips import read_clips
from videomae.video.encode import write_video
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import MOTIONS, motion_video

IMAGES = Path(__file__).parent / "images"
SECONDS = 4  # of each motion in the long video
HIDDEN = 0.5
LONGER = (
    "--recipe pretrain-small-data --run.steps 4000 --run.batch-size 8 --clips.stride 1.5 "
    "--loader.augmentations-per-clip 1 --loader.num-workers 0"
)
WIDTH, LEFT, MARGIN, DPI = 800, 180, 12, 100  # of the moving picture, pixels
PICTURES, COLOURS = 48, 96
CAPTION = f"Pre-training hides\npart of a clip and\nreconstructs it\n({HIDDEN:.0%} here)."


def main(run: Path) -> None:
    """Write docs/images/*.png and *.gif."""
    work = run / "images"
    classifier, pretrained = str(run / "run" / "model"), run / "long" / "model"
    rng = np.random.default_rng(7)
    parts = [motion_video(motion, rng=rng, num_frames=16 * SECONDS) for motion in MOTIONS]
    work.mkdir(exist_ok=True)
    long, turning, moving = (work / f"{name}.mp4" for name in ("long", "turning", "moving"))
    write_video(long, np.concatenate(parts))
    write_video(turning, motion_video("turning_clockwise", rng=np.random.default_rng(11)))
    write_video(moving, motion_video("moving_right", rng=np.random.default_rng(10)))
    IMAGES.mkdir(exist_ok=True)

    def draw(command: str, *arguments: str | Path) -> None:
        if videomae([command, *map(str, arguments)]):
            raise SystemExit(f"videomae {command} failed")

    if not pretrained.exists():
        draw("pretrain", run / "videos.csv", "--out", run / "long", *LONGER.split())
    timeline = read_timeline(VideoClassifier.from_pretrained(classifier), long, window=1.0, hop=0.5)
    write_small_gif(IMAGES / "videomae.gif", moving_picture(reconstruction(pretrained, moving), long, timeline))
    draw("predict", long, "--model", classifier, "--window", "1s", "--hop", "0.5s",
         "--plot", IMAGES / "timeline.png")  # fmt: skip
    draw("reconstruct", moving, "--model", pretrained, "--mask", "random", "--ratio", str(HIDDEN),
         "--out", IMAGES / "reconstruct.png")  # fmt: skip
    draw("explain", moving, "--model", classifier, "--out", IMAGES / "explain.png")
    draw("embed", run / "videos.csv", "--model", classifier, "--out", work / "index")
    draw("search", turning, "--index", work / "index", "--top-k", "4", "--sheet", IMAGES / "search.png")


def reconstruction(model: Path, video: Path) -> Reconstruction:
    """Return what a model makes of the middle of a video, half of which is hidden."""
    opened = load_pretrained(model, device="cpu")
    config = opened.model.config
    clip = read_clips(video, ClipSampling.of_model(config), clip_frames=config.num_frames)[0]
    mask = random_mask(config.grid, HIDDEN, generator=torch.Generator().manual_seed(0))
    return reconstruct(opened.model, opened.processor(clip, return_tensors="pt").pixel_values, mask)


def moving_picture(found: Reconstruction, video: Path, timeline: Timeline) -> NDArray[np.uint8]:
    """Return frames (T, H, W, 3): above a reconstruction, below a video beside its timeline, with a hand that moves."""
    views = side_by_side(found)
    figure = draw_timeline(timeline)
    figure.axes[0].get_legend().remove()  # the rows below have the names, too
    figure.set_size_inches((WIDTH - LEFT) / DPI, 2.6)
    figure.savefig(IMAGES / "videomae.png", dpi=DPI)
    with Image.open(IMAGES / "videomae.png") as drawn:
        plot = drawn.convert("RGB")
    (IMAGES / "videomae.png").unlink()
    above = figure.axes[0]
    height = views.shape[1] + MARGIN + plot.height
    font = ImageFont.load_default(15)
    frames = []
    with VideoReader(video) as reader:
        times = np.linspace(0, timeline.duration, PICTURES, endpoint=False)
        shown = reader.frames_at_times(times)
    for number, (time, frame) in enumerate(zip(times, shown, strict=True)):
        sheet = Image.new("RGB", (WIDTH, height + height % 2), "white")
        pen = ImageDraw.Draw(sheet)
        sheet.paste(Image.fromarray(views[number % len(views)]), (LEFT, 0))
        pen.multiline_text((MARGIN, 70), CAPTION, INK, font, spacing=6)
        top = views.shape[1] + MARGIN
        sheet.paste(plot, (LEFT, top))
        side = LEFT - 2 * MARGIN
        sheet.paste(Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST), (MARGIN, top))
        now = [event for event in timeline.events if event.start <= time < event.end]
        label = "\n".join(f"{event.label.replace('_', ' ')}" for event in now)
        pen.multiline_text((MARGIN, top + side + 6), f"{time:4.1f} s\n{label}", INK, font, spacing=4)
        x = LEFT + above.transData.transform((time, 0))[0] * DPI / figure.dpi
        pen.line((x, top + 8, x, top + plot.height - 40), SOFT, 2)
        frames.append(np.asarray(sheet))
    return np.stack(frames)


def write_small_gif(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames as a GIF that goes round, in few colours, the same in all: what stands still costs nothing then."""
    palette = Image.fromarray(np.concatenate(frames[:: len(frames) // 6])).quantize(COLOURS)
    first, *others = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
