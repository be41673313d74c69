"""The page that tells how a training run went: figures, curves, mistakes, reconstructions, the data's faults."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videomae.data.audit.findings import Finding
from videomae.data.manifest import Manifest, Sample
from videomae.files import atomic_write
from videomae.inference.metrics import Evaluation, VideoScores
from videomae.inference.reconstruct import Reconstruction
from videomae.plots.contact_sheet import frame_strip
from videomae.plots.curves import draw_curves
from videomae.plots.evaluation import plot_confusion
from videomae.plots.pages import page_environment
from videomae.plots.reconstruction import draw
from videomae.plots.style import figure_uri, image_uri
from videomae.video.reader import VideoReader

MISTAKES, MISTAKE_FRAMES = 8, 6


def write_report(
    file: Path,
    *,
    name: str,
    command: str,
    choices: Sequence[tuple[str, str, str]],
    findings: Sequence[Finding],
    evaluation: Evaluation,
    training_top1: float,
    baselines: Sequence[tuple[str, float]],
    verdict: str,
    test: Manifest,
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
    pretraining: str,
    reconstructions: Sequence[tuple[str, Reconstruction]],
    seconds: Mapping[str, float],
    settings: Mapping[str, str],
) -> Path:
    """Write a page that is one file, with all pictures in it.

    Args:
        file: to write.
        name: of the data.
        command: that repeats the run.
        choices: what was decided: what, which value, and why.
        findings: faults of the data.
        evaluation: on the test videos.
        training_top1: fraction, 0-1, of training videos that are right.
        baselines: simple means on the same split: name, and fraction of test videos that are right.
        verdict: what that means.
        test: these videos.
        metrics: the lines of metrics.jsonl by stage.
        pretraining: what it learnt, in words.
        reconstructions: of test clips by the pre-trained model, each with a title.
        seconds: by stage, over all parts of the run.
        settings: as TOML, by stage.

    Returns:
        The file.
    """
    environment = page_environment()
    environment.filters["percent"] = lambda fraction: "-" if fraction is None else f"{100 * fraction:.1f} %"
    page = environment.get_template("train.html").render(
        name=name,
        command=command,
        choices=choices,
        findings=[finding for finding in findings if finding.severity != "note"],
        evaluation=evaluation,
        training_top1=training_top1,
        baselines=sorted(baselines, key=lambda baseline: -baseline[1]),
        verdict=verdict,
        pretraining=pretraining,
        chance=1 / len(evaluation.classes),
        curves=[(stage, figure_uri(draw_curves(lines, title=stage))) for stage, lines in metrics.items() if lines],
        confusion=figure_uri(plot_confusion(evaluation.confusion, evaluation.classes)),
        mistakes=[_mistake(video, scores, test, evaluation) for video, scores in worst_mistakes(evaluation)],
        reconstructions=[figure_uri(draw(made, title=title)) for title, made in reconstructions],
        norm_pix_loss=any(made.with_statistics is not None for _, made in reconstructions),
        seconds=seconds,
        memory=max((line.get("memory_gb", 0.0) for lines in metrics.values() for line in lines), default=0.0),
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        settings=settings,
    )
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return file


def worst_mistakes(evaluation: Evaluation) -> list[tuple[VideoScores, np.ndarray]]:
    """Return the wrong videos of which the model was surest, each with its scores (L,), surest first."""
    wrong = [(video, video.scores) for video in evaluation.videos if video.scores is not None and not video.right]
    return sorted(wrong, key=lambda found: -float(found[1].max()))[:MISTAKES]


def _mistake(video: VideoScores, scores: np.ndarray, test: Manifest, evaluation: Evaluation) -> dict[str, Any]:
    stretch = video.path, video.start, video.end
    sample = next(sample for sample in test if (sample.path, sample.start, sample.end) == stretch)
    guess = int(scores.argmax())
    return {
        "path": Path(video.path).name,
        "true": evaluation.classes[video.label],
        "guess": evaluation.classes[guess],
        "score": float(scores[guess]),
        "true_score": float(scores[video.label]),
        "strip": image_uri(frame_strip(_some_frames(sample))),
    }


def _some_frames(sample: Sample) -> np.ndarray:
    """Return frames of a video, or of its stretch, (F, H, W, 3)."""

    def read(reader: VideoReader) -> np.ndarray:
        stretch = sample.some_frames_of(reader.times)
        return reader.frames_at(np.linspace(stretch.start, stretch.stop - 1, MISTAKE_FRAMES).round().astype(int))

    return sample.read(read)[0]
