"""What the models learn from: pixels of hidden tubelets, and class labels.

Shapes: B clips, K tubelets the decoder predicts, P values per tubelet, L classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from videomae.config import PROBLEM_TYPES, VideoMAEConfig
from videomae.models.patches import cut_tubelets


@torch.no_grad()
def pixel_targets(pixel_values: Tensor, indices: Tensor, config: VideoMAEConfig) -> Tensor:
    """Compute what the decoder should predict for the chosen tubelets (VideoMAE, section 3.1; v1).

    With ``norm_pix_loss`` a tubelet's pixels, brought back to 0-1, are standardised per channel:
    (x - mean) / (sqrt(unbiased var) + 1e-6). Standardising the normalised pixels is the same when the 1e-6 is divided
    by the channel's std, so that is what happens here.

    Args:
        pixel_values: (B, T, C, H, W), normalised with the config's ``pixel_statistics``.
        indices: (B, K) positions of the tubelets.
        config: tubelet shape, ``norm_pix_loss`` and pixel statistics.

    Returns:
        (B, K, P) float32 whatever the input's dtype; P runs over (frame, height, width, channel).

    Raises:
        ValueError: without ``norm_pix_loss``, if the pixel statistics are not known.
    """
    tubelets = cut_tubelets(pixel_values, config.tubelet_shape, indices).float()  # (B, K, C, t, p, q)
    statistics = config.pixel_statistics
    if statistics is not None:
        # Filled where they are: a copy from the host would be waited for.
        mean, std = (
            torch.stack([tubelets.new_full((1, 1, 1), value) for value in values]) for values in statistics
        )  # (C, 1, 1, 1)
    if config.norm_pix_loss:
        pixels = (3, 4, 5)
        tubelets -= tubelets.mean(pixels, keepdim=True)  # in place: the tubelets are a copy
        norm = torch.linalg.vector_norm(tubelets, dim=pixels, keepdim=True)
        deviation = norm / (math.prod(config.tubelet_shape) - 1) ** 0.5  # of the unbiased variance
        tubelets /= deviation + (1e-6 if statistics is None else 1e-6 / std)
    elif statistics is None:
        raise ValueError(
            f"norm_pix_loss=False with {config.num_channels} channels needs the mean and standard deviation that the "
            "pixels were normalised with: set image_mean and image_std in the config."
        )
    else:
        tubelets = tubelets * std + mean
    return tubelets.permute(0, 1, 3, 4, 5, 2).flatten(2)


def reconstruction_loss(predicted: Tensor, target: Tensor, loss_mask: Tensor | None = None) -> Tensor:
    """Mean squared error in float32.

    Args:
        predicted: (B, K, P).
        target: (B, K, P) float32.
        loss_mask: (B, K) bool, the tubelets that count; None counts all. VideoMAE V2's decoder also predicts tubelets
            that the encoder saw, which do not count.

    Returns:
        A scalar.

    Raises:
        ValueError: if no tubelet counts (seen on the CPU only; elsewhere the loss is then not a number).
    """
    if loss_mask is None:
        return F.mse_loss(predicted.float(), target)
    if loss_mask.device.type == "cpu" and not torch.compiler.is_compiling() and not loss_mask.any():
        raise ValueError("the encoder saw all that the decoder predicts: no tubelet is left for the loss.")
    error = (predicted.float() - target).square().mean(dim=-1)  # (B, K)
    return (error * loss_mask).sum() / loss_mask.sum()


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, *, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy over the clips, each times the weight of the classes that it shows.

    The weight goes to the clip, not to the smoothed targets: there it would pull every clip towards the rare classes.

    Args:
        logits: (B, L).
        targets: (B, L) float, the fraction of each class in a clip (mixup, cutmix), before smoothing.
        weights: (L,), one for each class; all 1 counts every clip alike.
        label_smoothing: fraction of each target that is spread over all classes, in [0, 1).

    Returns:
        A scalar, float32.
    """
    losses = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")  # (B,)
    return (losses * (targets @ weights)).mean()


def classification_loss(logits: Tensor, labels: Tensor, config: VideoMAEConfig) -> Tensor:
    """Compute the loss that the labels ask for, chosen by their dtype and the configuration as in transformers.

    Args:
        logits: (B, L).
        labels: what the configuration's ``problem_type`` takes. "single_label_classification": (B,) or (B, 1) integer
            classes, or (B, L) float soft targets (mixup, cutmix). "multi_label_classification": (B, L) of 0 and 1.
            "regression": (B, L) float values. None: the first for integers, the second for floats, and the third
            where L is 1.
        config: ``problem_type`` and ``label_smoothing``.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: if the labels do not fit the logits or the problem type.
    """
    logits = logits.float()
    soft, single = labels.is_floating_point(), logits.shape[-1] == 1
    problem = config.problem_type
    if problem not in (None, *PROBLEM_TYPES):  # as a model's configuration may be assigned to
        raise ValueError(f"problem_type must be None or one of {', '.join(PROBLEM_TYPES)}, got {problem!r}.")
    if problem is None and soft:
        problem = "regression" if single else "multi_label_classification"
    if problem == "regression":
        return F.mse_loss(logits, _same_shape(labels.float(), logits))
    if problem == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, _same_shape(labels.float(), logits))
    if single:
        raise ValueError(
            "one class leaves nothing to learn: its loss is always 0. Give num_labels=2 or more; for regression give "
            "float labels, for a yes or no float labels of 0 and 1 and problem_type='multi_label_classification'."
        )
    if soft:
        labels = _same_shape(labels.float(), logits)
    elif labels.shape in (logits.shape[:1], (len(logits), 1)):
        labels = labels.view(-1).long()
    else:
        raise ValueError(
            f"integer labels must be one class per clip, {tuple(logits.shape[:1])}, got {tuple(labels.shape)}. For "
            "several classes per clip give floats, or problem_type='multi_label_classification'."
        )
    return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)


def _same_shape(labels: Tensor, logits: Tensor) -> Tensor:
    if labels.shape == logits.shape or labels.numel() == logits.numel() == len(logits):
        return labels.view_as(logits)
    raise ValueError(f"labels must have the shape of the logits, {tuple(logits.shape)}, got {tuple(labels.shape)}.")
