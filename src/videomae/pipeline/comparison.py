"""Whether learning paid: the model beside simple means, and on its training videos beside new ones."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from videomae.console import progress_bar
from videomae.data.audit.check import spread
from videomae.data.manifest import Manifest
from videomae.inference.baselines import Baseline, measure_baselines
from videomae.inference.metrics import Evaluation
from videomae.pipeline.budget import VIEWS
from videomae.pipeline.settings import TrainSettings
from videomae.settings import from_recipe
from videomae.training.metrics_log import read_metrics
from videomae.training.pretraining import PretrainSettings
from videomae.training.run_directory import SETTINGS_NAME
from videomae.training.settings import LoaderSettings

if TYPE_CHECKING:
    from videomae.inference.classifier import VideoClassifier

TRAINING_VIDEOS = 200  # that the model is measured on, at most
LITTLE = 0.9  # of the error that the mean of each patch leaves: above it pre-training has hardly begun to learn


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What to see a result beside.

    Attributes:
        training_top1: fraction, 0-1, that the model gets right of some of the videos that it learnt from.
        baselines: simple means on the same split.
        pretraining_error: of hidden pixels at the end of pre-training, over what the mean of each hidden patch leaves;
            None without such pre-training.
    """

    training_top1: float
    baselines: list[Baseline]
    pretraining_error: float | None = None

    def describe(self) -> str:
        """Say it in one line."""
        simple = ", ".join(f"{found.name} {found.top1:.1%}" for found in self.baselines)
        learnt = f"of its training videos {self.training_top1:.1%} are right; without learning from motion: {simple}"
        return learnt if self.pretraining_error is None else f"{learnt}\n{self.pretraining_verdict()}"

    def verdict(self, top1: float) -> str:
        """Say in words what the figures mean for a model that gets ``top1`` of the test videos right."""
        best = max(self.baselines, key=lambda found: found.top1)
        if top1 <= best.top1:
            return (
                f"Learning did not pay: {best.name} does as well. Give it more time (--budget), more videos, or a "
                "trained start (--init)."
            )
        if self.training_top1 - top1 > 0.2:
            return (
                "The model knows its training videos far better than new ones: part of it is learnt by heart. More "
                "videos help more than more time."
            )
        return "The model does on new videos about what it does on those that it learnt from."

    def pretraining_verdict(self) -> str:
        """Say in words whether pre-training learnt to complete videos; nothing without it."""
        if self.pretraining_error is None:
            return ""
        error = f"pre-training left {self.pretraining_error:.1%} of the error of each hidden patch's mean colour"
        if self.pretraining_error < LITTLE:
            return error
        return (
            f"{error}: it has hardly begun to learn, which takes thousands of steps. Give it a larger --budget, or a "
            "trained start (--init)"
        )


def compare(settings: TrainSettings, classifier: "VideoClassifier", manifest: Manifest) -> Comparison:
    """Measure the model on some of its training videos, and simple means on the test videos.

    Args:
        settings: what was asked for.
        classifier: the trained model.
        manifest: the videos with their splits.
    """
    train = manifest.split("train")
    some = dataclasses.replace(train, samples=tuple(spread(train.samples, TRAINING_VIDEOS)))
    return Comparison(
        training_top1=measure_model(settings, classifier, some).top1,
        baselines=measure_baselines(train, manifest.split("test")),
        pretraining_error=_pretraining_error(settings.out / "pretrain"),
    )


def _pretraining_error(run: Path) -> float | None:
    """Return the last loss of a run of pre-training with standardised targets, of which the mean leaves 1."""
    losses = [line["loss"] for line in read_metrics(run) if "loss" in line]
    if not losses or from_recipe(PretrainSettings, run / SETTINGS_NAME).model.norm_pix_loss is False:
        return None
    return losses[-1]


def measure_model(settings: TrainSettings, classifier: "VideoClassifier", videos: Manifest) -> Evaluation:
    """Measure a model on some views of each video; what cannot be read is wrong."""
    from videomae.inference.evaluate import evaluate
    from videomae.inference.protocols import Protocol

    with progress_bar("evaluating") as progress:
        return evaluate(
            classifier,
            videos,
            protocol=Protocol.of_model(classifier.config, views=f"{VIEWS}x1"),
            batch_size=24,
            num_workers=LoaderSettings(num_workers=settings.num_workers).workers(1),
            on_bad="wrong",
            allow_missing_classes=True,
            progress=progress,
        )
