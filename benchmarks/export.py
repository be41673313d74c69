"""Exported models: from a file to a label, the model alone, and an evaluation of many views, each against transformers.

    python benchmarks/export.py [VIDEO] [--preset base] [--rounds 5] [--parts process model evaluation]

Base size with random weights. Everything takes turns, so that a slow moment of the machine meets all; what counts are
the medians of the ratios of a round.

process     from a file to a label in a fresh process: `videomae predict` on the checkpoint and on what `videomae
            export` makes of it, against the usage example on transformers with a clip in the middle
model       one clip, in one process: PyTorch, float32 and bfloat16, as a fraction of the fastest product of matrices,
            and OpenVINO in float32, bfloat16 and int8, against transformers
evaluation  the data time of 50 videos with 5 x 3 views, against decoding the video anew for each view, as v1 does;
            the views must be the same. FOLDER holds the videos; by default they are made

Needs transformers, OpenVINO and NNCF: `pip install -e '.[dev,openvino]'`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from predict import THEIRS, run

PARTS = ("process", "model", "evaluation")
SIDE = (240, 320)  # of made videos


def compare(title: str, functions: dict[str, Callable[[], float]], base: str, rounds: int) -> dict[str, list[float]]:
    """Run all in turns, and print the median seconds of each and the median ratio to one of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(function())
    print(f"{title}, {rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for name, taken in times.items():
        ratios = [theirs / ours for ours, theirs in zip(taken, times[base], strict=True)]
        print(f"  {name:22} {statistics.median(ratios):6.2f}x   median {statistics.median(taken):.3f} s", flush=True)
    return times


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def export_all(model: Path, folder: Path, clip: Path) -> dict[str, Path]:
    """Export to OpenVINO in each precision that is timed."""
    from videomae.export.run import export

    data = folder / "calibration"
    data.mkdir()
    (data / clip.name).symlink_to(clip.resolve())
    options = {"allow_slower": True, "tolerance": 1.0, "agreement": 0.0, "accuracy_aware": False, "verified_clips": 1}
    return {
        f"openvino {precision}": export(
            model, "openvino", folder / "exported", precision=precision, data=data, **options
        ).path
        for precision in ("float32", "bfloat16", "int8")
    }


def processes(video: Path, model: Path, exported: dict[str, Path], rounds: int) -> None:
    from videomae import VideoReader

    with VideoReader(video) as reader:
        start = len(reader) // 2 - 8
    predict = ["-m", "videomae", "predict", str(video), "--json", "--model"]
    commands = {
        "transformers": ["-c", THEIRS, str(video), str(model), str(start)],
        "predict torch": [*predict, str(model)],
        **{f"predict {name}": [*predict, str(path)] for name, path in exported.items()},
    }
    for arguments in commands.values():  # the disk's cache is the same for all
        run(arguments)
    timings = {name: lambda arguments=arguments: run(arguments)[0] for name, arguments in commands.items()}
    compare(f"file to label, whole process, {video.name}", timings, "transformers", rounds)


def models(model: Path, exported: dict[str, Path], rounds: int) -> None:
    import torch
    from transformers import VideoMAEForVideoClassification

    from videomae import VideoClassifier
    from videomae.inference.peak import matmul_peak
    from videomae.pipeline.measure import finetuning_cost

    config = VideoClassifier.from_pretrained(model, device="cpu").config
    flops = finetuning_cost(config).forward_flops
    frames = np.random.default_rng(0).integers(256, size=(1, config.num_frames, *config.frame_size, 3), dtype=np.uint8)
    pixels = torch.randn(1, config.num_frames, 3, *config.frame_size)
    theirs = VideoMAEForVideoClassification.from_pretrained(model).eval()
    engines = {
        f"torch {dtype}": VideoClassifier.from_pretrained(model, device="cpu", dtype=dtype).engine
        for dtype in ("float32", "bfloat16")
    } | {name: VideoClassifier.from_pretrained(path).engine for name, path in exported.items()}

    def transformers() -> float:
        with torch.inference_mode():
            return timed(lambda: theirs(pixels))

    def product(dtype: torch.dtype) -> float:
        """Return the seconds that the model would take at the peak."""
        return flops / matmul_peak(dtype, torch.device("cpu"), seconds=0.3)

    timings: dict[str, Callable[[], float]] = {
        "transformers": transformers,
        "at float32's peak": lambda: product(torch.float32),
        "at bfloat16's peak": lambda: product(torch.bfloat16),
    }
    timings |= {name: lambda engine=engine: timed(lambda: engine(frames)) for name, engine in engines.items()}
    for function in timings.values():
        function()
    times = compare(f"one clip, {flops / 1e9:.0f} GFLOPs", timings, "transformers", rounds)
    for dtype in ("float32", "bfloat16"):
        peaks, taken = times[f"at {dtype}'s peak"], times[f"torch {dtype}"]
        reached = statistics.median(peak / ours for peak, ours in zip(peaks, taken, strict=True))
        print(f"  torch {dtype} reaches {reached:.0%} of the fastest product of matrices")


def evaluation(model: Path, data: Path | None, folder: Path, count: int, rounds: int) -> None:
    import torch

    from videomae import VideoClassifier, VideoReader, read_manifest
    from videomae.data.dataset import VideoDataset
    from videomae.inference.protocols import find_protocol
    from videomae.video.encode import write_video
    from videomae.video.synthetic import MOTIONS, motion_video

    if data is None:
        data, rng = folder / "videos", np.random.default_rng(0)
        for number in range(count):
            motion = list(MOTIONS)[number % len(MOTIONS)]
            frames = motion_video(motion, rng=rng, num_frames=300, size=max(SIDE))[:, : SIDE[0], : SIDE[1]]
            write_video(data / f"{number:03}.mp4", frames, fps=30)
    samples = read_manifest(data).samples[:count]
    classifier = VideoClassifier.from_pretrained(model, device="cpu")
    protocol = find_protocol("k400", classifier.config)
    transform, clips, length = classifier.view_transform(protocol), protocol.num_clips, classifier.config.num_frames
    dataset = VideoDataset(
        samples, sampling=protocol.sampling, clip_frames=length, num_clips=clips, training=False, transform=transform,
        threads=1, square_pixels=False,
    )  # fmt: skip

    def anew(index: int) -> torch.Tensor:
        """Return the views of a video, each of which opens and decodes it: every fourth frame of all, as v1 does."""
        views = []
        for clip in range(clips):
            for crop in range(protocol.num_crops):
                with VideoReader(samples[index].file, threads=1) as reader:
                    rows = protocol.sampling(len(reader), video_fps=reader.fps, clip_frames=length, num_clips=clips)
                    wanted = np.union1d(np.arange(0, len(reader), round(protocol.sampling.stride)), rows[clip])
                    frames = reader.frames_at(wanted)[np.searchsorted(wanted, rows[clip])]
                views.append(transform(frames)[crop])
        return torch.stack(views)

    ours = [dataset[index]["pixel_values"] for index in range(2)]
    scores = [classifier.probabilities(views[:4]) for views in ours]
    for index, views in enumerate(ours):
        again = anew(index)
        torch.testing.assert_close(again, views, rtol=0, atol=0)
        torch.testing.assert_close(classifier.probabilities(again[:4]), scores[index])
    print("the views are the same bits, and so are the scores")
    timings = {
        "each view anew": lambda: timed(lambda: [anew(index) for index in range(len(samples))]),
        "each video once": lambda: timed(lambda: [dataset[index] for index in range(len(samples))]),
    }
    compare(f"data time of {len(samples)} videos, 5 x 3 views, one process", timings, "each view anew", rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="a real clip of about 10 seconds")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", type=Path, help="folder of videos for the evaluation")
    parser.add_argument("--videos", type=int, default=50, help="how many of them")
    options = parser.parse_args()

    from videomae import VideoMAEConfig, VideoMAEForVideoClassification
    from videomae.config import IMAGENET_MEAN, IMAGENET_STD
    from videomae.video.checkpoint_processor import make_processor
    from videomae.video.encode import write_video
    from videomae.video.synthetic import motion_video

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = options.video or folder / "made.mp4"
        if options.video is None:
            write_video(video, motion_video("moving_right", rng=np.random.default_rng(0), num_frames=300, size=320))
        config = VideoMAEConfig.preset(options.preset, num_labels=400, layer_norm_eps=1e-12, output_norm_eps=1e-5)
        VideoMAEForVideoClassification(config).save_pretrained(folder / "model")
        make_processor(config, (IMAGENET_MEAN, IMAGENET_STD)).save_pretrained(folder / "model")
        if set(options.parts) & {"process", "model"}:
            exported = export_all(folder / "model", folder, video)
        if "model" in options.parts:
            models(folder / "model", exported, options.rounds)
        if "process" in options.parts:
            processes(video, folder / "model", exported, options.rounds)
        if "evaluation" in options.parts:
            evaluation(folder / "model", options.data, folder, options.videos, options.rounds)


if __name__ == "__main__":
    main()
