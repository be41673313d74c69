"""See it work, offline: make videos, train the tiny preset on them, save it, predict with it."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from videomae.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from videomae.errors import DataError
from videomae.video.processors import VideoMAEImageProcessor
from videomae.video.reader import VideoReader
from videomae.video.synthetic import MOTIONS, write_motion_videos

if TYPE_CHECKING:
    from rich.progress import TaskID
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForVideoClassification

SIZE, CLIP_FRAMES, STRIDE = 64, 8, 2
CLIP_SPAN = (CLIP_FRAMES - 1) * STRIDE + 1


@dataclasses.dataclass
class QuickstartSettings:
    """See it work, offline: make videos, train the tiny preset on them for some two minutes, predict with it."""

    out: Path = Path("quickstart")
    """Directory for the videos and the model; must not exist yet."""

    videos_per_class: int = 40
    """Training videos of each of the 6 classes; a quarter as many are made to test with."""

    steps: int = 350
    """Optimiser steps."""

    batch_size: int = 32
    """Clips per step."""

    learning_rate: float = 1e-3
    """Highest learning rate of the one-cycle schedule."""

    seed: int = 0
    """Of videos, weights and the order of clips."""


@dataclasses.dataclass(frozen=True)
class QuickstartResult:
    """What came out.

    Attributes:
        model: directory of the trained checkpoint.
        accuracy: share of test videos that are classified right, in 0-1.
        num_test_videos: how many that share is of.
        seconds: time that training took.
        example: a test video.
    """

    model: Path
    accuracy: float
    num_test_videos: int
    seconds: float
    example: Path


Progress = Callable[[str, int, int, str], object]


def quickstart(settings: QuickstartSettings, *, progress: Progress = lambda *_: None) -> QuickstartResult:
    """Make procedural videos, train on them and measure on videos that were not trained on.

    Args:
        settings: where, how much, how long.
        progress: called with a stage, the work done of it, its total, and a remark.

    Raises:
        DataError: if the directory exists.
    """
    import torch

    from videomae.video.augment import normalize

    if settings.out.exists():
        raise DataError(f"{settings.out} exists already: name another directory with --out")
    torch.manual_seed(settings.seed)
    clips, labels, _ = make_videos("train", settings.videos_per_class, settings, progress)
    tests, truth, files = make_videos("test", max(settings.videos_per_class // 4, 1), settings, progress)
    config = VideoMAEConfig.preset("tiny", image_size=SIZE, num_frames=CLIP_FRAMES, id2label=dict(enumerate(MOTIONS)))
    began = time.perf_counter()
    model = train(config, clips, labels, settings, progress)
    seconds = time.perf_counter() - began
    model.save_pretrained(settings.out / "model")
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
    processor.save_pretrained(settings.out / "model")
    with torch.inference_mode():
        middle = take_clips(tests, torch.full((len(tests),), (tests.shape[1] - CLIP_SPAN) // 2))
        right = model(normalize(middle, mean=IMAGENET_MEAN, std=IMAGENET_STD)).logits.argmax(dim=-1) == truth
    return QuickstartResult(settings.out / "model", right.float().mean().item(), len(tests), seconds, files[0])


def make_videos(
    split: str, per_class: int, settings: QuickstartSettings, progress: Progress
) -> tuple["Tensor", "Tensor", list[Path]]:
    """Write the videos of a split and read them back.

    Returns:
        All frames (N, T, C, H, W) uint8, labels (N,) int64, and the files.
    """
    import torch

    folder, total = settings.out / "videos" / split, per_class * len(MOTIONS)
    seed = 2 * settings.seed + (split == "test")
    done = itertools.count(1)
    files = write_motion_videos(
        folder,
        per_class=per_class,
        seed=seed,
        size=SIZE,
        progress=lambda _: progress(f"making {split} videos", next(done), total, ""),
    )
    frames = []
    for file in files:
        with VideoReader(file, threads=1) as reader:
            frames.append(torch.from_numpy(reader.frames_at(range(reader.num_frames))))
    labels = torch.arange(len(MOTIONS)).repeat_interleave(per_class)
    return torch.stack(frames).permute(0, 1, 4, 2, 3), labels, files


def take_clips(videos: "Tensor", starts: "Tensor") -> "Tensor":
    """Take one clip of each video (B, T, C, H, W), from the frame ``starts`` (B,) on."""
    import torch

    indices = starts[:, None] + STRIDE * torch.arange(CLIP_FRAMES)
    return videos[torch.arange(len(videos))[:, None], indices]


def train(
    config: VideoMAEConfig, videos: "Tensor", labels: "Tensor", settings: QuickstartSettings, progress: Progress
) -> "VideoMAEForVideoClassification":
    """Train a classifier from random weights on clips with random starts and positions (the videos wrap around).

    Args:
        config: of the model.
        videos: (N, T, C, H, W) uint8.
        labels: (N,) int64.
        settings: steps, batch size, learning rate and seed.
        progress: as for ``quickstart``.

    Returns:
        The model, in evaluation mode.
    """
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.video.augment import normalize

    model = VideoMAEForVideoClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        batch = torch.randint(len(videos), (settings.batch_size,), generator=generator)
        starts = torch.randint(videos.shape[1] - CLIP_SPAN + 1, (settings.batch_size,), generator=generator)
        shift = torch.randint(SIZE, (2,), generator=generator).tolist()
        clips = take_clips(videos[batch], starts).roll(shift, dims=(3, 4))
        loss = model(normalize(clips, mean=IMAGENET_MEAN, std=IMAGENET_STD), labels=labels[batch]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress("training", step + 1, settings.steps, f"loss {loss.item():.3f}")
    return model.eval()


def main(settings: QuickstartSettings) -> int:
    """Run, show progress, and end with a prediction and what to type next."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from videomae.tasks import predict

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[remark]}"), console=Console(stderr=True)) as bar:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int, remark: str) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total, remark=remark)
            bar.update(stages[stage], completed=done, remark=remark)

        result = quickstart(settings, progress=show)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{result.accuracy:.1%} of {result.num_test_videos} test videos are right (chance: {1 / len(MOTIONS):.1%}), "
        f"after {result.seconds:.0f} s of training. The model is in {result.model}.\n"
    )
    command = f"videomae predict {result.example} --model {result.model} --top-k 3 --stride {STRIDE}"
    console.print(f"$ {command}", markup=False)
    asked = predict.PredictSettings(files=(result.example,), model=str(result.model), top_k=3, stride=STRIDE)
    return predict.main(asked)
