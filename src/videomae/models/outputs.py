"""What the models return: fields by attribute, by key and by position."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class ModelOutput:
    """Base of the outputs; a field that is None is skipped by position and in iteration, as in transformers."""

    def keys(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None)  # type: ignore[arg-type]

    def values(self) -> tuple[Any, ...]:
        """Return the fields that are set."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return names and values of the fields that are set."""
        return tuple(zip(self.keys(), self.values(), strict=True))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, as with ``return_dict=False``."""
        return self.values()

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.values()[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclasses.dataclass
class BaseModelOutput(ModelOutput):
    """Output of ``VideoMAEModel``.

    Attributes:
        last_hidden_state: (B, V, D) the encoder's tokens; all N of them without a mask.
        hidden_states: input of the first and output of every encoder block, each (B, V, D).
        attentions: attention weights of every encoder block, each (B, heads, V, V).
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclasses.dataclass
class OutputWithLoss(ModelOutput):
    """What the two outputs below have in common."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclasses.dataclass
class VideoMAEForPreTrainingOutput(OutputWithLoss):
    """Output of ``VideoMAEForPreTraining``.

    Attributes:
        loss: scalar, float32.
        logits: (B, M, P) predicted pixels of the masked tubelets, in the units of the target.
        hidden_states: as in ``BaseModelOutput``.
        attentions: as in ``BaseModelOutput``.
    """


@dataclasses.dataclass
class ImageClassifierOutput(OutputWithLoss):
    """Output of ``VideoMAEForVideoClassification`` (the name is that of transformers).

    Attributes:
        loss: scalar, float32; only with labels.
        logits: (B, L) scores before softmax.
        hidden_states: as in ``BaseModelOutput``.
        attentions: as in ``BaseModelOutput``.
    """


for _output in (BaseModelOutput, VideoMAEForPreTrainingOutput, ImageClassifierOutput):
    torch.export.register_dataclass(_output, serialized_type_name=f"videomae.{_output.__name__}")
