"""Procedural clips: what they look like, and what they cost beside a training step on them.

    python benchmarks/procedural.py [--sheet clips.png] [--clips 12]

Draws a sheet of clips (a row each, eight of their frames), and prints the time of a batch against that of a step of a
small classifier (4 blocks, 128 wide, 64 pixels in patches of 8) on it: a ratio of one run, on one thread.
"""

import argparse
import time
from pathlib import Path

import torch
from PIL import Image

from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.video.procedural import MOTIONS, ProceduralSettings, batch_generator, procedural_clips

BATCH, ROUNDS, SHOWN, SCALE = 16, 8, 8, 2


def draw_sheet(path: Path, clips: int) -> None:
    pixels, _ = procedural_clips(clips, generator=batch_generator(0, 0), settings=ProceduralSettings(colour=True))
    frames = pixels[:, :: pixels.shape[1] // SHOWN].permute(0, 3, 1, 4, 2)  # (clips, H, frames, W, C)
    picture = Image.fromarray(frames.reshape(clips * frames.shape[1], -1, 3).numpy())
    picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.sheet is not None:
        draw_sheet(arguments.sheet, arguments.clips)
        print(f"written: {arguments.sheet}")
    config = VideoMAEConfig.preset("nano", image_size=64, patch_size=8, tubelet_size=4, num_channels=1)
    model = VideoMAEForVideoClassification(config.replace(id2label=dict(enumerate(MOTIONS)))).train()
    drawing = training = 0.0
    for i in range(ROUNDS):
        began = time.perf_counter()
        pixels, labels = procedural_clips(BATCH, generator=batch_generator(0, i))
        drawn = time.perf_counter()
        model((pixels.float() / 255 - 0.43) / 0.27, labels=labels.motion[:, 0]).loss.backward()
        if i:  # the first batch makes the textures
            drawing += drawn - began
            training += time.perf_counter() - drawn
    steps = ROUNDS - 1
    print(f"a batch of {BATCH}: {1000 * drawing / steps:.0f} ms to draw, {1000 * training / steps:.0f} ms to train on")
    print(f"ratio {drawing / training:.2f}")


if __name__ == "__main__":
    main()
