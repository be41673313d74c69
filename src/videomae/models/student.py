"""A classifier with what it has in distillation only; `videomae.training.distillation` makes it an ordinary one again.

Shapes: B clips, T frames, H x W pixels; V visible tubelets; D width, L classes, F features of the teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videomae.config import VideoMAEConfig
from videomae.models.patches import PatchEmbed
from videomae.models.teacher import to_grey
from videomae.models.videomae import VideoMAEForVideoClassification

BATCH_NORM_EPS = 1e-5


class Student(VideoMAEForVideoClassification):
    """A classifier that sees grey, has a BatchNorm before its last layer, and gives hints of its blocks.

    Args:
        config: of the ordinary model, with RGB input and mean pooling.
        hint_widths: F of each hint: the first is given after half of the blocks, the second after the last.
    """

    def __init__(self, config: VideoMAEConfig, hint_widths: Sequence[int]) -> None:
        super().__init__(config)
        self.videomae.patch_embed = PatchEmbed(config.replace(num_channels=1))
        self.init_weights(self.videomae.patch_embed.proj)
        self.batch_norm = nn.BatchNorm1d(config.hidden_size, eps=BATCH_NORM_EPS, affine=False)
        self.hints = nn.ModuleList(nn.Linear(config.hidden_size, width) for width in hint_widths)
        self.hint_blocks = (max(config.num_hidden_layers // 2, 1), config.num_hidden_layers)
        for parameter in self.classifier.parameters():
            nn.init.zeros_(parameter)

    def forward(  # type: ignore[override]  # it is trained and thrown away, nobody passes labels
        self, pixel_values: Tensor, visible: Tensor | None = None, return_dict: bool | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, L), and a hint (B, V, F) after each of the blocks.

        Args:
            pixel_values: (B, T, 3 or 1, H, W), normalised.
            visible: (B, V) positions of the tubelets to see, in order; None is all.
            return_dict: has no effect; there for what calls models.
        """
        mask = None if visible is None else self._hide_others(visible)
        encoded = self.videomae(to_grey(pixel_values), mask, output_hidden_states=True, return_dict=True)  # (B, V, D)
        hints = [hint(encoded.hidden_states[block]) for hint, block in zip(self.hints, self.hint_blocks, strict=True)]
        return self.classifier(self.batch_norm(self.pool(encoded.last_hidden_state))), hints

    def _hide_others(self, visible: Tensor) -> Tensor:
        """Return the mask (B, N) that shows the (B, V) visible tubelets."""
        mask = visible.new_ones(len(visible), self.config.num_tubelets, dtype=torch.bool)
        return mask.scatter(1, visible, False)
