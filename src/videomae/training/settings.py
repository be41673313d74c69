"""What every training run can be told: how to optimise, and how to run."""

import dataclasses
from typing import Literal


@dataclasses.dataclass
class OptimSettings:
    """AdamW with a cosine schedule."""

    lr: float = 1e-3
    """Highest learning rate at a batch of 256 videos; see scale_lr."""

    scale_lr: bool = True
    """Multiply lr and min_lr by run.batch_size / 256 (v1, v2)."""

    min_lr: float = 1e-6
    """Learning rate at the end of the cosine, scaled like lr."""

    warmup_epochs: float = 5.0
    """Epochs in which the learning rate rises linearly from 0."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's running averages."""

    eps: float = 1e-8
    """Added to AdamW's denominator."""

    weight_decay: float = 0.05
    """Decoupled weight decay; biases, LayerNorms and the mask token have none."""

    layer_decay: float = 1.0
    """Each encoder block learns this times slower than the one above it; 1 is off."""

    clip_grad: float | None = None
    """Largest norm of the gradient; None leaves it as it is."""

    ema: float | None = None
    """Keep a running average of the weights with this decay, such as 0.9999, and validate and save that. The decay
    rises from 0.1 at the first step, so that the weights before training are soon forgotten."""


@dataclasses.dataclass
class RunSettings:
    """How long, on what, and what is kept of it."""

    epochs: int = 100
    """Passes over the training videos."""

    steps: int | None = None
    """Optimiser steps, in place of epochs."""

    batch_size: int = 64
    """Videos per optimiser step, over all processes and accumulated micro-batches: results do not depend on how many
    devices share them."""

    per_device_batch: int | None = None
    """Videos that a process takes at once; None takes its whole share. What is left of batch_size is accumulated."""

    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Of the computation (weights stay float32); auto is bf16 on a CUDA GPU that has it, float32 elsewhere."""

    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU (CUDA, MPS, ...) if there is one."""

    strategy: Literal["auto", "fsdp", "deepspeed"] = "auto"
    """How several processes share the work: auto does what `accelerate launch` was told, or DDP; fsdp shards weights,
    gradients and optimiser state; deepspeed does so with DeepSpeed (ZeRO 2), which must be installed."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""

    compile: bool = False
    """Compile the model with torch.compile."""

    seed: int = 0
    """Of weights, data order, augmentation, masks and dropout."""

    validate_every: int = 1
    """Epochs between two validations, where there is something to validate on."""

    patience: int | None = None
    """Stop after this many validations without a better score."""

    final: Literal["best", "last"] = "best"
    """Which weights become the model at the end; without validation the last ones."""

    save_every: int = 500
    """Steps between two checkpoints; there is one after each validation, too."""

    keep_last: int = 2
    """Newest checkpoints that are kept, beside the best one."""

    resume: Literal["auto", "never"] = "auto"
    """auto goes on from the newest checkpoint of the run directory; never refuses a directory that has one."""

    max_bad_steps: int = 25
    """End the run after this many steps in a row whose loss or gradient is not finite; each is skipped. DeepSpeed steps
    in the backward pass: with it a gradient that is not finite is neither noticed nor skipped."""

    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    trackers: tuple[str, ...] = ("tensorboard",)
    """Where else the metrics go, by Accelerate's names: tensorboard, wandb, mlflow, comet_ml, aim, ..."""

    def check(self) -> None:
        """Raise a ValueError for a number that makes no sense."""
        counts = ("batch_size", "per_device_batch", "validate_every", "patience", "save_every", "max_bad_steps")
        for name in (*counts, "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"run.{name} must be at least 1, got {value}")


# A run may go on with other values of these: they do not change what is learnt.
FREE_ON_RESUME = frozenset(
    {
        "out",
        "clips.num_workers",
        "clips.backend",
        "clips.max_bad_share",
        "run.per_device_batch",
        "run.device",
        "run.gradient_checkpointing",
        "run.compile",
        "run.save_every",
        "run.keep_last",
        "run.resume",
        "run.max_bad_steps",
        "run.log_every",
        "run.trackers",
    }
)
