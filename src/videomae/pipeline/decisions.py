"""What was decided for a run, each thing with its reason, and kept so that a stopped run goes on as it was planned."""

import dataclasses
from typing import Any

from videomae.pipeline.recipes import BATCH
from videomae.video.sampling import ClipSampling


@dataclasses.dataclass(frozen=True)
class Choice:
    """One thing that was decided, and why."""

    what: str
    value: str
    reason: str


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """What a run will do; stored with it, so that one that was stopped goes on as it was planned.

    Attributes:
        model: fields of `ModelSettings`; none for a given checkpoint, and for a method that has one of its own.
        clips: which frames make a clip; the recipes add their jitter.
        pretrain_epochs: 0 for none.
        finetune_epochs: passes with labels.
        choices: each with its reason.
        batch_size: videos per optimiser step of fine-tuning.
        pretrain_batch_size: the same of pre-training; None takes that of fine-tuning.
        per_device_batch: those that fit into memory at once.
        learning_rate: of fine-tuning a given checkpoint; None takes that of the preset.
        layer_decay: of fine-tuning a given checkpoint; None takes the recipe's.
        mean: of the videos' own pixels, per channel, from 0 to 1; None takes the checkpoint's, or ImageNet's.
        std: their standard deviation.
        copy_side: shorter side of the small copies that are made of the training videos first; None makes none.
        seconds: that the steps of a stage may take at most, by its name; none for a stage whose epochs are given.
        distill_epochs: at most, with a teacher, in place of pre-training and fine-tuning; 0 for none.
    """

    model: dict[str, Any]
    clips: ClipSampling
    pretrain_epochs: int
    finetune_epochs: int
    choices: tuple[Choice, ...]
    batch_size: int = BATCH
    pretrain_batch_size: int | None = None
    per_device_batch: int | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    copy_side: int | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    distill_epochs: int = 0

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainPlan":
        """Return a plan as ``dataclasses.asdict`` and JSON left it, also one of a version without ``clips``."""
        fields = dict(fields)
        if "clips" not in fields:
            frames = {"method": fields.pop("sampling", "dense"), "fps": fields.pop("fps", None)}
            fields["clips"] = frames | {"stride": fields.pop("stride")}
        fields["clips"] = ClipSampling(**fields["clips"])
        fields |= {name: tuple(fields[name]) for name in ("mean", "std") if fields.get(name) is not None}
        return cls(**fields | {"choices": tuple(Choice(**choice) for choice in fields["choices"])})
