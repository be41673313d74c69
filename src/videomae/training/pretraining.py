"""Pre-train: learn from videos without labels, by predicting what is hidden of them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest, read_manifest
from videomae.errors import DataError
from videomae.options import Flag
from videomae.training import runs
from videomae.training.runs import TrainingResult
from videomae.training.settings import LoaderSettings, ModelSettings, OptimSettings, RunSettings, TrainingData
from videomae.video.sampling import ClipSampling

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from videomae.models.weights import Checkpoint
    from videomae.training.schedule import Plan


@dataclasses.dataclass
class MaskSettings:
    """Which tubelets are hidden."""

    name: Literal["tube", "random", "frame", "running_cell"] = "tube"
    """tube hides the same places in every time slot; random hides any, frame hides whole time slots."""

    ratio: float = 0.9
    """Share of the tubelets to hide from the encoder."""

    decoder: Literal["running_cell", "random", "tube", "frame"] | None = None
    """Spare the decoder some tubelets, too: running_cell is the dual masking of VideoMAE V2. None is off."""

    decoder_ratio: float = 0.5
    """Share of the tubelets that the decoder drops."""


@dataclasses.dataclass
class CropSettings:
    """How clips are cropped, mirrored and normalised."""

    scales: tuple[float, ...] = (1, 0.875, 0.75, 0.66)
    """Crop sizes as shares of the short side."""

    flip: float = 0.0
    """Probability of mirroring left and right."""

    mean: tuple[float, ...] | None = None
    """Of each channel, in pixels scaled to 0-1; None is the checkpoint's own, or ImageNet's."""

    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""


@dataclasses.dataclass
class OnlineProbeSettings:
    """Whether the encoder learns anything of use, told by labelled videos while it is trained."""

    data: Path | None = None
    """Labelled videos with the splits "train" and "test"; None does without. Needs scikit-learn."""

    every: int = 20
    """Epochs between two probes."""

    k: int = 10
    """Neighbours that vote."""

    c: float = 0.01
    """Inverse strength of the regularisation of logistic regression."""


@dataclasses.dataclass
class PretrainSettings:
    """Learn from videos without labels, by predicting what is hidden of them."""

    TASK: ClassVar[str] = "pretrain"

    data: TrainingData

    out: Path
    """Run directory, for checkpoints, metrics and the model; a run that was stopped goes on there."""

    recipe: str | None = None
    """Built-in recipe or TOML file with settings; the command line goes before it."""

    init: str | None = None
    """Go on from a checkpoint that has a decoder: directory, weights file, or id on the Hugging Face Hub."""

    print_config: Flag = False
    """Print the settings as TOML, and stop."""

    dry_run: Flag = False
    """Print batch, steps, learning rate, memory and FLOPs, and stop."""

    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    clips: ClipSampling = dataclasses.field(default_factory=ClipSampling)
    loader: LoaderSettings = dataclasses.field(default_factory=LoaderSettings)
    mask: MaskSettings = dataclasses.field(default_factory=MaskSettings)
    augment: CropSettings = dataclasses.field(default_factory=CropSettings)
    probe: OnlineProbeSettings = dataclasses.field(default_factory=OnlineProbeSettings)
    optim: OptimSettings = dataclasses.field(
        default_factory=lambda: OptimSettings(lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), warmup_epochs=40)
    )
    run: RunSettings = dataclasses.field(default_factory=lambda: RunSettings(epochs=800))


def pretrain(settings: PretrainSettings) -> TrainingResult:
    """Pre-train a model, or go on with a run that was stopped.

    Args:
        settings: what to learn from, and how; the run directory ends up with settings.toml, metrics.jsonl,
            checkpoints/, logs/ and model/.

    Raises:
        DataError: if the videos cannot be used.
        CheckpointError: if a checkpoint cannot be read or written, or the directory holds another run.
        ValueError: for settings that do not go together.
    """
    import torch

    from videomae.data.dataset import DataTimeMeter, VideoDataset, build_loader
    from videomae.models.videomae import VideoMAEForPreTraining
    from videomae.training.loop import Job, build_accelerator, fit
    from videomae.training.optim import parameter_groups
    from videomae.training.schedule import Plan
    from videomae.video.augment import PretrainAugmentation, normalize, pretrain_augmentation

    s = settings
    usual = RunSettings()
    if (s.run.validate_every, s.run.final) != (usual.validate_every, usual.final):
        raise ValueError(
            "pre-training probes as probe.every says and keeps its last weights: leave out run.validate_every "
            "and run.final"
        )
    labelled = probe_videos(s.probe)
    checkpoint, config, statistics = plan_model(s)
    masks = mask_function(s.mask, config)
    train, _ = runs.read_splits(s.data)
    accelerator = build_accelerator(s.run, folder=s.out)
    if labelled is not None and accelerator.distributed_type in ("FSDP", "DEEPSPEED"):
        raise ValueError("probe.data is not there for sharded weights: leave it out, or use run.strategy = 'auto'")
    plan = Plan.make(s.run, s.optim, num_videos=len(train), world_size=accelerator.num_processes)
    runs.claim_directory(s.out, s, train, accelerator)
    torch.manual_seed(s.run.seed)
    if checkpoint is None:
        model = VideoMAEForPreTraining(config)
    else:
        model = VideoMAEForPreTraining.from_checkpoint(checkpoint, config=config)
    dataset = VideoDataset(
        train,
        sampling=s.clips,
        clip_frames=config.num_frames,
        training=True,
        transform=pretrain_augmentation(PretrainAugmentation(config.frame_size[0], s.augment.scales, s.augment.flip)),
        clips_per_video=s.loader.clips_per_video,
        augmentations_per_clip=s.loader.augmentations_per_clip,
        mask=masks,
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
    unreadable = runs.Unreadable(s.out, train, max_fraction=s.loader.max_unreadable_fraction, accelerator=accelerator)
    hidden = mask_arguments(masks(torch.Generator())[None])

    def loss(model: "nn.Module", batch: dict[str, Any], seed: int) -> "Tensor":
        unreadable.add(batch["unreadable"])
        pixels = normalize(batch["pixel_values"], mean=statistics[0], std=statistics[1])
        return model(pixels, **(hidden | split_masks(batch["mask"])), return_dict=False)[0]

    runs.announce(
        accelerator,
        [
            f"{len(train)} videos of {s.data.path}; {model.num_parameters() / 1e6:.2f} M parameters, "
            f"{accelerator.mixed_precision} mixed precision on {accelerator.device}",
            plan.describe(),
        ],
    )
    groups = parameter_groups(
        model,
        depth=config.num_hidden_layers,
        weight_decay=s.optim.weight_decay,
        layer_decay=s.optim.layer_decay,
    )
    probe = build_probe(s, labelled, config, statistics, plan, accelerator, unreadable) if labelled else None
    job = Job(model, loss, loader, groups, DataTimeMeter(), probe, "probe_linear", "pre-training")
    run = dataclasses.replace(s.run, validate_every=s.probe.every, final="last")
    outcome = fit(accelerator, job, plan, folder=s.out, run=run, optim=s.optim)
    return runs.save_model(s.out, model, outcome, statistics, accelerator)


def plan_model(settings: PretrainSettings) -> "tuple[Checkpoint | None, VideoMAEConfig, runs.Statistics]":
    """Return the checkpoint to start from if any, the model's configuration, and the statistics of its input."""
    s = settings
    runs.refuse_preset_with_init(s.model, s.init)
    checkpoint = None
    if s.init is None:
        config = runs.preset_config(s.model, use_mean_pooling=False)
    else:
        from videomae.models.weights import open_checkpoint

        checkpoint = open_checkpoint(s.init)
        config = checkpoint.resolve_config(**s.model.overrides())
    statistics = runs.input_statistics(s.augment.mean, s.augment.std, s.init, config)
    config = config.replace(image_mean=statistics[0], image_std=statistics[1], **s.clips.config_fields())
    return checkpoint, config, statistics


def probe_videos(settings: OnlineProbeSettings) -> dict[str, Manifest] | None:
    """Return the labelled videos to train a probe on and to test it on, by split; None where there is to be none.

    Raises:
        DataError: if a split or a label is missing, if there is but one class to tell.
        MissingPackageError: if scikit-learn is not installed.
        ValueError: for a number that makes no sense.
    """
    from videomae.models.probes import require_sklearn

    s = settings
    for name in ("every", "k"):
        if getattr(s, name) < 1:
            raise ValueError(f"probe.{name} must be at least 1, got {getattr(s, name)}")
    if s.c <= 0:
        raise ValueError(f"probe.c must be above 0, got {s.c}")
    if s.data is None:
        return None
    require_sklearn()
    manifest = read_manifest(s.data)
    splits = {name: manifest.split(name) for name in ("train", "test")}
    unlabelled = [sample.path for split in splits.values() for sample in split if sample.label is None]
    if unlabelled:
        raise DataError(
            f"probe.data: {len(unlabelled)} videos of {s.data} have no label, such as {unlabelled[0]!r}: give all of "
            "them one, or leave the probe out"
        )
    if len({sample.label for sample in splits["train"]}) < 2:
        raise DataError(
            f"probe.data: the {len(splits['train'])} training videos of {s.data} are all of one class, a probe tells "
            "at least 2 apart: add videos of others, or leave the probe out"
        )
    return splits


def build_probe(
    settings: PretrainSettings,
    videos: dict[str, Manifest],
    config: VideoMAEConfig,
    statistics: runs.Statistics,
    plan: "Plan",
    accelerator: "Accelerator",
    unreadable: runs.Unreadable,
) -> "Callable[[nn.Module], dict[str, float]]":
    """Return what measures how well simple classifiers do on the encoder's features of the labelled videos.

    A video's features are the means over the time slots of its middle clip, one after the other. A test video that
    cannot be read counts as wrong; ``unreadable`` lists it.

    Args:
        settings: of the run.
        videos: as `probe_videos` returns them.
        config: of the model.
        statistics: mean and standard deviation of the input.
        plan: tells how many videos a process takes at once.
        accelerator: knows the processes, which share the videos.
        unreadable: is told of videos that cannot be read.
    """
    import numpy as np
    import torch
    from accelerate.utils import gather_object

    from videomae.models.probes import predict_knn, predict_linear
    from videomae.video.augment import normalize

    s, slots = settings.probe, config.grid[0]
    loaders = {
        split: runs.build_eval_loader(
            settings.loader,
            chosen,
            config,
            batch_size=plan.per_device_batch,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        for split, chosen in videos.items()
    }

    @torch.no_grad()
    def features(model: "nn.Module", loader: "DataLoader[Any]") -> "tuple[NDArray[Any], NDArray[Any]]":
        encoder = accelerator.unwrap_model(model).videomae
        found: list[tuple[NDArray[Any], int]] = []
        failed: list[tuple[str, str]] = []
        for batch in loader:
            failed += batch["unreadable"]
            if "pixel_values" not in batch:
                continue
            pixels = normalize(batch["pixel_values"].to(accelerator.device), mean=statistics[0], std=statistics[1])
            with accelerator.autocast():
                tokens = encoder.encode(pixels)
            means = tokens.float().unflatten(1, (slots, -1)).mean(dim=2).flatten(1).cpu().numpy()
            found += zip(means, batch["label"].tolist(), strict=True)
        unreadable.note(failed, "left out of the probe, or wrong where they test it")
        found = gather_object(found)
        width = slots * config.hidden_size
        return np.array([vector for vector, _ in found]).reshape(-1, width), np.array([label for _, label in found])

    def probe(model: "nn.Module") -> dict[str, float]:
        train, targets = features(model, loaders["train"])
        test, expected = features(model, loaders["test"])
        if len(np.unique(targets)) < 2 or not len(test):  # too little of it can be read
            return {"probe_knn": 0.0, "probe_linear": 0.0}
        right = {
            "probe_knn": predict_knn(train, targets, test, k=s.k) == expected,
            "probe_linear": predict_linear(train, targets, test, c=s.c) == expected,
        }
        return {name: float(hits.sum() / len(videos["test"])) for name, hits in right.items()}

    return probe


def mask_function(settings: MaskSettings, config: VideoMAEConfig) -> "Callable[[torch.Generator], Tensor]":
    """Return what draws the mask of a clip: (N,) bool, or (2, N) with a decoder mask."""
    return partial(_draw_masks, settings=settings, grid=config.grid)


def _draw_masks(generator: "torch.Generator", *, settings: MaskSettings, grid: tuple[int, int, int]) -> "Tensor":
    import torch

    from videomae.models.masking import MASKS

    encoder = MASKS[settings.name](grid, settings.ratio, generator=generator)  # (1, N)
    if settings.decoder is None:
        return encoder[0]
    decoder = MASKS[settings.decoder](grid, settings.decoder_ratio, generator=generator)
    return torch.cat([encoder, decoder])


def split_masks(masks: "Tensor") -> "dict[str, Tensor]":
    """Name the masks of a batch, (B, N) or (B, 2, N), as the model's arguments."""
    if masks.ndim == 2:
        return {"bool_masked_pos": masks}
    return {"bool_masked_pos": masks[:, 0], "decoder_masked_pos": masks[:, 1]}


def mask_arguments(masks: "Tensor") -> dict[str, int]:
    """Return how many tubelets the masks of a batch hide, so that the model does not count them at every step."""
    names = {"bool_masked_pos": "num_masked", "decoder_masked_pos": "num_decoder_masked"}
    return {names[name]: int(mask[0].sum()) for name, mask in split_masks(masks).items()}
