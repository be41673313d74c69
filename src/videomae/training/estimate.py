"""What a run will cost, worked out without doing it: the model runs on tensors that have no data."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from videomae.models.layers import Block
from videomae.models.pretrained import PretrainedModel

# Bytes that a pixel takes while a step is made: as it came from the loader, and normalised.
_PIXEL_BYTES = 1 + 4

Loss = Callable[[PretrainedModel, int], Tensor]


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of training a model.

    Attributes:
        parameters: number of them.
        forward_flops: of one clip, forward; a multiplication with its addition counts as two.
        training_flops: of one clip, forward and backward.
        weight_bytes: weights, and their running average where there is one.
        optimizer_bytes: gradients and AdamW's two averages.
        activation_bytes: of one clip: its pixels, and what is kept of it for the backward pass.
        copy_bytes: kept whatever the number of clips, such as copies of the weights in 16 bits.
    """

    parameters: int
    forward_flops: int
    training_flops: int
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    copy_bytes: int = 0

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and AdamW's two averages, in bytes."""
        return self.weight_bytes + self.optimizer_bytes

    def shared(self, strategy: str, processes: int) -> Self:
        """Return the cost for one of several processes: "fsdp" shards all state, "deepspeed" (ZeRO 2) no weights."""
        shards_weights = strategy == "fsdp"
        return dataclasses.replace(
            self,
            weight_bytes=self.weight_bytes // (processes if shards_weights else 1),
            optimizer_bytes=self.optimizer_bytes // (processes if strategy in ("fsdp", "deepspeed") else 1),
            copy_bytes=0 if shards_weights else self.copy_bytes,  # gathered in 16 bits, a block at a time
        )

    def memory(self, clips: int) -> int:
        """Return the bytes a process needs for so many clips at once; an estimate, buffers of kernels not included."""
        return self.state_bytes + self.copy_bytes + clips * self.activation_bytes


def estimate(model: PretrainedModel, loss: Loss, *, half: bool, ema: bool, recompute: bool = False) -> Cost:
    """Estimate what training costs.

    Args:
        model: on the meta device, in training mode.
        loss: runs a model on so many clips on its device, and returns the loss.
        half: whether the computation is in 16 bits.
        ema: whether an average of the weights is kept.
        recompute: whether blocks are computed again in the backward pass (gradient checkpointing).
    """
    forward, training = count_flops(model, loss)
    one, two = (saved_bytes(model, loss, clips, half=half, recompute=recompute) for clips in (1, 2))
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    pixels = config.num_frames * config.num_channels * math.prod(config.frame_size)
    return Cost(
        parameters=parameters,
        forward_flops=forward,
        training_flops=training,
        weight_bytes=4 * parameters * (2 if ema else 1),
        optimizer_bytes=4 * 3 * trainable,
        activation_bytes=two - one + _PIXEL_BYTES * pixels,
        copy_bytes=2 * one - two,
    )


def count_flops(model: PretrainedModel, loss: Loss) -> tuple[int, int]:
    """Return the FLOPs of one clip forward, and with the backward pass; arguments are those of `estimate`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = loss(model, 1)
        forward = counter.get_total_flops()
        result.backward()
    return forward, counter.get_total_flops()


def saved_bytes(model: PretrainedModel, loss: Loss, clips: int, *, half: bool, recompute: bool = False) -> int:
    """Return the bytes that are kept for the backward pass, without the weights themselves.

    Tensors without data stand for those of a GPU.

    Args:
        model: on any device.
        loss: as for `estimate`.
        clips: at once.
        half: whether to compute in bfloat16 where autocast does.
        recompute: whether only the inputs of blocks are kept, and all of one block that is at work.
    """
    model = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cuda")
        saved = _Saved(model)
        with saved.counting(), _autocast(enabled=half), _FusedAttention():
            loss(model, clips)
    total = sum(saved.by_storage.values())
    if recompute:
        total += saved.inputs - sum(saved.blocks) + max(saved.blocks, default=0)
    return total


class _Saved:
    """What a forward pass keeps for the backward pass, each memory once.

    Attributes:
        by_storage: bytes.
        blocks: of them, those of each block.
        inputs: bytes of the blocks' inputs, in all.
    """

    def __init__(self, model: nn.Module) -> None:
        self.own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self.by_storage: dict[int, int] = {}
        self.blocks: list[int] = []
        self.inputs = 0
        self._alive: list[Tensor] = []  # so that no number of a storage is given twice
        for module in model.modules():
            if isinstance(module, Block):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is kept in the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own:
            self.by_storage[storage._cdata] = storage.nbytes()
            self._alive.append(tensor)
        return tensor

    def _enter(self, block: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._before = sum(self.by_storage.values())
        self.inputs += arguments[0].nbytes

    def _leave(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        self.blocks.append(sum(self.by_storage.values()) - self._before)


@contextmanager
def _autocast(*, enabled: bool) -> Iterator[None]:
    """Compute in bfloat16 by the rules for CUDA, also where there is no GPU, for which ``torch.autocast`` looks."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what fused kernels keep, which PyTorch chooses only where it sees a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        half = torch.is_autocast_enabled("cuda")
        inputs = (tensor.bfloat16() if half else tensor for tensor in args[:3])
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*inputs)[0]
