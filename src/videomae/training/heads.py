"""The classifier that fine-tuning starts from, and what of the model is trained."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from videomae.config import VideoMAEConfig
from videomae.data.manifest import Manifest
from videomae.options import Flag
from videomae.packages import require
from videomae.training.settings import LoaderSettings
from videomae.training.validation import build_eval_loader
from videomae.video.checkpoint_processor import Statistics

if TYPE_CHECKING:
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForVideoClassification
    from videomae.models.weights import Checkpoint

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


def build_classifier(
    head: HeadSettings, config: VideoMAEConfig, checkpoint: "Checkpoint | None", *, known: Sequence[int] | None
) -> "VideoMAEForVideoClassification":
    """Return the model as it starts; a classifier for new classes is drawn anew, and small.

    Args:
        head: what is trained.
        config: of the model.
        checkpoint: that it starts from; None is random weights.
        known: which of the checkpoint's classes the model's are; None where they are new.
    """
    import torch

    from videomae.models.videomae import VideoMAEForVideoClassification

    if checkpoint is None:
        model = VideoMAEForVideoClassification(config)
    elif known is not None:
        before = config.replace(num_labels=len(checkpoint.tensors["classifier.weight"]))
        model = VideoMAEForVideoClassification.from_checkpoint(checkpoint, config=before)
        keep_classes(model, config, known)
    else:
        model = VideoMAEForVideoClassification.from_checkpoint(checkpoint, config=config, ignore_mismatched_sizes=True)
    if known is None:
        model.init_weights(model.classifier)
        with torch.no_grad():
            for parameter in model.classifier.parameters():
                parameter.mul_(head.init_scale)
    if head.train in ("linear", "attentive"):
        model.videomae.requires_grad_(False)
    elif head.train == "lora":
        add_lora(model, head)
    return model


def keep_classes(model: "VideoMAEForVideoClassification", config: VideoMAEConfig, known: Sequence[int]) -> None:
    """Leave a model only some of its classes, ``known``, in this order; ``config`` names them."""
    import torch

    old = cast(torch.nn.Linear, model.classifier)
    model.classifier = classifier = torch.nn.Linear(old.in_features, len(known))
    with torch.no_grad():
        classifier.weight.copy_(old.weight[list(known)])
        classifier.bias.copy_(old.bias[list(known)])
    model.config = config


def require_peft() -> None:
    """Raise a MissingPackageError that says what to install where peft is missing."""
    require("peft", extra="lora", purpose="--head.train lora needs peft")


def add_lora(model: "VideoMAEForVideoClassification", head: HeadSettings) -> Any:
    """Freeze the encoder, and give the matrices of its blocks low-rank additions that are trained.

    Source: LoRA, arXiv 2106.09685; the additions are peft's.

    Returns:
        What merges them, as peft's ``LoraModel``.

    Raises:
        MissingPackageError: if peft is not installed.
    """
    require_peft()
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
    loading: LoaderSettings,
    train: Manifest,
    statistics: Statistics,
    *,
    batch_size: int,
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
        raise ValueError("head.standardize needs a model with mean pooling (use_mean_pooling), this one has none.")
    every = max(len(train) // STANDARDIZING_VIDEOS, 1)
    some = dataclasses.replace(train, samples=train.samples[::every])
    loader = build_eval_loader(loading, some, model.config, batch_size=batch_size)
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
