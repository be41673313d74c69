"""What a pre-trained model makes of a clip that is mostly hidden from it.

C channels · T frames of H x W pixels · N tubelets of (t, p, p) pixels · K hidden ones · S time slots
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.inference.loading import LoadedModel, open_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videomae.models.videomae import VideoMAEForPreTraining


GREY = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """A clip, what was shown of it, and what the model made of the rest. Frames are (T, H, W, 3) uint8.

    Attributes:
        original: the clip as the model's processor crops it.
        masked: the same with the hidden tubelets grey.
        predicted: visible tubelets as they are, hidden ones as predicted. A model that was trained with
            ``norm_pix_loss`` predicts each tubelet up to its brightness and contrast; here it is given those of the
            visible part of the clip, which is all that one may know.
        with_statistics: with ``norm_pix_loss``, the prediction with each hidden tubelet's true mean and deviation put
            back, as papers show it: it looks better than what the model knows. None otherwise.
        error_by_slot: (S,) mean squared error of ``predicted`` over the hidden pixels, in 0-1; NaN if none is.
        loss: the model's own loss on this clip.
    """

    original: NDArray[np.uint8]
    masked: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    with_statistics: NDArray[np.uint8] | None
    error_by_slot: NDArray[np.float64]
    loss: float

    @property
    def rows(self) -> dict[str, NDArray[np.uint8]]:
        """The views by their titles."""
        rows = {"original": self.original, "shown to the model": self.masked, "reconstruction": self.predicted}
        if self.with_statistics is not None:
            rows["with each patch's own\nmean and contrast"] = self.with_statistics
        return rows


def reconstruct(model: "VideoMAEForPreTraining", pixel_values: "Tensor", mask: "Tensor") -> Reconstruction:
    """Hide a part of a clip and let the model predict it.

        >>> import torch
        >>> from videomae import VideoMAEForPreTraining, tube_mask
        >>> model = VideoMAEForPreTraining.from_pretrained("pretrained/model")
        >>> clip = torch.zeros(1, 8, 3, 32, 32)
        >>> reconstruction = reconstruct(model, clip, tube_mask(model.config.grid, 0.75, batch_size=1))
        >>> reconstruction.predicted.shape, reconstruction.error_by_slot.shape
        ((8, 32, 32, 3), (4,))

    Args:
        model: with its decoder, of three channels.
        pixel_values: (1, T, C, H, W), normalised with the statistics of the model's config.
        mask: (1, N) bool, True = hidden.

    Raises:
        ValueError: if the model's pixel statistics are not known.
    """
    import torch

    from videomae.models.patches import cut_tubelets, unpatchify

    config = model.config
    if config.pixel_statistics is None:
        raise ValueError(
            "the config lacks image_mean and image_std, which turn its input back into pictures: set both."
        )
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in config.pixel_statistics)
    with torch.inference_mode():
        outputs = model(pixel_values.to(model.device, model.dtype), mask.to(model.device), return_dict=True)
    predicted = outputs.logits[0].float().cpu().unflatten(1, (*config.tubelet_shape, -1))  # (K, t, p, p, C)
    video = pixel_values[0].float().cpu() * std + mean  # (T, C, H, W) in 0-1
    truth = cut_tubelets(video[None], config.tubelet_shape)[0].permute(0, 2, 3, 4, 1)  # (N, t, p, p, C)
    hidden = mask[0].cpu()
    restored = None
    if config.norm_pix_loss:
        target, visible = truth[hidden], truth[~hidden].flatten(0, 3)
        inside = (1, 2, 3)
        restored = predicted * (target.std(inside, keepdim=True) + 1e-6) + target.mean(inside, keepdim=True)
        predicted = predicted * visible.std(0) + visible.mean(0)
    errors = torch.zeros(len(truth)).masked_scatter(hidden, (predicted - truth[hidden]).square().flatten(1).mean(1))
    by_slot, counts = (values.view(config.grid[0], -1).sum(1) for values in (errors, hidden.float()))

    def picture(content: "Tensor | float | None") -> Any:
        if content is None:
            return None
        tubelets = truth.clone()
        tubelets[hidden] = content
        frames = unpatchify(tubelets.permute(0, 4, 1, 2, 3)[None], config.grid)[0].permute(0, 2, 3, 1)  # (T, H, W, C)
        return (frames.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    return Reconstruction(
        original=picture(truth[hidden]),
        masked=picture(GREY),
        predicted=picture(predicted),
        with_statistics=picture(restored),
        error_by_slot=(by_slot / counts).double().numpy(),
        loss=float(outputs.loss),
    )


def load_pretrained(
    path_or_id: str | Path, *, device: "torch.device | str | None" = None
) -> "LoadedModel[VideoMAEForPreTraining]":
    """Open a model with its decoder; its config gets the statistics of its processor.

    Raises:
        CheckpointError: if it has no decoder.
    """
    from videomae.models.videomae import VideoMAEForPreTraining

    opened = open_model(path_or_id, VideoMAEForPreTraining, device=device)
    statistics: dict[str, Any] = {"image_mean": opened.processor.image_mean, "image_std": opened.processor.image_std}
    opened.model.config = opened.model.config.replace(**statistics)
    return opened
