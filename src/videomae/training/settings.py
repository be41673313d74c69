"""The settings that all training runs share: data, model, loading, optimisation, and how to run."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from videomae.data.settings import DataSettings
from videomae.options import Flag, parse_duration
from videomae.processes import own_processors
from videomae.video.sampling import ClipSampling

MOST_WORKERS = 32

AttentionName = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4"]


@dataclasses.dataclass
class TrainingDataSettings(DataSettings):
    """Which videos there are, and which of them are trained on."""

    train_split: str | None = None
    """Split to train on; None is "train", or everything where the data has no splits."""

    val_split: str | None = None
    """Split to validate on while training a classifier; None is "val" where there is one, else no validation."""


TrainingData = Annotated[TrainingDataSettings, tyro.conf.arg(name="")]


@dataclasses.dataclass
class ModelSettings:
    """The model. What is None is as in the preset or, with --init, in the checkpoint."""

    preset: Literal["nano", "tiny", "small", "base", "large", "huge", "giant"] | None = None
    """Size of a model that starts from random weights; None is base. Not together with --init."""

    image_size: int | None = None
    """Height and width of a frame, pixels."""

    num_frames: int | None = None
    """Frames of a clip."""

    patch_size: int | None = None
    """Height and width of a tubelet, pixels."""

    tubelet_size: int | None = None
    """Frames of a tubelet."""

    hidden_size: int | None = None
    """Width of the encoder."""

    num_hidden_layers: int | None = None
    """Blocks of the encoder."""

    num_attention_heads: int | None = None
    """Attention heads of the encoder."""

    intermediate_size: int | None = None
    """Width of the encoder's MLP."""

    decoder_hidden_size: int | None = None
    """Width of the decoder."""

    decoder_num_hidden_layers: int | None = None
    """Blocks of the decoder."""

    decoder_num_attention_heads: int | None = None
    """Attention heads of the decoder."""

    decoder_intermediate_size: int | None = None
    """Width of the decoder's MLP."""

    decoder_attention: Literal["self", "cross"] | None = None
    """cross lets mask tokens look at visible ones only (CrossMAE): less time, above all with --mask.decoder hidden."""

    norm_pix_loss: bool | None = None
    """Whether each tubelet's pixels are standardised before they are a target."""

    position_embedding: Literal["rebuild", "interpolate"] | None = None
    """How the position table is made for another grid than the checkpoint's."""

    attn_implementation: AttentionName | None = None
    """Attention kernel: sdpa lets PyTorch choose; flash_attention_2 is PyTorch's own, 3 and 4 those of their packages,
    for GPUs that they are made for."""

    def overrides(self) -> dict[str, Any]:
        """Return the fields of ``VideoMAEConfig`` that are set here."""
        fields = dataclasses.asdict(self)
        del fields["preset"]
        return {name: value for name, value in fields.items() if value is not None}


@dataclasses.dataclass
class LoaderSettings:
    """How videos are decoded and turned into clips."""

    clips_per_video: int = 1
    """Different random clips of a video that is opened once."""

    augmentations_per_clip: int = 1
    """Times that a decoded clip is augmented anew."""

    num_workers: int | None = None
    """Processes that decode videos, per training process; None takes the processors that it may use, up to 32."""

    max_unreadable_fraction: float = 0.05
    """End the run when more than this fraction of the videos cannot be read."""

    backend: str = "pyav"
    """Decoding library: pyav or torchcodec."""

    square_pixels: bool = True
    """Scale frames whose pixels are not square, as players do; published recipes train on the stored pixels."""

    def check(self) -> None:
        """Raise a ValueError for a number that makes no sense."""
        for name in ("clips_per_video", "augmentations_per_clip"):
            if getattr(self, name) < 1:
                raise ValueError(f"loader.{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"loader.num_workers must be at least 0, got {self.num_workers}.")

    def workers(self, num_processes: int) -> int:
        """Return the number of decoding processes for each of ``num_processes`` training processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(own_processors(num_processes), MOST_WORKERS)


@dataclasses.dataclass
class OptimSettings:
    """The optimiser, with a cosine schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon: Muon for the matrices of the blocks, AdamW for all else. Muon gets further in the same number of
    steps where data is small; it needs whole matrices, so it does not run on sharded weights."""

    muon_lr: float = 0.02
    """Highest learning rate of Muon, whatever the batch: its steps have a length of their own, as they are
    orthogonalised. It rises and falls with lr."""

    muon_momentum: float = 0.95
    """Decay rate of Muon's running average."""

    lr: float = 1e-3
    """Highest learning rate of AdamW at a batch of 256 videos; see scale_lr."""

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

    def check(self) -> None:
        """Raise a ValueError for a number that makes no sense."""
        for name in ("lr", "min_lr", "warmup_epochs", "weight_decay", "eps"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} must be at least 0, got {getattr(self, name):g}.")


@dataclasses.dataclass
class RunSettings:
    """How long, on what, and what is kept of it."""

    epochs: int = 100
    """Passes over the training videos."""

    steps: int | None = None
    """Optimiser steps, in place of epochs."""

    budget: str | None = None
    """Longest time that the steps may take, e.g. 20m: where they would take longer, there are fewer, and the learning
    rate falls faster, by the speed that is measured on the way. None takes the time it takes."""

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
    """How several processes share the work: auto does what `accelerate launch` was configured to do, or DDP; fsdp
    shards weights, gradients and optimiser state; deepspeed does so with DeepSpeed (ZeRO 2), which must be
    installed."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""

    compile: bool | None = None
    """Compile the model with torch.compile; None does so on a CUDA GPU with Triton, unless weights are sharded or a
    budget is below 10 minutes."""

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
        """Raise a ValueError for a number or a time that makes no sense."""
        if self.budget is not None:
            parse_duration(self.budget, name="run.budget")
        counts = ("batch_size", "per_device_batch", "validate_every", "patience", "save_every", "max_bad_steps")
        for name in (*counts, "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"run.{name} must be at least 1, got {value}.")


@dataclasses.dataclass
class TrainingSettings:
    """What every training method is configured by; each adds its own groups, and an ``augment`` with mean and std."""

    TASK: ClassVar[str]

    data: TrainingData

    out: Path
    """Run directory, for checkpoints, metrics and the model; a run that was stopped goes on there."""

    recipe: str | None = None
    """Built-in recipe or TOML file with settings; the command line goes before it."""

    init: str | None = None
    """Checkpoint to start from: directory, weights file, or id on the Hugging Face Hub; None starts from random
    weights. Pre-training needs one with a decoder; fine-tuning takes any."""

    print_config: Flag = False
    """Print the settings as TOML, and stop."""

    dry_run: Flag = False
    """Print batch, steps, learning rate, memory and FLOPs, and stop."""

    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    clips: ClipSampling = dataclasses.field(default_factory=ClipSampling)
    loader: LoaderSettings = dataclasses.field(default_factory=LoaderSettings)
    optim: OptimSettings = dataclasses.field(default_factory=OptimSettings)
    run: RunSettings = dataclasses.field(default_factory=RunSettings)


# A run may go on with other values of these: they do not change what is learnt.
FREE_ON_RESUME = frozenset(
    {
        "out",
        "loader.num_workers",
        "loader.backend",
        "loader.max_unreadable_fraction",
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
