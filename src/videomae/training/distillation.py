"""Distil: a classifier from a few hundred labelled videos and random weights, with a teacher made from the same videos.

A transformer has to find out that neighbouring pixels and frames belong together; some hundred labels are few for that.
A small convolutional network knows: it learns the videos first, and the transformer then learns, beside the labels, its
answers (Hinton et al., 2015, arXiv 1503.02531) and, for each token, its features ("hints", Romero et al., 2015,
arXiv 1412.6550). For most of the steps it sees the tubelets that move only. A BatchNorm before the classifier, as in
MAE's linear probe (arXiv 2111.06377), makes up for features that hardly differ between videos.

What training adds is folded into the weights or thrown away: the result is an ordinary classifier of RGB clips.

Shapes: B clips, T frames, H x W pixels; N tubelets, V visible; D width, L classes, F features of the teacher.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from videomae.data.manifest import Manifest, Sample
from videomae.data.mirroring import resolve_mirroring
from videomae.errors import DataError
from videomae.options import parse_duration
from videomae.training.experiment import (
    Batch,
    Experiment,
    Preempted,
    Run,
    build_training_loader,
    run_experiment,
)
from videomae.training.finetuning import classification_example, labelled_splits
from videomae.training.run_directory import TrainingResult
from videomae.training.settings import LoaderSettings, OptimSettings, RunSettings, TrainingSettings
from videomae.training.validation import build_validation
from videomae.video.augment_settings import DistillAugmentation
from videomae.video.checkpoint_processor import make_processor
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from videomae.data.cache import FrameCache
    from videomae.models.pretrained import PretrainedModel
    from videomae.models.student import Student
    from videomae.models.teacher import Teacher
    from videomae.video.processors import VideoMAEImageProcessor

TEACHER_FOLDER = "teacher"  # in the run directory
FEWEST_HELD_OUT = 2  # videos a class, on average, for the teacher to be validated on
TEACHER_COST = 0.5  # of a step of it, over one of the student, by which the time is shared out where it is limited
_TRAINING_ONLY = ("batch_norm.", "hints.")  # beginnings of the names of what the trained model does not keep


@dataclasses.dataclass
class TeacherSettings:
    """The teacher, and what is learnt from it."""

    steps_fraction: float = 0.5
    """Steps that the teacher is trained for, as a fraction of the run's own; a step of it takes half the time."""

    lr: float = 2e-3
    """Its highest learning rate, of AdamW, whatever the batch."""

    answers: float = 0.2
    """Weight of its answers in the loss; labels have 1 minus this."""

    held_out: float = 0.1
    """Fraction of the training videos, by group, that the teacher does not learn, so that its best weights are chosen
    by them, where there are no videos to validate on and enough of each class. The classifier learns all."""

    hints: float = 2.0
    """Weight of the squared error of its features, which have deviation 1."""


@dataclasses.dataclass
class MotionSettings:
    """Which tubelets are seen in training."""

    keep: float = 0.4
    """Fraction of the tubelets that is seen: those that move most. A test shows all."""

    until: float = 0.87
    """Fraction of the steps after which all are seen."""


@dataclasses.dataclass
class CacheSettings:
    """The training videos in memory, shrunk and grey, so that each is decoded once."""

    max_frames: int = 40
    """Evenly spaced frames that are kept of a video at most."""

    max_gb: float = 1.0
    """Memory for all of them; videos that do not fit are read from their files. 0 keeps none."""


@dataclasses.dataclass
class DistillSettings(TrainingSettings):
    """Train a small classifier on a few hundred videos, from random weights."""

    TASK: ClassVar[str] = "distill"

    teacher: TeacherSettings = dataclasses.field(default_factory=TeacherSettings)
    motion: MotionSettings = dataclasses.field(default_factory=MotionSettings)
    cache: CacheSettings = dataclasses.field(default_factory=CacheSettings)
    augment: DistillAugmentation = dataclasses.field(default_factory=DistillAugmentation)
    clips: ClipSampling = dataclasses.field(default_factory=lambda: ClipSampling("whole"))
    loader: LoaderSettings = dataclasses.field(default_factory=lambda: LoaderSettings(num_workers=1))
    optim: OptimSettings = dataclasses.field(
        default_factory=lambda: OptimSettings(name="muon", scale_lr=False, betas=(0.9, 0.98))
    )
    run: RunSettings = dataclasses.field(
        # Its steps are short, and of several kinds: compiling takes longer than it saves.
        default_factory=lambda: RunSettings(batch_size=16, validate_every=10, final="last", compile=False)
    )


def distill(settings: DistillSettings) -> TrainingResult:
    """Train a teacher and a classifier, or go on with a run that was stopped; errors are those of `run_experiment`.

    >>> from pathlib import Path
    >>> from videomae.training.settings import ModelSettings, TrainingDataSettings
    >>> settings = DistillSettings(TrainingDataSettings(Path("videos")), out=Path("distillation"))
    >>> settings.model = ModelSettings("tiny", image_size=32, num_frames=8)
    >>> settings.optim.warmup_epochs = 0
    >>> settings.run = RunSettings(steps=2, batch_size=4, device="cpu")
    >>> distill(settings).steps
    2
    """
    return run_experiment(Distillation(settings))


class Distillation(Experiment):
    """Classification of few videos, with a convolutional teacher that has learnt them before."""

    title = "distillation"
    score = "val_top1"
    faster = MappingProxyType({"hints.": 3.0})  # they have to catch up with the teacher, and are thrown away
    settings: DistillSettings

    def __init__(self, settings: DistillSettings) -> None:
        s = settings
        _check(s)
        super().__init__(s)
        self.train, self.val = labelled_splits(s.data)
        self.flip, self.mirroring = resolve_mirroring(s.augment.flip, self.train.classes)
        taught, self.teacher_val = self._hold_out()
        self.taught = len(taught)
        self.samples = (*taught, *(self.teacher_val or ()))
        fields = {"id2label": dict(enumerate(self.train.classes)), "use_mean_pooling": True, **s.clips.config_fields()}
        self.config = self.resolve_config(**fields)
        self.statistics = self.resolve_statistics(self.config)
        self.side = round(self.config.frame_size[0] * 9 / 8)  # whole frames; the model sees their middle
        self.visible = max(round(s.motion.keep * self.config.num_tubelets), 1)
        self._cache: FrameCache | None = None

    def _hold_out(self) -> tuple[Sequence[Sample], Manifest | None]:
        """Return the training videos that the teacher learns, and those that it is validated on besides."""
        fraction = self.settings.teacher.held_out
        if self.val is not None or fraction * len(self.train) < FEWEST_HELD_OUT * len(self.train.classes):
            return self.train.samples, None
        try:
            split = self.train.grouped_split({"train": 1 - fraction, "val": fraction}, seed=self.settings.run.seed)
        except DataError:  # too few groups
            return self.train.samples, None
        return split.split("train").samples, split.split("val")

    def model_class(self) -> "type[PretrainedModel]":
        """Return the model with its classifier."""
        from videomae.models.videomae import VideoMAEForVideoClassification

        return VideoMAEForVideoClassification

    def build_model(self) -> "Student":
        """Return the model with what it has in training only."""
        from videomae.models.student import Student

        return Student(self.config, self._new_teacher().feature_widths)

    def begin(self, model: "PretrainedModel", run: Run) -> None:
        """Read the videos, and train the teacher, or load it where that is done."""
        began, self.steps = time.perf_counter(), run.schedule.steps
        cache, augment = self.cache(), self.settings.augment
        if cache is not None and augment.mean is None:
            mean, std = cache.statistics()
            self.statistics = (mean,) * 3, (std,) * 3
        reading = time.perf_counter() - began
        self.teacher, seconds = train_teacher(self, self._new_teacher(), run)
        self.spent = reading + seconds

    def cache(self) -> "FrameCache | None":
        """Return the training videos in memory; they are decoded the first time."""
        from videomae.data.cache import FrameCache

        s = self.settings
        if self._cache is None and s.cache.max_gb > 0 and s.clips.is_of_whole_video:
            self._cache = FrameCache(
                self.samples,
                side=self.side,
                max_frames=s.cache.max_frames,
                max_bytes=s.cache.max_gb * 1e9,
                backend=s.loader.backend,
                square_pixels=s.loader.square_pixels,
            )
        return self._cache

    def transform(self) -> "Callable[[Tensor], Tensor]":
        """Return a crop that is zoomed, turned and shifted; pixels stay uint8."""
        from videomae.video.augment import distill_augmentation

        augment = dataclasses.replace(self.settings.augment, flip=self.flip)
        return distill_augmentation(augment, side=self.side, image_size=self.config.frame_size[0])

    def before_step(self, step: float) -> None:
        """Show what moves at first, all at the end."""
        self.shows_all = step >= self.settings.motion.until * self.steps or self.visible == self.config.num_tubelets

    def loss(self, model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        """Return the cross-entropy with labels and with the teacher's answers, and the error of the hints."""
        import torch
        from torch.nn import functional as F

        s, pixels = self.settings, self.normalized(batch)
        visible = None if self.shows_all else self.choose_visible(pixels, seed)
        with torch.no_grad():
            answers, features = self.teacher(pixels)
        logits, hints = model(pixels, visible)
        labels = F.cross_entropy(logits, batch["label"], label_smoothing=s.augment.label_smoothing)
        taught = F.cross_entropy(logits, answers.softmax(dim=1))
        errors = [F.mse_loss(hint, at(wanted, visible)) for hint, wanted in zip(hints, features, strict=True)]
        return (1 - s.teacher.answers) * labels + s.teacher.answers * taught + s.teacher.hints * sum(errors)

    def normalized(self, batch: Batch) -> "Tensor":
        """Return the grey pixels of a batch as `to_grey` makes them of normalised RGB, (B, T, 1, H, W) float32."""
        from videomae.models.teacher import LUMA

        channels = list(zip(LUMA, *self.statistics, strict=True))
        scale = sum(luma / std for luma, _, std in channels)
        shift = sum(luma * mean / std for luma, mean, std in channels)
        return batch["pixel_values"] * (scale / 255) - shift

    def choose_visible(self, pixels: "Tensor", seed: int) -> "Tensor":
        """Return the tubelets that move most, (B, V), of grey pixels (B, T, 1, H, W)."""
        import torch

        from videomae.models.masking import moving_tubelets

        generator = torch.Generator().manual_seed(seed)
        return moving_tubelets(pixels, self.config.tubelet_shape, num_visible=self.visible, generator=generator)

    def example_loss(self, model: "PretrainedModel", num_clips: int) -> "Tensor":
        """Return the loss of clips without data: of the model alone, with all tubelets."""
        return classification_example(model, num_clips)

    def check_devices(self, accelerator: "Accelerator") -> None:
        """Raise a ValueError for several processes."""
        if accelerator.num_processes > 1:
            raise ValueError(
                f"distillation is for small data and runs in one process, got {accelerator.num_processes}: start it "
                "without torchrun, or use `videomae finetune`."
            )

    def validation(self, run: Run) -> "Callable[[nn.Module], dict[str, float]] | None":
        """Return what measures top-1 accuracy, where there are videos to validate on."""
        return self.validation_on(self.val, run)

    def validation_on(self, val: Manifest | None, run: Run) -> "Callable[[nn.Module], dict[str, float]] | None":
        """Return what measures top-1 accuracy on some videos; None for none."""
        if val is None:
            return None
        from videomae.video.augment import squeezed_view

        view = partial(squeezed_view, side=self.side, image_size=self.config.frame_size[0])
        return build_validation(self.settings.loader, val, self.config, self.statistics, run, view=view)

    def run_settings(self) -> RunSettings:
        """Return how to run, in the time that reading and the teacher left."""
        run = self.settings.run
        if run.budget is None:
            return run
        left = parse_duration(run.budget, name="run.budget") - self.spent
        return dataclasses.replace(run, budget=f"{max(left, 1):.1f}s")

    def processor(self) -> "VideoMAEImageProcessor":
        """Return a processor that squeezes whole frames, as they were for training."""
        return make_processor(self.config, self.statistics, squeezed=self.side)

    def describe(self, model: "PretrainedModel", run: Run) -> list[str]:
        """Say what is trained on what."""
        kept = self._cache.nbytes / 1e6 if self._cache else 0
        validated = f"{len(self.val) if self.val else 0} to validate on"
        if self.teacher_val:
            validated = f"{len(self.teacher_val)} of which the teacher was chosen by"
        return [
            f"{len(self.train)} videos of {len(self.train.classes)} classes, {validated}; "
            f"{model.num_parameters() / 1e6:.2f} M parameters on {run.accelerator.device}; {kept:.0f} MB "
            "of frames in memory"
        ]

    def finish(self, weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Fold what training added into an ordinary model."""
        return fold(weights)

    def _new_teacher(self) -> "Teacher":
        from videomae.models.teacher import Teacher
        from videomae.training.loop import step_seed
        from videomae.video.augment import seeded

        with seeded(step_seed(self.settings.run.seed, 1)):
            return Teacher(self.config.num_labels, self.config.grid)


def train_teacher(experiment: Distillation, teacher: "Teacher", run: Run) -> "tuple[Teacher, float]":
    """Train the teacher in a folder of the run directory, or go on there; return it frozen, and its seconds.

    Raises:
        Preempted: where SIGTERM ended it early; the same command goes on from there.
    """
    from torch.nn import functional as F

    from videomae.data.timing import DataTimeMeter
    from videomae.training.devices import build_accelerator
    from videomae.training.loop import Job, fit, step_seed
    from videomae.training.optim import parameter_groups
    from videomae.training.schedule import Schedule

    e, s = experiment, experiment.settings
    folder = s.out / TEACHER_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    budget = s.run.budget
    if budget is not None:
        work = TEACHER_COST * s.teacher.steps_fraction
        budget = f"{parse_duration(budget, name='run.budget') * work / (1 + work):.1f}s"
    settings = dataclasses.replace(
        s.run,
        budget=budget,
        steps=max(round(s.teacher.steps_fraction * run.schedule.steps), 1),
        gradient_checkpointing=False,
        compile=False,
        final="last" if e.teacher_val is None else "best",
        patience=None,
        keep_last=1,
    )
    warmup = s.optim.warmup_epochs * s.teacher.steps_fraction
    optim = OptimSettings(lr=s.teacher.lr, scale_lr=False, warmup_epochs=warmup)
    schedule = Schedule.make(settings, optim, num_videos=e.taught, world_size=1)

    def loss(model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        run.unreadable.add(batch["unreadable"])
        return F.cross_entropy(model(e.normalized(batch))[0], batch["label"], label_smoothing=s.augment.label_smoothing)

    job = Job(
        teacher,
        loss,
        # Clips of its own: its answers to those that it was trained on say little.
        build_training_loader(e, run, seed=step_seed(s.run.seed, 1), first=e.taught),
        parameter_groups(teacher, depth=0, weight_decay=optim.weight_decay),
        DataTimeMeter(),
        e.validation_on(e.val or e.teacher_val, run),
        e.score,
        "teacher",
    )
    accelerator = build_accelerator(settings, folder=folder)
    outcome = fit(accelerator, job, schedule, folder=folder, run=settings, optim=optim)
    if outcome.interrupted:
        raise Preempted(outcome)
    teacher.load_state_dict(outcome.weights)
    return teacher.eval().requires_grad_(False), outcome.seconds


def at(features: "Tensor", visible: "Tensor | None") -> "Tensor":
    """Return the features (B, N, F) of the (B, V) visible places, or of all."""
    return features if visible is None else features.gather(1, visible[..., None].expand(-1, -1, features.shape[2]))


def fold(weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the weights of the ordinary model that computes what a `Student` does in evaluation.

    The statistics of the BatchNorm go into the classifier, and the embedding of grey tubelets becomes one of RGB.
    """
    import torch

    from videomae.models.student import BATCH_NORM_EPS
    from videomae.models.teacher import LUMA

    weights = dict(weights)
    scale = (weights["batch_norm.running_var"] + BATCH_NORM_EPS).rsqrt()
    classifier, embedding = weights["classifier.weight"] * scale, "videomae.patch_embed.proj.weight"
    weights["classifier.bias"] = weights["classifier.bias"] - classifier @ weights["batch_norm.running_mean"]
    weights["classifier.weight"] = classifier
    weights[embedding] = torch.cat([weights[embedding] * luma for luma in LUMA], dim=1)
    return {name: tensor for name, tensor in weights.items() if not name.startswith(_TRAINING_ONLY)}


def _check(s: DistillSettings) -> None:
    if s.init is not None:
        raise ValueError(f"distillation starts from random weights, got --init {s.init}: use `videomae finetune`.")
    for name, value in (
        ("teacher.steps_fraction", s.teacher.steps_fraction),
        ("motion.keep", s.motion.keep),
    ):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must lie above 0, and be at most 1, got {value}.")
    for name, value in (
        ("teacher.answers", s.teacher.answers),
        ("teacher.held_out", s.teacher.held_out),
        ("motion.until", s.motion.until),
    ):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
