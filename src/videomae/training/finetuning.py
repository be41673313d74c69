"""Fine-tune: teach a pre-trained encoder the classes of labelled videos."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, Sample
from videomae.errors import DataError
from videomae.options import Flag
from videomae.training import runs
from videomae.training.runs import TrainingResult
from videomae.training.settings import LoaderSettings, ModelSettings, OptimSettings, RunSettings, TrainingData
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.models.weights import Checkpoint
    from videomae.training.schedule import Plan


ENCODER = "videomae."
LORA_TARGETS = r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])"
STANDARDIZING_VIDEOS = 1024


@dataclasses.dataclass
class HeadSettings:
    """What is trained, and how the classifier starts."""

    train: Literal["all", "linear", "attentive", "lora"] = "all"
    """all trains the whole model; linear freezes the encoder and trains the classifier on the mean of its tokens;
    attentive freezes it and trains a query that looks at the tokens, and the classifier; lora trains low-rank additions
    to the encoder's matrices, which are merged into them at the end (needs peft)."""

    standardize: Flag = False
    """Start fc_norm such that each feature the classifier sees has mean 0 and deviation 1 over the training videos."""

    lora_rank: int = 8
    """Rank of what lora adds."""

    lora_alpha: int = 16
    """What lora adds is multiplied by lora_alpha / lora_rank."""

    drop_path: float = 0.1
    """Rate of stochastic depth at the last block."""

    dropout: float = 0.0
    """Dropout before the classifier."""

    init_scale: float = 1e-3
    """A classifier for new classes starts from weights of this size (v1)."""

    balance: Literal["none", "weights", "sampling"] = "none"
    """For classes of unequal size: weights in the loss, or videos of rare classes taken more often."""


@dataclasses.dataclass
class AugmentSettings:
    """How clips are varied."""

    randaugment_ops: int = 4
    """RandAugment operations per clip; 0 is off."""

    randaugment_magnitude: float = 7.0
    """Their mean strength, 0 to 10."""

    randaugment_std: float = 0.5
    """Standard deviation of the strength."""

    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation; 0 is off."""

    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the frame that a crop covers."""

    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest crop, width / height."""

    flip: float | None = None
    """Probability of mirroring left and right; None is 0.5, or 0 where a class name speaks of a side."""

    erasing: float = 0.25
    """Probability of replacing a rectangle by noise."""

    mixup: float = 0.8
    """Parameter of mixup's weights; 0 is off."""

    cutmix: float = 1.0
    """Parameter of cutmix's area; 0 is off."""

    switch: float = 0.5
    """Probability of cutmix where both are on."""

    label_smoothing: float = 0.1
    """Share of each label spread over all classes."""

    mean: tuple[float, ...] | None = None
    """Of each channel, in pixels scaled to 0-1; None is the checkpoint's own, or ImageNet's."""

    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""


@dataclasses.dataclass
class FinetuneSettings:
    """Teach a pre-trained encoder the classes of labelled videos."""

    TASK: ClassVar[str] = "finetune"

    data: TrainingData

    out: Path
    """Run directory, for checkpoints, metrics and the model; a run that was stopped goes on there."""

    recipe: str | None = None
    """Built-in recipe or TOML file with settings; the command line goes before it."""

    init: str | None = None
    """Checkpoint to start from, pre-trained or fine-tuned: directory, weights file, or id on the Hugging Face Hub;
    None starts from random weights."""

    print_config: Flag = False
    """Print the settings as TOML, and stop."""

    dry_run: Flag = False
    """Print batch, steps, learning rate, memory and FLOPs, and stop."""

    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    head: HeadSettings = dataclasses.field(default_factory=HeadSettings)
    clips: ClipSampling = dataclasses.field(default_factory=ClipSampling)
    loader: LoaderSettings = dataclasses.field(default_factory=lambda: LoaderSettings(augmentations_per_clip=2))
    augment: AugmentSettings = dataclasses.field(default_factory=AugmentSettings)
    optim: OptimSettings = dataclasses.field(default_factory=lambda: OptimSettings(lr=5e-4, layer_decay=0.75))
    run: RunSettings = dataclasses.field(default_factory=lambda: RunSettings(epochs=75))


def finetune(settings: FinetuneSettings) -> TrainingResult:
    """Fine-tune a model, or go on with a run that was stopped.

    The classes are those of the data, and travel with the model. A validation takes the middle clip of each video and
    its centre crop.

    Args:
        settings: what to learn from, and how; the run directory ends up with settings.toml, metrics.jsonl,
            checkpoints/, logs/ and model/.

    Raises:
        DataError: if the videos cannot be used, or lack labels.
        CheckpointError: if a checkpoint cannot be read or written, or the directory holds another run.
        ValueError: for settings that do not go together.
    """
    import torch

    from videomae.data.dataset import DataTimeMeter, VideoDataset, build_loader
    from videomae.training.loop import Job, build_accelerator, fit, step_seed
    from videomae.training.optim import parameter_groups
    from videomae.training.schedule import Plan
    from videomae.video.augment import FinetuneAugmentation, Mixing, finetune_augmentation, mix

    s = settings
    train, val = labelled_splits(s)
    checkpoint, config, statistics = plan_model(s, train.classes)
    train, val, keeps_classes = _in_order_of(checkpoint, train, val)
    config = config.replace(id2label=dict(enumerate(train.classes)))
    samples = balanced(train) if s.head.balance == "sampling" else train.samples
    accelerator = build_accelerator(s.run, folder=s.out)
    plan = Plan.make(s.run, s.optim, num_videos=len(samples), world_size=accelerator.num_processes)
    runs.claim_directory(s.out, s, train, accelerator)
    torch.manual_seed(s.run.seed)
    model = build_model(s, config, checkpoint, keeps_classes=keeps_classes)
    if s.head.standardize and not keeps_classes:
        standardize_features(model.to(accelerator.device), s, train, plan, statistics)
    a, flip = s.augment, resolve_flip(s.augment.flip, train.classes)
    dataset = VideoDataset(
        samples,
        sampling=s.clips,
        clip_frames=config.num_frames,
        training=True,
        transform=finetune_augmentation(
            FinetuneAugmentation(
                *statistics,
                image_size=config.frame_size[0],
                randaugment_ops=a.randaugment_ops,
                randaugment_magnitude=a.randaugment_magnitude,
                randaugment_std=a.randaugment_std,
                color_jitter=a.color_jitter,
                area=a.area,
                aspect_ratio=a.aspect_ratio,
                flip=flip,
                erasing=a.erasing,
            )
        ),
        clips_per_video=s.loader.clips_per_video,
        augmentations_per_clip=s.loader.augmentations_per_clip,
        seed=s.run.seed,
        backend=s.loader.backend,
    )
    loader = build_loader(
        dataset,
        batch_size=plan.per_device_batch,
        num_workers=s.loader.workers(accelerator.num_processes),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
    )
    unreadable = runs.Unreadable(s.out, samples, max_fraction=s.loader.max_unreadable_fraction, accelerator=accelerator)
    notes = []
    if s.head.standardize and keeps_classes:
        notes.append("head.standardize is not needed: the classifier is the checkpoint's own")
    if plan.per_device_batch == 1 and (a.mixup or a.cutmix):
        notes.append("mixup and cutmix do nothing: a process takes one video at once, see run.per_device_batch")
    mixing = Mixing(a.mixup, a.cutmix, a.switch, label_smoothing=0.0)  # the loss does it
    weights = torch.tensor(class_weights(train) if s.head.balance == "weights" else [1.0] * len(train.classes))
    weights = weights.to(accelerator.device)

    def loss(model: "nn.Module", batch: dict[str, Any], seed: int) -> "Tensor":
        unreadable.add(batch["unreadable"])
        pixels, targets = mix(
            batch["pixel_values"],
            batch["label"],
            num_classes=len(weights),
            settings=mixing,
            seed=step_seed(seed, 1),  # not the seed itself, which dropout draws from
        )
        logits = model(pixels, return_dict=False)[0]
        return weighted_cross_entropy(logits, targets, weights, label_smoothing=a.label_smoothing)

    runs.announce(
        accelerator,
        [
            f"{len(train)} videos of {len(train.classes)} classes, {len(val) if val else 0} to validate on; "
            f"{model.num_parameters(only_trainable=True) / 1e6:.2f} of {model.num_parameters() / 1e6:.2f} M parameters "
            f"are trained, {accelerator.mixed_precision} mixed precision on {accelerator.device}",
            f"starts from {s.init or 'random weights'}, with {'its own' if keeps_classes else 'a new'} classifier; "
            f"mirrored with probability {flip}",
            *notes,
            plan.describe(),
        ],
    )
    groups = parameter_groups(
        model,
        depth=config.num_hidden_layers,
        weight_decay=s.optim.weight_decay,
        layer_decay=s.optim.layer_decay,
    )
    validate = build_validation(s, val, config, statistics, plan, accelerator, unreadable) if val else None
    job = Job(model, loss, loader, groups, DataTimeMeter(), validate, "val_top1", "fine-tuning")
    outcome = fit(accelerator, job, plan, folder=s.out, run=s.run, optim=s.optim)
    if s.head.train == "lora" and outcome.weights:
        outcome = dataclasses.replace(outcome, weights=merged_lora(outcome.weights, config, s.head))
    return runs.save_model(s.out, model, outcome, statistics, accelerator)


def labelled_splits(settings: FinetuneSettings) -> tuple[Manifest, Manifest | None]:
    """Return the videos to train and to validate on.

    Raises:
        DataError: if there are no labels, or a video lacks one.
    """
    train, val = runs.read_splits(settings.data)
    for sample in (*train, *(val or ())):
        if sample.label is None:
            raise DataError(
                f"{sample.path} has no label: put the videos into a folder per class, or give a CSV with a column "
                "'label'"
            )
    return train, val


def plan_model(
    settings: FinetuneSettings, classes: Sequence[str]
) -> "tuple[Checkpoint | None, VideoMAEConfig, runs.Statistics]":
    """Return the checkpoint to start from if any, the model's configuration, and the statistics of its input."""
    s = settings
    runs.refuse_preset_with_init(s.model, s.init)
    fields: dict[str, Any] = {
        "id2label": dict(enumerate(classes)),
        "drop_path": s.head.drop_path if s.head.train in ("all", "lora") else 0.0,
        "head_dropout": s.head.dropout,
        "label_smoothing": 0.0,  # mixing does it
        "problem_type": None,
        **s.clips.config_fields(),
    }
    if s.head.train == "attentive":
        fields["attentive_pooling"] = True
    checkpoint = None
    if s.init is None:
        config = runs.preset_config(s.model, **fields)
    else:
        from videomae.models.weights import open_checkpoint

        checkpoint = open_checkpoint(s.init)
        if checkpoint.task != "classification":
            fields["use_mean_pooling"] = True
        config = checkpoint.resolve_config(**(fields | s.model.overrides()))
    return checkpoint, config, runs.input_statistics(s.augment.mean, s.augment.std, s.init, config)


def build_model(
    settings: FinetuneSettings, config: VideoMAEConfig, checkpoint: "Checkpoint | None", *, keeps_classes: bool
) -> "VideoMAEForVideoClassification":
    """Return the model as it starts; a classifier for new classes is drawn anew, and small."""
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

    if checkpoint is None:
        model = VideoMAEForVideoClassification(config)
    else:
        model = VideoMAEForVideoClassification.from_checkpoint(checkpoint, config=config, ignore_mismatched_sizes=True)
    if not keeps_classes:
        model.init_weights(model.classifier)
        with torch.no_grad():
            for parameter in model.classifier.parameters():
                parameter.mul_(settings.head.init_scale)
    if settings.head.train in ("linear", "attentive"):
        model.videomae.requires_grad_(False)
    elif settings.head.train == "lora":
        add_lora(model, settings.head)
    return model


def add_lora(model: "VideoMAEForVideoClassification", head: HeadSettings) -> Any:
    """Freeze the encoder, and give the matrices of its blocks low-rank additions that are trained.

    Source: LoRA, arXiv 2106.09685; the additions are peft's.

    Returns:
        What merges them, as peft's ``LoraModel``.

    Raises:
        DataError: if peft is missing.
    """
    if find_spec("peft") is None:
        raise DataError("--head.train lora needs peft: pip install 'videomae[lora]'")
    from peft import LoraConfig, LoraModel

    config = LoraConfig(r=head.lora_rank, lora_alpha=head.lora_alpha, target_modules=LORA_TARGETS)
    return LoraModel(model.videomae, config, "default")


def merged_lora(weights: dict[str, "Tensor"], config: VideoMAEConfig, head: HeadSettings) -> dict[str, "Tensor"]:
    """Return the weights of an ordinary model that computes what one with low-rank additions does."""
    from videomae.models.videomae import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification(config)
    tuner = add_lora(model, head)
    model.load_state_dict(weights)
    tuner.merge_and_unload()
    return model.state_dict()


def standardize_features(
    model: "VideoMAEForVideoClassification",
    settings: FinetuneSettings,
    train: Manifest,
    plan: "Plan",
    statistics: runs.Statistics,
) -> None:
    """Set ``fc_norm`` such that each of its outputs has mean 0 and deviation 1 over centre clips of training videos.

    The mean over the tokens of a clip is nearly the same for all videos where most of the picture is: a classifier on
    it would have to amplify what differs first. It is what the BatchNorm of MAE's linear probe is for
    (arXiv 2111.06377), in a form that stays an ordinary model.

    Raises:
        ValueError: for a model whose classifier sees the first token.
    """
    import torch

    from videomae.video.augment import normalize

    if model.fc_norm is None:
        raise ValueError("head.standardize needs a model with mean pooling (use_mean_pooling), this one has none")
    every = max(len(train) // STANDARDIZING_VIDEOS, 1)
    some = dataclasses.replace(train, samples=train.samples[::every])
    loader = runs.build_eval_loader(settings.loader, some, model.config, batch_size=plan.per_device_batch)
    features: list[Tensor] = []
    hook = model.fc_norm.register_forward_hook(lambda module, inputs, output: features.append(output.flatten(0, -2)))
    model.eval()
    with torch.inference_mode():
        for batch in loader:
            if "pixel_values" in batch:
                pixels = batch["pixel_values"].to(model.device)
                model(normalize(pixels, mean=statistics[0], std=statistics[1]))
    hook.remove()
    model.train()
    seen = torch.cat(features).double()
    scale = 1 / (seen.std(dim=0) + 1e-4)
    with torch.no_grad():
        model.fc_norm.weight.mul_(scale)
        model.fc_norm.bias.sub_(seen.mean(dim=0)).mul_(scale)


def build_validation(
    settings: FinetuneSettings,
    val: Manifest,
    config: VideoMAEConfig,
    statistics: runs.Statistics,
    plan: "Plan",
    accelerator: "Accelerator",
    unreadable: runs.Unreadable,
) -> "Callable[[nn.Module], dict[str, float]]":
    """Return what measures top-1 accuracy and cross-entropy on the centre crop of the middle clip of each video.

    A video that cannot be read counts as wrong, and is left out of the cross-entropy; ``unreadable`` lists it.
    """
    import torch

    from videomae.video.augment import normalize

    world_size = accelerator.num_processes
    loader = runs.build_eval_loader(
        settings.loader,
        val,
        config,
        batch_size=plan.per_device_batch,
        rank=accelerator.process_index,
        world_size=world_size,
    )
    nothing = torch.zeros(1, config.num_frames, config.num_channels, *config.frame_size)
    # Sharded weights are gathered by all processes at once: each takes part as often as the one with most batches.
    rounds = math.ceil(len(val) / (plan.per_device_batch * world_size))

    @torch.no_grad()
    def validate(model: "nn.Module") -> dict[str, float]:
        sums = torch.zeros(3, device=accelerator.device)  # right, cross-entropy, videos
        failed: list[tuple[str, str]] = []
        batches = iter(loader)
        for _ in range(rounds):
            batch: dict[str, Any] = next(batches, {})
            failed += batch.get("unreadable", ())
            if "pixel_values" not in batch:
                model(nothing.to(accelerator.device))
                continue
            pixels = normalize(batch["pixel_values"].to(accelerator.device), mean=statistics[0], std=statistics[1])
            labels = batch["label"].to(accelerator.device)
            logits = model(pixels, return_dict=False)[0].float()
            entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([(logits.argmax(-1) == labels).sum(), entropy, entropy.new_tensor(len(labels))])
        unreadable.note(failed, "counted as wrong in validation")
        right, entropy, videos = accelerator.reduce(sums, reduction="sum").tolist()
        return {"val_top1": right / len(val), "val_loss": entropy / max(videos, 1)}

    return validate


def resolve_flip(flip: float | None, classes: Sequence[str]) -> float:
    """Return the probability of mirroring; None stands for 0.5, or 0 where a class name speaks of a side."""
    if flip is not None:
        return flip
    from videomae.video.augment import direction_classes

    return 0.0 if direction_classes(classes) else 0.5


def weighted_cross_entropy(
    logits: "Tensor", targets: "Tensor", weights: "Tensor", *, label_smoothing: float
) -> "Tensor":
    """Return the mean cross-entropy over the clips, each times the weight of the classes that it shows.

    The weight goes to the clip, not to the smoothed targets: there it would pull every clip towards the rare classes.

    Args:
        logits: (B, L).
        targets: (B, L) shares of the classes that a clip shows, before smoothing.
        weights: (L,), one for each class.
        label_smoothing: share of each target spread over all classes.
    """
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")  # (B,)
    return (losses * (targets @ weights)).mean()


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


def _in_order_of(
    checkpoint: "Checkpoint | None", train: Manifest, val: Manifest | None
) -> tuple[Manifest, Manifest | None, bool]:
    """Number the classes as a checkpoint that knows the same ones does, and say whether it does."""
    if checkpoint is None or checkpoint.task != "classification":
        return train, val, False
    known = list(checkpoint.resolve_config().id2label.values())
    if set(known) != set(train.classes):
        return train, val, False
    return train.with_classes(known), val.with_classes(known) if val else None, True
