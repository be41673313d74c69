"""The page that tells how a training run went: figures, curves, mistakes, reconstructions, the data's faults."""

import base64
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.files import atomic_write
from videomae.inference.metrics import Evaluation, VideoScores
from videomae.plots.contact_sheet import frame_strip
from videomae.plots.evaluation import plot_confusion
from videomae.plots.style import BLUE, GREEN, INK, ORANGE, SOFT
from videomae.training.metrics_log import read_metrics
from videomae.video.reader import VideoReader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from videomae.data.audit.check import CheckReport

MISTAKES, MISTAKE_FRAMES, RECONSTRUCTIONS = 8, 6, 3


def write_report(
    folder: Path,
    name: str,
    command: str,
    plan: Any,
    check: "CheckReport",
    evaluation: Evaluation,
    seconds: Mapping[str, float],
) -> Path:
    """Write report.html into the run directory: one file, with all pictures in it.

    Args:
        folder: the run directory.
        name: of the data.
        command: that repeats the run.
        plan: what was decided, and why.
        check: what is wrong with the data.
        evaluation: on the test split.
        seconds: by stage, over all parts of the run.

    Returns:
        The page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    manifest = read_manifest(folder / "manifest.csv")
    environment = Environment(
        loader=PackageLoader("videomae.plots"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda fraction: "-" if fraction is None else f"{100 * fraction:.1f} %"
    metrics = {stage: read_metrics(folder / stage) for stage in ("pretrain", "finetune")}
    page = environment.get_template("train.html").render(
        name=name,
        evaluation=evaluation,
        chance=1 / len(evaluation.classes),
        plan=plan,
        findings=[finding for finding in check.findings if finding.severity != "note"],
        curves=[(stage, _picture(draw_curves(lines, stage))) for stage, lines in metrics.items() if lines],
        confusion=_picture(plot_confusion(evaluation.confusion, evaluation.classes)),
        mistakes=[_mistake(*found, manifest, evaluation) for found in worst_mistakes(evaluation)],
        reconstructions=_reconstructions(folder, manifest),
        norm_pix_loss=(folder / "pretrain/model").exists()
        and VideoMAEConfig.from_pretrained(folder / "pretrain/model").norm_pix_loss,
        seconds=seconds,
        memory=max((line.get("memory_gb", 0.0) for lines in metrics.values() for line in lines), default=0.0),
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        command=command,
        settings={
            stage: (folder / stage / "settings.toml").read_text(encoding="utf-8")
            for stage in metrics
            if (folder / stage / "settings.toml").exists()
        },
    )
    file = folder / "report.html"
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file


def draw_curves(lines: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """Return loss, accuracy where it was measured, and learning rate over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _plot(axes, lines, "loss", BLUE, "training loss")
    _plot(axes, lines, "val_loss", ORANGE, "validation loss")
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if any("val_top1" in line for line in lines):
        right = axes.twinx()
        _plot(right, lines, "val_top1", GREEN, "validation top-1")
        right.set_ylim(0, 1)
        right.tick_params(labelsize=8)
        right.spines["top"].set_visible(False)
        right.legend(loc="lower right", fontsize=8, frameon=False)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    _plot(below, lines, "lr", SOFT, "learning rate")
    below.set_xlabel("step", fontsize=8)
    below.set_ylabel("learning rate", fontsize=8)
    below.tick_params(labelsize=8)
    below.spines[["top", "right"]].set_visible(False)
    return figure


def _plot(axes: Any, lines: Sequence[Mapping[str, Any]], name: str, colour: str, label: str) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.6)


def worst_mistakes(evaluation: Evaluation) -> list[tuple[VideoScores, np.ndarray]]:
    """Return the wrong videos of which the model was surest, each with its scores (L,), surest first."""
    wrong = [(video, video.scores) for video in evaluation.videos if video.scores is not None and not video.right]
    return sorted(wrong, key=lambda found: -float(found[1].max()))[:MISTAKES]


def _mistake(video: VideoScores, scores: np.ndarray, manifest: Manifest, evaluation: Evaluation) -> dict[str, Any]:
    stretch = video.path, video.start, video.end
    sample = next(sample for sample in manifest if (sample.path, sample.start, sample.end) == stretch)
    guess = int(scores.argmax())
    return {
        "path": Path(video.path).name,
        "true": evaluation.classes[video.label],
        "guess": evaluation.classes[guess],
        "score": float(scores[guess]),
        "true_score": float(scores[video.label]),
        "strip": _strip(sample),
    }


def _strip(sample: Sample) -> str:
    """Return frames of a video, or of its stretch, beside each other, as a data URI."""
    with VideoReader(sample.file) as reader:
        stretch = sample.some_frames_of(reader.times)
        chosen = np.linspace(stretch.start, stretch.stop - 1, MISTAKE_FRAMES).round().astype(int)
        frames = reader.frames_at(chosen)
    buffer = io.BytesIO()
    frame_strip(frames).save(buffer, "JPEG", quality=85)
    return _data_uri(buffer.getvalue(), "jpeg")


def _reconstructions(folder: Path, manifest: Manifest) -> list[str]:
    """Return pictures of test clips as the pre-trained model completes them; none without pre-training."""
    pretrained = folder / "pretrain/model"
    if not pretrained.exists():
        return []
    import torch

    from videomae.inference.reconstruct import load_pretrained, reconstruct
    from videomae.models.masking import MASKS
    from videomae.plots.reconstruction import draw
    from videomae.settings import from_recipe
    from videomae.training.pretraining import PretrainSettings
    from videomae.video.sampling import ClipSampling

    opened = load_pretrained(pretrained, device="cpu")
    model, processor = opened.model, opened.processor
    mask = from_recipe(PretrainSettings, folder / "pretrain/settings.toml").mask
    sampling, length = ClipSampling.of_model(model.config), model.config.num_frames
    test = manifest.split("test").samples
    chosen = [test[i] for i in np.linspace(0, len(test) - 1, min(RECONSTRUCTIONS, len(test))).round().astype(int)]
    pictures = []
    for number, sample in enumerate(chosen):
        with VideoReader(sample.file) as reader:
            stretch = sample.some_frames_of(reader.times)
            frames = reader.frames_at(
                stretch.start + sampling(len(stretch), video_fps=reader.fps, clip_frames=length)[0]
            )
        pixels = processor(list(frames), return_tensors="pt").pixel_values
        hidden = MASKS[mask.name](model.config.grid, mask.ratio, generator=torch.Generator().manual_seed(number))
        name = f"{Path(sample.path).name}, {mask.name} mask {mask.ratio:g}"
        pictures.append(_picture(draw(reconstruct(model, pixels, hidden), title=name)))
    return pictures


def _picture(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return _data_uri(buffer.getvalue(), "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
