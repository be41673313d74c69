"""What the models return: fields by attribute, by key and by position."""

import dataclasses
import functools
import sys
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor


@torch.jit.ignore  # or torch.jit.trace would take outputs for classes to compile, not for the dicts that they are
class ModelOutput(OrderedDict[str, Any]):
    """Base of the outputs: a dict of the fields that are set, which also answers by attribute and by position.

    A field that is None is left out, as in transformers. It is rebuilt from a mapping or pairs, as accelerate,
    DataParallel and FSDP do it.
    """

    def __init__(self, content: Any = (), /, **fields: Any) -> None:
        given = dict(content) | fields
        super().__init__((name, value) for name, value in given.items() if value is not None)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What ``isinstance`` asks beside the type: a class of transformers' kind as well, where that is loaded.

        Its pipelines keep the attributes of nothing else when they move an output to another device.
        """
        theirs = sys.modules.get("transformers.modeling_outputs") or sys.modules.get("transformers.utils.generic")
        if theirs is None or not hasattr(theirs, "ModelOutput"):  # as while it is being imported
            return type(self)
        return _of_both(type(self), getattr(theirs, type(self).__name__, theirs.ModelOutput))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, as with ``return_dict=False``."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in type(self).__dataclass_fields__:  # type: ignore[attr-defined]
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@functools.cache
def _of_both(ours: type[ModelOutput], theirs: type) -> type:
    """Make a class that is below both, and makes instances of ``ours``: FSDP makes them by ``outputs.__class__``."""

    def make(cls: type, *content: Any, **fields: Any) -> ModelOutput:
        return ours(*content, **fields)

    return types.new_class(ours.__name__, (ours, theirs), exec_body=lambda body: body.update(__new__=make))


# Dataclasses of annotations alone: a default would stand in the class, before what the dict holds.
@dataclasses.dataclass(init=False, eq=False, repr=False)
class BaseModelOutput(ModelOutput):
    """Output of ``VideoMAEModel``.

    Attributes:
        last_hidden_state: (B, V, D) the encoder's tokens; all N of them without a mask.
        hidden_states: input of the first and output of every encoder block, each (B, V, D).
        attentions: attention weights of every encoder block, each (B, heads, V, V).
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclasses.dataclass(init=False, eq=False, repr=False)
class OutputWithLoss(ModelOutput):
    """What the two outputs below have in common."""

    loss: Tensor | None
    logits: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclasses.dataclass(init=False, eq=False, repr=False)
class VideoMAEForPreTrainingOutput(OutputWithLoss):
    """Output of ``VideoMAEForPreTraining``.

    Attributes:
        loss: scalar, float32.
        logits: (B, M, P) predicted pixels of the masked tubelets, in the units of the target.
        hidden_states: as in ``BaseModelOutput``.
        attentions: as in ``BaseModelOutput``.
    """


@dataclasses.dataclass(init=False, eq=False, repr=False)
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
