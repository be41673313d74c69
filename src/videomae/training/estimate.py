"""What a run will cost, worked out without doing it: the model runs on PyTorch's meta device, which has no data."""

import dataclasses
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of training a model.

    Attributes:
        parameters: number of them.
        forward_flops: of one clip, forward; a multiplication with its addition counts as two.
        training_flops: of one clip, forward and backward.
        weight_bytes: weights, and their running average where there is one.
        optimizer_bytes: gradients and AdamW's two averages.
        activation_bytes: kept of one clip for the backward pass.
    """

    parameters: int
    forward_flops: int
    training_flops: int
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and AdamW's two averages, in bytes."""
        return self.weight_bytes + self.optimizer_bytes

    def shared(self, strategy: str, processes: int) -> Self:
        """Return the cost for one of several processes: "fsdp" shards all state, "deepspeed" (ZeRO 2) no weights."""
        return dataclasses.replace(
            self,
            weight_bytes=self.weight_bytes // (processes if strategy == "fsdp" else 1),
            optimizer_bytes=self.optimizer_bytes // (processes if strategy in ("fsdp", "deepspeed") else 1),
        )

    def memory(self, clips: int) -> int:
        """Return the bytes a process needs for so many clips at once; an estimate, buffers of kernels not included."""
        return self.state_bytes + clips * self.activation_bytes


def estimate(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], *, half: bool, ema: bool, recompute_blocks: int = 0
) -> Cost:
    """Estimate what training costs.

    Args:
        model: on the meta device.
        loss: runs the model on one clip on the meta device, and returns the loss.
        half: whether the computation is in 16 bits.
        ema: whether an average of the weights is kept.
        recompute_blocks: with gradient checkpointing, the number of blocks; 0 without it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and not _is_attention(tensor):
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = loss(model)
        forward = counter.get_total_flops()
        result.backward()
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    activations = sum(kept.values()) // (2 if half else 1)
    if recompute_blocks:
        # Of each block only the input stays, about a sixteenth of what it keeps otherwise, and one block is at work.
        activations = activations // 16 + activations // recompute_blocks
    return Cost(
        parameters=parameters,
        forward_flops=forward,
        training_flops=counter.get_total_flops(),
        weight_bytes=4 * parameters * (2 if ema else 1),
        optimizer_bytes=4 * 3 * trainable,
        activation_bytes=activations,
    )


def _is_attention(tensor: Tensor) -> bool:
    """Tell attention weights (H, N, N), which fused kernels do not keep, from tokens and heads up to 128 wide."""
    return tensor.shape[:-2].numel() > 1 and min(tensor.shape[-2:]) > 128
