"""Pre-train: learn from videos without labels, by predicting what is hidden of them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from videomae.config import VideoMAEConfig
from videomae.training.experiment import (
    Batch,
    Experiment,
    Run,
    empty_clips,
    read_splits,
    run_experiment,
)
from videomae.training.online_probe import OnlineProbeSettings, build_probe, probe_videos
from videomae.training.run_directory import TrainingResult
from videomae.training.settings import OptimSettings, RunSettings, TrainingSettings
from videomae.video.augment_settings import PretrainAugmentation

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor, nn

    from videomae.models.pretrained import PretrainedModel


HIDDEN = "hidden"  # in place of a decoder mask that has nothing to do with the encoder's


@dataclasses.dataclass
class MaskSettings:
    """Which tubelets are hidden."""

    name: str = "tube"
    """A mask of `videomae.models.masking`: tube hides the same places in every time slot; random hides any; frame
    hides whole time slots."""

    ratio: float = 0.9
    """Fraction of the tubelets to hide from the encoder."""

    decoder: str | None = None
    """A mask that spares the decoder some tubelets, too: running_cell is the dual masking of VideoMAE V2; hidden drops
    a part of the hidden ones at random, as CrossMAE does. None is off."""

    decoder_ratio: float = 0.5
    """Fraction of the tubelets that the decoder drops."""


@dataclasses.dataclass
class PretrainSettings(TrainingSettings):
    """Learn from videos without labels, by predicting what is hidden of them."""

    TASK: ClassVar[str] = "pretrain"

    mask: MaskSettings = dataclasses.field(default_factory=MaskSettings)
    augment: PretrainAugmentation = dataclasses.field(default_factory=PretrainAugmentation)
    probe: OnlineProbeSettings = dataclasses.field(default_factory=OnlineProbeSettings)
    optim: OptimSettings = dataclasses.field(
        default_factory=lambda: OptimSettings(lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), warmup_epochs=40)
    )
    run: RunSettings = dataclasses.field(default_factory=lambda: RunSettings(epochs=800))


def pretrain(settings: PretrainSettings) -> TrainingResult:
    """Pre-train a model, or go on with a run that was stopped; errors are those of `run_experiment`.

    >>> from pathlib import Path
    >>> from videomae.training.settings import LoaderSettings, ModelSettings, TrainingDataSettings
    >>> settings = PretrainSettings(TrainingDataSettings(Path("videos")), out=Path("pretraining"))
    >>> settings.model = ModelSettings("tiny", image_size=32, num_frames=8)
    >>> settings.loader = LoaderSettings(num_workers=0)
    >>> settings.optim.warmup_epochs = 0
    >>> settings.run = RunSettings(steps=2, batch_size=4, device="cpu")
    >>> pretrain(settings).steps
    2
    """
    return run_experiment(Pretraining(settings))


class Pretraining(Experiment):
    """Masked autoencoding of videos (VideoMAE; with a decoder mask VideoMAE V2)."""

    title = "pre-training"
    score = "probe_linear"
    settings: PretrainSettings

    def __init__(self, settings: PretrainSettings) -> None:
        import torch

        super().__init__(settings)
        s, usual = settings, RunSettings()
        if (s.run.validate_every, s.run.final) != (usual.validate_every, usual.final):
            raise ValueError(
                "pre-training probes as probe.every says and keeps its last weights: leave out run.validate_every "
                "and run.final."
            )
        self.labelled = probe_videos(s.probe)
        config = self.resolve_config(**({} if self.checkpoint else {"use_mean_pooling": False}))
        self.statistics = self.resolve_statistics(config)
        mean, std = self.statistics
        self.config = config.replace(image_mean=mean, image_std=std, **s.clips.config_fields())
        self.draw_mask = mask_function(s.mask, self.config)
        self.example_mask = self.draw_mask(torch.Generator())
        self.hidden = mask_arguments(self.example_mask[None])
        self.train, _ = read_splits(s.data)
        self.samples = self.train.samples

    def model_class(self) -> "type[PretrainedModel]":
        """Return the model with its decoder."""
        from videomae.models.videomae import VideoMAEForPreTraining

        return VideoMAEForPreTraining

    def build_model(self) -> "PretrainedModel":
        """Return the model as it starts."""
        if self.checkpoint is None:
            return self.model_class()(self.config)
        return self.model_class().from_checkpoint(self.checkpoint, config=self.config)

    def transform(self) -> "Callable[[Tensor], Tensor]":
        """Return crop and flip; pixels stay uint8."""
        from videomae.video.augment import pretrain_augmentation

        return pretrain_augmentation(self.settings.augment, image_size=self.config.frame_size[0])

    def mask(self) -> "Callable[[torch.Generator], Tensor]":
        """Return what draws the masks of a clip."""
        return self.draw_mask

    def loss(self, model: "nn.Module", batch: Batch, seed: int) -> "Tensor":
        """Return the error of the hidden pixels."""
        from videomae.video.augment import normalize

        mean, std = self.statistics
        pixels = normalize(batch["pixel_values"], mean=mean, std=std)
        masks = self.hidden | split_masks(batch["mask"])
        return model(pixels, **masks, output_logits=False, return_dict=False)[0]

    def example_loss(self, model: "PretrainedModel", num_clips: int) -> "Tensor":
        """Return the loss of clips without data."""
        masks = split_masks(self.example_mask.expand(num_clips, *self.example_mask.shape).to(model.device))
        return model(empty_clips(model, num_clips), **(self.hidden | masks)).loss

    def check_devices(self, accelerator: "Accelerator") -> None:
        """Raise a ValueError for a probe of sharded weights."""
        if self.labelled is not None and accelerator.distributed_type in ("FSDP", "DEEPSPEED"):
            raise ValueError(
                "probe.data is not available for sharded weights: leave it out, or use run.strategy = 'auto'."
            )

    def validation(self, run: Run) -> "Callable[[nn.Module], dict[str, float]] | None":
        """Return the probe, where there is one."""
        if self.labelled is None:
            return None
        s = self.settings
        return build_probe(s.probe, s.loader, self.labelled, self.config, self.statistics, run)

    def run_settings(self) -> RunSettings:
        """Validate as the probe says, and keep the last weights, whatever it finds."""
        return dataclasses.replace(self.settings.run, validate_every=self.settings.probe.every, final="last")

    def describe(self, model: "PretrainedModel", run: Run) -> list[str]:
        """Say what is trained on what."""
        return [
            f"{len(self.train)} videos of {self.settings.data.path}; {model.num_parameters() / 1e6:.2f} M parameters, "
            f"{run.accelerator.mixed_precision} mixed precision on {run.accelerator.device}"
        ]


def mask_function(settings: MaskSettings, config: VideoMAEConfig) -> "Callable[[torch.Generator], Tensor]":
    """Return what draws the mask of a clip: (N,) bool, or (2, N) with a decoder mask."""
    return partial(_draw_masks, settings=settings, grid=config.grid)


def _draw_masks(generator: "torch.Generator", *, settings: MaskSettings, grid: tuple[int, int, int]) -> "Tensor":
    import torch

    from videomae.models.masking import find_mask, partial_mask

    encoder = find_mask(settings.name)(grid, settings.ratio, generator=generator)  # (1, N)
    if settings.decoder is None:
        return encoder[0]
    if settings.decoder == HIDDEN:
        decoder = partial_mask(encoder, settings.decoder_ratio, generator=generator)
    else:
        decoder = find_mask(settings.decoder)(grid, settings.decoder_ratio, generator=generator)
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
