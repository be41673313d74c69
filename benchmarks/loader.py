"""Clips per second of the pre-training loader, against decord + PIL and against the usage example's PyAV reading.

    python benchmarks/loader.py [--clip video.mp4] [--videos 16] [--rounds 5] [--workers 2]
    python benchmarks/loader.py --finetune
    python benchmarks/loader.py --soak 2000

The work: 16 frames, stride 4, MultiScaleCrop to 224, normalised float32 batches in the main process. The videos: H.264,
340x256, 10 s at 30 frames per second, x264's default settings; made here, of generated content or of ``--clip``. Where
they are prepared at 7.5 frames per second, 16 frames in a row last as long, but can begin at every fourth frame only.

All loaders take turns within a round, so that a slow moment of the machine meets all; a ratio is that of one round, and
the median over the rounds is printed. Processor time per clip, of all processes, is printed beside it, as it does not
depend on what else the machine does. ``--finetune`` compares fine-tuning's two augmented clips of a video with
torchvision's operations one after the other, in float32 from the workers on. ``--soak`` measures instead whether memory
and open files stay flat. Needs Linux (/proc) and, but for ``--finetune``, decord (`pip install decord`).
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.data.copies import prepare
from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import Sample
from videomae.data.transcode import Encoding
from videomae.video.augment import (
    ClipErasing,
    MultiScaleCrop,
    RandAugment,
    erase,
    finetune_crops,
    normalize,
    pretrain_augmentation,
)
from videomae.video.augment_settings import FinetuneAugmentation, PretrainAugmentation
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling, dense_indices

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from randaugment_reference import REFERENCE

FRAMES, STRIDE, SIZE = 16, 4, 224
WIDTH, HEIGHT, FPS, SECONDS = 340, 256, 30, 10
SAMPLING = ClipSampling(stride=STRIDE, fps=FPS)
BASELINE = "decord + PIL"


# ---------------------------------------------------------------------------------------------------- the videos


def make_videos(folder: Path, *, number: int, clip: Path | None) -> list[Path]:
    """Write videos of generated content, or of parts of a clip that is played forth and back."""
    files = []
    for seed in range(number):
        file = folder / f"{seed:03}.mp4"
        encode(file, generated(seed) if clip is None else excerpt(clip, seed))
        files.append(file)
    return files


def encode(file: Path, frames: Iterable[np.ndarray]) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def generated(seed: int) -> Iterator[np.ndarray]:
    """Textured patches that cross a textured, panning ground, with a camera's noise."""
    rng = np.random.default_rng(seed)
    ground = texture(rng, HEIGHT + 200, WIDTH + 400)
    patches = [(texture(rng, 80, 80), rng.uniform(size=4)) for _ in range(4)]
    for t in range(SECONDS * FPS):
        top, left = int(100 + 80 * np.cos(t / 80 + seed)), int(200 + 150 * np.sin(t / 60 + seed))
        frame = ground[top : top + HEIGHT, left : left + WIDTH].copy()
        for patch, (x, y, right, down) in patches:
            px = int((x * WIDTH + t * (6 * right - 3)) % (WIDTH - 80))
            py = int((y * HEIGHT + t * (4 * down - 2)) % (HEIGHT - 80))
            frame[py : py + 80, px : px + 80] = patch
        yield (frame + rng.normal(0, 3, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of several scales, the coarse ones strongest, as in photographs."""
    total = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32, 64):
        for channel in range(3):
            coarse = Image.fromarray(rng.normal(size=(height // scale + 2, width // scale + 2)).astype(np.float32))
            total[..., channel] += np.sqrt(scale) * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return (128 + 50 * (total - total.mean()) / total.std()).clip(0, 255)


def excerpt(clip: Path, seed: int) -> Iterator[np.ndarray]:
    with VideoReader(clip) as reader:
        cycle = [*range(len(reader)), *range(len(reader) - 2, 0, -1)]
        start = int(np.random.default_rng(seed).integers(len(cycle)))
        wanted = [cycle[(start + t) % len(cycle)] for t in range(SECONDS * FPS)]
        for begin in range(0, len(wanted), FPS):
            for frame in reader.frames_at(wanted[begin : begin + FPS]):
                yield np.asarray(Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


# ------------------------------------------------------------------------------------- the loaders to compare with


class PlainDataset(Dataset[Tensor]):
    """Pre-training clips as commonly written: decode, then PIL frame by frame."""

    def __init__(self, files: list[Path], decode: Callable[[str], list[Image.Image]]) -> None:
        self.files = [str(file) for file in files]
        self.decode = decode
        self.crop = MultiScaleCrop(SIZE)  # only draws the rectangle here

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        frames = self.decode(self.files[index])
        place = self.crop.make_params([torch.empty(0, frames[0].height, frames[0].width)])
        left, top = place["left"], place["top"]
        box = (left, top, left + place["width"], top + place["height"])
        resized = [frame.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for frame in frames]
        stacked = np.concatenate([np.asarray(frame) for frame in resized], axis=2)  # (S, S, T * 3)
        clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(clip, IMAGENET_MEAN * FRAMES, IMAGENET_STD * FRAMES, strict=True):
            channel.sub_(mean).div_(std)
        return clip.view(FRAMES, 3, SIZE, SIZE)


class PlainRandAugment(RandAugment):
    """RandAugment with torchvision's operations, on whole frames."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        for name, level, sign in params["operations"]:
            inpt = REFERENCE[name](inpt, level, sign)
        return inpt


def decode_with_decord(file: str) -> list[Image.Image]:
    import decord

    video = decord.VideoReader(file, num_threads=1, ctx=decord.cpu(0))
    indices = dense_indices(len(video), clip_frames=FRAMES, stride=STRIDE, generator=np.random.default_rng())
    return [Image.fromarray(frame).convert("RGB") for frame in video.get_batch(indices.tolist()).asnumpy()]


def decode_in_sequence(file: str) -> list[Image.Image]:
    """Read as the usage example does: every frame from the start to the last one needed."""
    with av.open(file) as container:
        number = container.streams.video[0].frames
        indices = dense_indices(number, clip_frames=FRAMES, stride=STRIDE, generator=np.random.default_rng())
        frames = []
        for i, frame in enumerate(container.decode(video=0)):
            if i > indices[-1]:
                break
            if i >= indices[0] and i in indices:
                frames.append(frame)
        return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in frames]


# --------------------------------------------------------------------------------------------------- our loaders


def our_dataset(files: list[Path], **options: Any) -> VideoDataset:
    samples = [Sample(f"{number}/{file.name}", file) for number, file in enumerate(files)]
    transform = pretrain_augmentation(PretrainAugmentation(), image_size=SIZE)
    return VideoDataset(samples, sampling=SAMPLING, clip_frames=FRAMES, training=True, transform=transform, **options)


def our_batches(loader: DataLoader) -> Iterator[Tensor]:
    out = None
    for batch in loader:
        out = normalize(batch["pixel_values"], mean=IMAGENET_MEAN, std=IMAGENET_STD, out=out)
        yield out


def compare(made: dict[str, list[Path]], *, rounds: int, workers: int, batch: int) -> None:
    """Let all loaders take turns, and print their clips per second and the ratios to the baseline."""
    plain = {"num_workers": workers, "persistent_workers": workers > 0, "drop_last": True, "shuffle": True}
    loaders: dict[str, Callable[[], Iterator[Tensor]]] = {}
    for name, decode in ((BASELINE, decode_with_decord), ("usage example (PyAV) + PIL", decode_in_sequence)):
        loaders[name] = DataLoader(PlainDataset(made["source"], decode), batch, **plain).__iter__
    for name, files, options in (
        ("ours", "source", {}),
        ("ours, 4 augmentations per decode", "source", {"augmentations_per_clip": 4}),
        ("ours, 4 clips per file", "source", {"clips_per_video": 4}),
        ("ours, prepared", "prepared", {}),
        ("ours, prepared, 4 augmentations", "prepared", {"augmentations_per_clip": 4}),
        ("ours, prepared at 7.5 fps", "prepared at 7.5 fps", {}),
    ):
        loader = build_loader(our_dataset(made[files], **options), batch_size=batch, num_workers=workers)
        loaders[name] = lambda loader=loader: our_batches(loader)

    speed: dict[str, list[float]] = defaultdict(list)
    cost: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):  # the first one starts the workers, and is not counted
        for name, batches in loaders.items():
            begin, used, clips = time.perf_counter(), processor_time(), 0
            for pixels in batches():
                pixels.sum()  # a model reads them
                clips += len(pixels)
            if turn:
                speed[name].append(clips / (time.perf_counter() - begin))
                cost[name].append(1000 * (processor_time() - used) / clips)

    table = Table("loader", "clips/s", "ratio", "each round", "CPU ms/clip", "ratio", title=f"ratios to {BASELINE}")
    for name in loaders:
        ratios = [ours / theirs for ours, theirs in zip(speed[name], speed[BASELINE], strict=True)]
        saved = [theirs / ours for ours, theirs in zip(cost[name], cost[BASELINE], strict=True)]
        numbers = [f"{statistics.median(values):.2f}" for values in (speed[name], ratios, cost[name], saved)]
        table.add_row(name, *numbers[:2], " ".join(f"{ratio:.2f}" for ratio in ratios), *numbers[2:])
    Console(width=120).print(table)


def compare_finetuning(files: list[Path], *, rounds: int, workers: int, batch: int) -> None:
    """Let fine-tuning's loader and one of torchvision's operations take turns, and print clips per second."""
    settings, pixels_of = FinetuneAugmentation(), {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    plain = v2.Compose(
        [
            PlainRandAugment(),
            v2.RandomResizedCrop(SIZE, settings.area, settings.aspect_ratio, antialias=True),
            v2.RandomHorizontalFlip(),
            partial(normalize, **pixels_of),
            ClipErasing(settings.erasing),
        ]
    )
    samples = [Sample(f"{number}/{file.name}", file) for number, file in enumerate(files)]
    options: dict[str, Any] = {"sampling": SAMPLING, "clip_frames": FRAMES, "training": True}
    loaders = {
        name: build_loader(
            VideoDataset(samples, transform=transform, augmentations_per_clip=2, **options),
            batch_size=batch,
            num_workers=workers,
        )
        for name, transform in (("torchvision", plain), ("ours", finetune_crops(settings, image_size=SIZE)))
    }
    speed: dict[str, list[float]] = defaultdict(list)
    cost: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):  # the first one starts the workers, and is not counted
        for name, loader in loaders.items():
            begin, used, clips = time.perf_counter(), processor_time(), 0
            for step, made in enumerate(loader):
                pixels = made["pixel_values"]
                if pixels.dtype == torch.uint8:
                    pixels = erase(normalize(pixels, **pixels_of), p=settings.erasing, seed=step)
                pixels.sum()  # a model reads them
                clips += len(pixels)
            if turn:
                speed[name].append(clips / (time.perf_counter() - begin))
                cost[name].append(1000 * (processor_time() - used) / clips)
    table = Table("fine-tuning", "clips/s", "CPU ms/clip")
    for name in loaders:
        table.add_row(name, f"{statistics.median(speed[name]):.2f}", f"{statistics.median(cost[name]):.2f}")
    ratios = [
        statistics.median([a / b for a, b in zip(x["ours"], x["torchvision"], strict=True)]) for x in (speed, cost)
    ]
    Console(width=120).print(
        table, f"ours / torchvision: {ratios[0]:.2f} in clips per second, {1 / ratios[1]:.2f} in CPU"
    )


def processor_time() -> float:
    """Seconds of processor time that this process and its children have used, children that have ended left out."""
    total = 0.0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


# ------------------------------------------------------------------------------------------- where the time goes


@contextmanager
def stopwatch(owner: Any, name: str, seconds: dict[str, float], label: str) -> Iterator[None]:
    """Add up the time that a method takes, without what other watched methods take within it."""
    original = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        begin, before = time.process_time(), sum(seconds.values())
        try:
            return original(*arguments, **options)
        finally:
            inner = sum(seconds.values()) - before
            seconds[label] += time.process_time() - begin - inner

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, original)


def split_of_time(files: dict[str, list[Path]]) -> None:
    """Print the processor time of each step for one clip of ours, in this process, with one thread.

    Each file was read before, as in every epoch but the first: how its frames are stored is remembered.
    """
    table = Table("ms per clip", "open", "decode", "convert", "crop, resize", "normalise", "rest", "all")
    for name, chosen in files.items():
        dataset = our_dataset(chosen, threads=1)
        for index in range(len(dataset)):
            dataset[0, index]
        seconds: dict[str, float] = defaultdict(float)
        begin = time.process_time()
        with (
            stopwatch(VideoReader, "__init__", seconds, "open"),
            stopwatch(PyAVDecoder, "frame_at", seconds, "decode"),
            stopwatch(VideoReader, "frames_at", seconds, "convert"),
            stopwatch(dataset, "transform", seconds, "crop, resize"),
        ):
            for index in range(len(dataset)):
                pixels = dataset[1, index]["pixel_values"]
                step = time.process_time()
                normalize(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
                seconds["normalise"] += time.process_time() - step
        total = time.process_time() - begin
        seconds["rest"], seconds["all"] = total - sum(seconds.values()), total
        table.add_row(name, *(f"{1000 * seconds[str(c.header)] / len(dataset):.2f}" for c in table.columns[1:]))
    Console(width=120).print(table)


# ------------------------------------------------------------------------------------------------------ soak


def soak(files: list[Path], *, clips: int) -> None:
    """Print memory and open files of one worker over many clips, and of all processes with 24 workers."""
    table = Table("workers", "clips", "MB, largest worker", "open files, worker", "open files, main process")
    for workers, number in ((1, clips), (24, 480)):
        dataset = our_dataset((files * (number // len(files) + 1))[:number])
        loader = build_loader(dataset, batch_size=4, num_workers=workers, prefetch_factor=4)
        for step, _ in enumerate(loader, start=1):
            if step % (number // 4 // 8) == 0:
                children = [child.pid for child in multiprocessing.active_children()]
                memory = max(private_bytes(process) for process in children) / 1e6
                files_open = [len(os.listdir(f"/proc/{process}/fd")) for process in (*children, os.getpid())]
                row = (workers, 4 * step, f"{memory:.1f}", max(files_open[:-1]), files_open[-1])
                table.add_row(*map(str, row))
        del loader
    Console(width=120).print(table)


def private_bytes(process: int | None) -> int:
    """Memory that this process alone holds, not what it shares with the others."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="make the videos of this one")
    parser.add_argument("--videos", type=int, default=16, help="how many to make")
    parser.add_argument("--repeat", type=int, default=3, help="times that an epoch goes through them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="videos per batch")
    parser.add_argument("--finetune", action="store_true", help="compare the augmentation of fine-tuning")
    parser.add_argument("--soak", type=int, metavar="CLIPS", help="measure memory and open files over this many clips")
    arguments = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        files = make_videos(source, number=arguments.videos, clip=arguments.clip)
        if arguments.finetune:
            written = files * arguments.repeat
            compare_finetuning(written, rounds=arguments.rounds, workers=arguments.workers, batch=arguments.batch)
            return
        if arguments.soak:
            soak(files, clips=arguments.soak)
            return
        made = {"source": files}
        for name, encoding in (("prepared", Encoding()), ("prepared at 7.5 fps", Encoding(max_fps=7.5))):
            prepare(source, Path(folder) / name, encoding=encoding)
            made[name] = [Path(folder) / name / file.name for file in files]
        for name, written in made.items():
            print(f"{name}: {sum(file.stat().st_size for file in written) / len(written) / 1000:.0f} kB per video")
        compare(
            {name: written * arguments.repeat for name, written in made.items()},
            rounds=arguments.rounds,
            workers=arguments.workers,
            batch=arguments.batch,
        )
        split_of_time(made)


if __name__ == "__main__":
    main()
