"""A classifier with what it has in distillation only; `videomae.training.distillation` makes it an ordinary one again.

Shapes: B clips, T frames, H x W pixels; V visible tubelets; D width, L classes, F features of the teacher.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from videomae.config import VideoMAEConfig
from videomae.models.layers import Trace
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
        self, pixel_values: Tensor, visible: Tensor | None = None, **unused: Any
    ) -> tuple[Any, ...]:
        """Return logits (B, L), and a hint (B, V, F) after each of the blocks.

        Args:
            pixel_values: (B, T, 3, H, W), normalised.
            visible: (B, V) positions of the tubelets to see; None is all.
            unused: ``return_dict`` has no effect.
        """
        trace = Trace(hidden_states=[])
        tokens = self.videomae.encode(to_grey(pixel_values), visible, trace)  # (B, V, D)
        states = trace.hidden_states or []
        hints = [hint(states[block]) for hint, block in zip(self.hints, self.hint_blocks, strict=True)]
        return self.classifier(self.batch_norm(self.pool(tokens))), hints
