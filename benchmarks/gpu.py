"""Everything that needs a GPU, in one command of some minutes: is it right, how fast is it, and what does it take.

    python benchmarks/gpu.py [--preset base] [--batch 32] [--out gpu.json]
    python benchmarks/gpu.py --device cpu --preset nano --image-size 48 --batch 2   # tries the script without a GPU

In turn: loss and gradients against the processor's; each flash kernel in bfloat16 against plain attention in float32;
how often a step waits for the GPU; memory against the estimate of ``--dry-run``; time of pre-training and fine-tuning
steps, plain and compiled without a graph break, and their FLOPs as a share of what a large matrix product reaches on
this card; and how many clips a second the loader gives, beside those that a step takes. What cannot be done on this
machine is printed with the reason. With ``--out`` all figures are written as JSON, with the names of card and versions.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, tube_mask
from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import read_manifest
from videomae.models.flash import KERNELS
from videomae.training.estimate import count_flops, estimate
from videomae.training.experiment import empty_clips
from videomae.training.finetuning import classification_example
from videomae.training.optim import build_optimizer, parameter_groups
from videomae.training.pretraining import PretrainSettings, pretrain
from videomae.training.settings import LoaderSettings, ModelSettings, OptimSettings, RunSettings, TrainingDataSettings
from videomae.video.augment import finetune_crops
from videomae.video.augment_settings import FinetuneAugmentation
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import write_motion_videos

MASK_RATIO = 0.9
TIMED_STEPS, WARM_UP = 10, 3

Model = VideoMAEForPreTraining | VideoMAEForVideoClassification
Loss = Callable[[Any, int], Tensor]


class Run:
    """What is measured on what, and what was found.

    Args:
        arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        self.is_cuda = self.device.type == "cuda"
        size = arguments.image_size or VideoMAEConfig.image_size
        self.config = VideoMAEConfig.preset(arguments.preset, image_size=size, use_mean_pooling=False)
        self.batch = arguments.batch
        self.figures: dict[str, Any] = {
            "card": torch.cuda.get_device_name() if self.is_cuda else platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "preset": arguments.preset,
            "batch": arguments.batch,
        }

    def note(self, name: str, value: Any) -> None:
        """Print a figure and keep it."""
        self.figures[name] = value
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}", flush=True)

    def pretraining(self, *, device: torch.device | str | None = None, **fields: Any) -> tuple[Model, Loss]:
        """Return a model to pre-train, the same at each call, and its loss for clips without data."""
        torch.manual_seed(0)
        model = VideoMAEForPreTraining(self.config.replace(**fields)).train().to(device or self.device)
        mask = tube_mask(self.config.grid, MASK_RATIO, generator=torch.Generator().manual_seed(0))
        hidden = int(mask.sum())

        def loss(model: Any, clips: int) -> Tensor:
            masks = mask.expand(clips, -1).to(model.device)
            return model(empty_clips(model, clips), masks, num_masked=hidden, output_logits=False).loss

        return model, loss

    def finetuning(self) -> tuple[Model, Loss]:
        """Return a classifier and its loss for clips without data."""
        model = VideoMAEForVideoClassification(self.config.replace(use_mean_pooling=True, num_labels=400))
        return model.train().to(self.device), classification_example

    @contextmanager
    def half(self, *, enabled: bool = True) -> Iterator[None]:
        """Compute in bfloat16 where autocast does."""
        with torch.autocast(self.device.type, torch.bfloat16) if enabled else nullcontext():
            yield

    def wait(self) -> None:
        """Wait for the GPU."""
        if self.is_cuda:
            torch.cuda.synchronize()


def without_data(model: Model) -> Model:
    """Return a model of the same configuration on the meta device."""
    with torch.device("meta"):
        return type(model)(model.config).train()


# ------------------------------------------------------------------------------------------------ is it right


def correctness(run: Run) -> None:
    """Compare loss and gradients in float32 with the processor's, on the same clips."""
    torch.set_float32_matmul_precision("highest")
    clips = torch.randn(2, run.config.num_frames, 3, *run.config.frame_size, generator=torch.Generator().manual_seed(0))
    mask = tube_mask(run.config.grid, MASK_RATIO, batch_size=2, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", run.device):
        model, _ = run.pretraining(device=device)
        loss = model(clips.to(device), mask.to(device)).loss
        loss.backward()
        gradient = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        found.append((loss.item(), gradient.item()))
    run.note("loss, difference from the processor's", abs(found[0][0] - found[1][0]))
    run.note("gradient norm, relative difference", abs(found[0][1] - found[1][1]) / found[0][1])
    torch.set_float32_matmul_precision("high")


def attention(run: Run) -> None:
    """Compare each flash kernel in bfloat16 with attention that is computed in float32."""
    clips = torch.randn(2, run.config.num_frames, 3, *run.config.frame_size, device=run.device)
    mask = tube_mask(run.config.grid, MASK_RATIO, batch_size=2).to(run.device)
    exact = run.pretraining(attn_implementation="eager")[0](clips, mask).loss.item()
    for name in ("sdpa", "flash_attention_2", *KERNELS):
        try:
            model, _ = run.pretraining(attn_implementation=name)
            with run.half():
                run.note(f"{name}, loss in bfloat16 less eager float32", model(clips, mask).loss.item() - exact)
        except RuntimeError as error:
            run.note(name, f"not here: {error}")
    run.pretraining(attn_implementation="flash_attention_2")  # so that PyTorch's own kernel is active again


def waiting(run: Run) -> None:
    """Count how often the steps of a small pre-training run wait for the GPU."""
    if not run.is_cuda:
        run.note(
            "waits of a step", "not here: only CUDA counts them (tests/unit/training/test_waiting.py does without)"
        )
        return
    waits: dict[int, int] = {}
    for steps in (20, 40):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            write_motion_videos(Path(folder) / "videos", per_class=4, size=64)
            settings = PretrainSettings(TrainingDataSettings(Path(folder) / "videos"), out=Path(folder) / "run")
            settings.model = ModelSettings("nano", image_size=48, patch_size=8, num_frames=16, tubelet_size=4)
            settings.optim.warmup_epochs = 0
            settings.run = RunSettings(steps=steps, batch_size=8, log_every=1000, trackers=(), compile=False)
            pretrain(settings)
            torch.cuda.set_sync_debug_mode("default")
            waits[steps] = sum("synchronizing CUDA operation" in str(warning.message) for warning in found)
    run.note("waits of a step", (waits[40] - waits[20]) / 20)


# ------------------------------------------------------------------------------------------------ how fast is it


def step_seconds(run: Run, model: Model, loss: Loss) -> float:
    """Return the median time of an optimiser step in bfloat16."""
    groups = parameter_groups(model, depth=run.config.num_hidden_layers, weight_decay=0.05)
    optimizer = build_optimizer(groups, OptimSettings(), run.device)
    times = []
    for _ in range(WARM_UP + TIMED_STEPS):
        run.wait()
        began = time.perf_counter()
        with run.half():
            value = loss(model, run.batch)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


def reachable_flops(run: Run) -> float:
    """Return the FLOPs per second of a large matrix product in bfloat16."""
    side = 8192 if run.is_cuda else 512
    matrix = torch.randn(side, side, device=run.device, dtype=torch.bfloat16)
    times = []
    for _ in range(WARM_UP + TIMED_STEPS):
        run.wait()
        began = time.perf_counter()
        matrix @ matrix
        run.wait()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(times[WARM_UP:])


def steps(run: Run) -> dict[str, float]:
    """Time steps, plain and compiled, and return the clips a second of the faster of both."""
    reachable = reachable_flops(run)
    run.note("TFLOP/s of a matrix product", reachable / 1e12)
    speeds = {}
    for name, make in (("pre-training", run.pretraining), ("fine-tuning", run.finetuning)):
        model, loss = make()
        flops = count_flops(without_data(model), loss)[1] * run.batch
        best = 0.0
        for compiled in (False, True) if run.is_cuda else (False,):
            model, loss = make()
            if compiled:
                torch._dynamo.reset()
                model.compile(fullgraph=True)  # a graph break is an error
            try:
                seconds = step_seconds(run, model, loss)
            except Exception as error:  # whatever a compiler raises
                run.note(f"{name}, compiled", f"not here: {str(error).splitlines()[0]}")
                continue
            how = "compiled, no graph break" if compiled else "plain"
            run.note(f"{name}, {how}: ms a step", 1000 * seconds)
            run.note(f"{name}, {how}: share of a matrix product's speed", flops / seconds / reachable)
            best = max(best, run.batch / seconds)
        speeds[name] = best
        run.note(f"{name}: clips a second", best)
    return speeds


def loading(run: Run, speeds: dict[str, float]) -> None:
    """Compare fine-tuning's loader, with all decoding processes of this machine, with what a step takes."""
    workers = LoaderSettings().workers(1)
    with tempfile.TemporaryDirectory() as folder:
        write_motion_videos(Path(folder), per_class=max(4 * run.batch // 6, 4), size=256, num_frames=90)
        dataset = VideoDataset(
            read_manifest(folder),
            sampling=ClipSampling(),
            clip_frames=run.config.num_frames,
            training=True,
            transform=finetune_crops(FinetuneAugmentation(), image_size=run.config.frame_size[0]),
            augmentations_per_clip=2,
        )
        loader = build_loader(dataset, batch_size=min(run.batch, 8), num_workers=workers, endless=True)
        batches = iter(loader)
        for _ in range(2 * workers + 2):  # what was decoded before the clock starts
            next(batches)
        began, clips = time.perf_counter(), 0
        while time.perf_counter() - began < 10:
            clips += len(next(batches)["pixel_values"])
        rate = clips / (time.perf_counter() - began)
        del batches, loader
    run.note(f"loader of fine-tuning, {workers} processes: clips a second", rate)
    run.note("loader over step", rate / speeds["fine-tuning"] if speeds.get("fine-tuning") else "no step was timed")


# --------------------------------------------------------------------------------------------- what does it take


def memory(run: Run) -> None:
    """Compare the most memory that was allocated in a step with the estimate."""
    if not run.is_cuda:
        run.note("memory over the estimate", "not here: only CUDA counts it (tests/unit/training/test_estimate.py)")
        return
    for name, make in (("pre-training", run.pretraining), ("fine-tuning", run.finetuning)):
        for recompute in (False, True):
            torch.cuda.empty_cache()
            model, loss = make()
            cost = estimate(without_data(model), loss, half=True, ema=False, recompute=recompute)
            if recompute:
                model.gradient_checkpointing_enable()
            torch.cuda.reset_peak_memory_stats()
            seconds = step_seconds(run, model, loss)
            peak = torch.cuda.max_memory_allocated()
            how = ", gradient checkpointing" if recompute else ""
            run.note(f"{name}{how}: GB allocated at most", peak / 1e9)
            run.note(f"{name}{how}: allocated over estimated", peak / cost.memory(run.batch))
            run.note(f"{name}{how}: ms a step", 1000 * seconds)
            del model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--image-size", type=int, help="in place of the preset's, pixels")
    parser.add_argument("--batch", type=int, default=32, help="clips in a step")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU; --device cpu tries the script without one")
    run = Run(arguments)
    print(f"{run.figures['card']}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    began = time.perf_counter()
    speeds: dict[str, float] = {}
    for part in (
        correctness,
        attention,
        waiting,
        memory,
        lambda run: speeds.update(steps(run)),
        partial(loading, speeds=speeds),
    ):
        part(run)
    run.note("minutes in all", (time.perf_counter() - began) / 60)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(run.figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
