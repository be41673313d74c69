"""What the page about a run shows, gathered from its directory."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videomae.data.audit.check import CheckReport
from videomae.data.manifest import Manifest, Sample
from videomae.inference.metrics import Evaluation
from videomae.pipeline.comparison import Comparison
from videomae.pipeline.decisions import TrainPlan
from videomae.pipeline.settings import TrainSettings, command_of
from videomae.settings import from_recipe
from videomae.training.metrics_log import read_metrics
from videomae.training.pretraining import PretrainSettings
from videomae.training.run_directory import SETTINGS_NAME
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from videomae.inference.reconstruct import Reconstruction

REPORT_NAME = "report.html"
RECONSTRUCTIONS = 3
TRAINED = ("pretrain", "finetune", "distill/teacher", "distill")  # folders of the run directory


def report_run(
    settings: TrainSettings,
    plan: TrainPlan,
    check: CheckReport,
    test: Manifest,
    evaluation: Evaluation,
    comparison: Comparison,
    seconds: Mapping[str, float],
) -> Path:
    """Write report.html into the run directory, and return it.

    Args:
        settings: what was asked for.
        plan: what was decided, and why.
        check: what is wrong with the data.
        test: the videos of the evaluation.
        evaluation: of the model.
        comparison: what to see that beside.
        seconds: by stage, over all parts of the run.
    """
    from videomae.plots.train_report import write_report

    texts = {stage: settings.out / stage / SETTINGS_NAME for stage in TRAINED}
    return write_report(
        settings.out / REPORT_NAME,
        name=settings.data.path.name,
        command=command_of(settings),
        choices=[(choice.what, choice.value, choice.reason) for choice in plan.choices],
        findings=check.findings,
        evaluation=evaluation,
        training_top1=comparison.training_top1,
        baselines=comparison.baselines,
        verdict=comparison.verdict(evaluation.top1),
        test=test,
        metrics={stage: read_metrics(settings.out / stage) for stage in TRAINED},
        pretraining=comparison.pretraining_verdict(),
        reconstructions=reconstruct_some(settings.out / "pretrain", test),
        seconds=seconds,
        settings={stage: file.read_text(encoding="utf-8") for stage, file in texts.items() if file.exists()},
    )


def reconstruct_some(run: Path, videos: Manifest) -> "list[tuple[str, Reconstruction]]":
    """Return what a pre-trained model makes of the middle clips of some videos, titled; nothing without a model.

    Args:
        run: the directory of pre-training.
        videos: of which some are taken, evenly apart.
    """
    if not (run / "model").exists():
        return []
    import torch

    from videomae.inference.reconstruct import load_pretrained, reconstruct
    from videomae.models.masking import MASKS

    opened = load_pretrained(run / "model", device="cpu")
    config = opened.model.config
    mask = from_recipe(PretrainSettings, run / SETTINGS_NAME).mask
    sampling = ClipSampling.of_model(config)
    found = []
    for number, place in enumerate(np.linspace(0, len(videos) - 1, min(RECONSTRUCTIONS, len(videos))).round()):
        sample = videos.samples[int(place)]
        frames, _ = sample.read(partial(_middle_clip, sample, sampling, config.num_frames))
        pixels = opened.processor(list(frames), return_tensors="pt").pixel_values
        hidden = MASKS[mask.name](config.grid, mask.ratio, generator=torch.Generator().manual_seed(number))
        title = f"{Path(sample.path).name}, {mask.name} mask {mask.ratio:g}"
        found.append((title, reconstruct(opened.model, pixels, hidden)))
    return found


def _middle_clip(sample: Sample, sampling: ClipSampling, num_frames: int, reader: VideoReader) -> NDArray[np.uint8]:
    stretch = sample.some_frames_of(reader.times)
    return reader.frames_at(stretch.start + sampling(len(stretch), video_fps=reader.fps, clip_frames=num_frames)[0])
