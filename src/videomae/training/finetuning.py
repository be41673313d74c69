"""Fine-tune: teach a pre-trained encoder the classes of labelled videos."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, Sample
from videomae.data.mirroring import resolve_mirroring
from videomae.training.experiment import (
    Batch,
    Experiment,
    Run,
    empty_clips,
    read_splits,
    run_experiment,
)
from videomae.training.heads import (
    ENCODER,
    HeadSettings,
    build_classifier,
    merged_lora,
    require_peft,
    standardize_features,
)
from videomae.training.run_directory import TrainingResult
from videomae.training.settings import (
    LoaderSettings,
    OptimSettings,
    RunSettings,
    TrainingDataSettings,
    TrainingSettings,
)
from videomae.training.validation import build_validation
from videomae.video.augment_settings import FinetuneAugmentation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from videomae.models.pretrained import PretrainedModel


@dataclasses.dataclass
class FinetuneSettings(TrainingSettings):
    """Teach a pre-trained encoder the classes of labelled videos."""

    TASK: ClassVar[str] = "finetune"

    head: HeadSettings = dataclasses.field(default_factory=HeadSettings)
    augment: FinetuneAugmentation = dataclasses.field(default_factory=FinetuneAugmentation)
    loader: LoaderSettings = dataclasses.field(default_factory=lambda: LoaderSettings(augmentations_per_clip=2))
    optim: OptimSettings = dataclasses.field(default_factory=lambda: OptimSettings(lr=5e-4, layer_decay=0.75))
    run: RunSettings = dataclasses.field(default_factory=lambda: RunSettings(epochs=75))


def finetune(settings: FinetuneSettings) -> TrainingResult:
    """Fine-tune a model, or go on with a run that was stopped; errors are those of `run_experiment`.

    The classes are those of the data, and travel with the model. A validation takes the middle clip of each video and
    its centre crop.

    >>> from pathlib import Path
    >>> settings = FinetuneSettings(TrainingDataSettings(Path("videos")), out=Path("finetuning"))
    >>> settings.init = "pretrained/model"
    >>> settings.loader = LoaderSettings(num_workers=0)
    >>> settings.optim.warmup_epochs = 0
    >>> settings.run = RunSettings(steps=2, batch_size=4, device="cpu")
    >>> finetune(settings).steps
    2
    """
    return run_experiment(Finetuning(settings))


class Finetuning(Experiment):
    """Classification of videos, with mixup, cutmix and soft targets (VideoMAE's fine-tuning)."""

    title = "fine-tuning"
    score = "val_top1"
    settings: FinetuneSettings

    def __init__(self, settings: FinetuneSettings) -> None:
        super().__init__(settings)
        s = settings
        if s.head.train == "lora":
            require_peft()
        self.train, self.val = labelled_splits(s.data)
        stored = self.resolve_config()
        self.statistics = self.resolve_statistics(stored)
        self.known = self._adopt_classes(stored)
        fields: dict[str, Any] = {
            "id2label": dict(enumerate(self.train.classes)),
            "drop_path": s.head.drop_path if s.head.train in ("all", "lora") else 0.0,
            "head_dropout": s.head.dropout,
            "label_smoothing": 0.0,  # it is the loss of this run that smooths, not the model
            "problem_type": None,
            **s.clips.config_fields(),
        }
        if s.head.train == "attentive":
            fields["attentive_pooling"] = True
        if self.checkpoint is not None and self.checkpoint.task != "classification":
            fields["use_mean_pooling"] = True
        self.config = stored.replace(**fields)
        self.flip, self.mirroring = resolve_mirroring(s.augment.flip, self.train.classes)
        self.samples = balanced(self.train) if s.head.balance == "sampling" else self.train.samples
        self.frozen = ENCODER if s.head.train in ("linear", "attentive") else None  # with LoRA less is trained

    def _adopt_classes(self, stored: VideoMAEConfig) -> list[int] | None:
        """Order the classes as a checkpoint that can tell them does; return which of its own they are, None without."""
        names = list(stored.id2label.values())
        can_tell = self.checkpoint is not None and "classifier.weight" in self.checkpoint.tensors
        if not can_tell or not set(self.train.classes) <= set(names):
            return None
        known = [i for i, name in enumerate(names) if name in self.train.classes]
        ordered = [names[i] for i in known]
        self.train, self.val = self.train.with_classes(ordered), self.val and self.val.with_classes(ordered)
        return known

    def model_class(self) -> "type[PretrainedModel]":
        """Return the model with its classifier."""
        from videomae.models.videomae import VideoMAEForVideoClassification

        return VideoMAEForVideoClassification

    def build_model(self) -> "PretrainedModel":
        """Return the model as it starts; a classifier for new classes is drawn anew, and small."""
        return build_classifier(self.settings.head, self.config, self.checkpoint, known=self.known)

    def begin(self, model: Any, run: Run) -> None:
        """Standardise the features that the classifier sees, where that is asked for."""
        import torch

        s, device = self.settings, run.accelerator.device
        if s.head.standardize and self.known is None:
            standardize_features(
                model.to(device), s.loader, self.train, self.statistics, batch_size=run.schedule.per_device_batch
            )
        weights = class_weights(self.train) if s.head.balance == "weights" else [1.0] * len(self.train.classes)
        self.class_weights = torch.tensor(weights, device=device)

    def transform(self) -> "Callable[[Tensor], Tensor]":
        """Return RandAugment, crop and flip; pixels stay uint8."""
        from videomae.video.augment import finetune_crops

        augment = dataclasses.replace(self.settings.augment, flip=self.flip)
        return finetune_crops(augment, image_size=self.config.frame_size[0])

    def loss(self, model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        """Return the soft cross-entropy of clips of which parts are erased, and that are mixed in pairs."""
        from videomae.models.losses import weighted_cross_entropy
        from videomae.training.loop import step_seed
        from videomae.video.augment import erase, mix, normalize

        mean, std = self.statistics
        clips = normalize(batch["pixel_values"], mean=mean, std=std)
        pixels, targets = mix(
            erase(clips, p=self.settings.augment.erasing, seed=step_seed(seed, 2)),
            batch["label"],
            num_classes=len(self.class_weights),
            settings=self.settings.augment,
            seed=step_seed(seed, 1),  # not the seed itself, which dropout draws from
        )
        logits = model(pixels, return_dict=False)[0]
        smoothing = self.settings.augment.label_smoothing
        return weighted_cross_entropy(logits, targets, self.class_weights, label_smoothing=smoothing)

    def example_loss(self, model: "PretrainedModel", num_clips: int) -> "Tensor":
        """Return the loss of clips without data."""
        return classification_example(model, num_clips)

    def validation(self, run: Run) -> "Callable[[nn.Module], dict[str, float]] | None":
        """Return what measures top-1 accuracy, where there are videos to validate on."""
        if self.val is None:
            return None
        return build_validation(self.settings.loader, self.val, self.config, self.statistics, run)

    def describe(self, model: "PretrainedModel", run: Run) -> list[str]:
        """Say what is trained on what, and which settings have no effect."""
        s, accelerator = self.settings, run.accelerator
        notes, mirrored = [], f"mirrored with probability {self.flip}"
        if self.mirroring is not None:
            mirrored = f"mirrored with probability {self.mirroring.probability}, labels of sides too"
        if s.head.standardize and self.known is not None:
            notes.append("head.standardize is not needed: the classifier is the checkpoint's own")
        if run.schedule.per_device_batch == 1 and (s.augment.mixup or s.augment.cutmix):
            notes.append("mixup and cutmix do nothing: a process takes one video at once, see run.per_device_batch")
        return [
            f"{len(self.train)} videos of {len(self.train.classes)} classes, {len(self.val) if self.val else 0} to "
            f"validate on; {model.num_parameters(only_trainable=True) / 1e6:.2f} of "
            f"{model.num_parameters() / 1e6:.2f} M parameters are trained, {accelerator.mixed_precision} mixed "
            f"precision on {accelerator.device}",
            f"starts from {s.init or 'random weights'}, with {'a new' if self.known is None else 'its own'} "
            f"classifier; {mirrored}",
            *notes,
        ]

    def finish(self, weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Merge what LoRA added."""
        head = self.settings.head
        return merged_lora(weights, self.config, head) if head.train == "lora" else weights


def classification_example(model: "PretrainedModel", num_clips: int) -> "Tensor":
    """Return the loss of a classifier for clips without data, on its device."""
    import torch

    return model(empty_clips(model, num_clips), torch.zeros(num_clips, dtype=torch.int64, device=model.device)).loss


def labelled_splits(data: TrainingDataSettings) -> tuple[Manifest, Manifest | None]:
    """Return the videos to train and to validate on.

    Raises:
        DataError: if there are no labels, a video lacks one, or all videos to train on are of one class.
    """
    train, val = read_splits(data)
    train.require_classes(str(data.path))
    if val is not None:
        val.require_labels(str(data.path))
    return train, val


def class_weights(manifest: Manifest) -> list[float]:
    """Return a weight for each class that makes all classes count alike; their mean over the videos is 1."""
    counts = Counter(sample.label for sample in manifest)
    return [len(manifest) / (len(counts) * max(counts[i], 1)) for i in range(len(manifest.classes))]


def balanced(manifest: Manifest) -> list[Sample]:
    """Return the videos, those of rare classes repeated until every class is as frequent as the largest."""
    by_class: dict[int | None, list[Sample]] = {}
    for sample in manifest:
        by_class.setdefault(sample.label, []).append(sample)
    largest = max(map(len, by_class.values()))
    return [samples[i % len(samples)] for samples in by_class.values() for i in range(largest)]
