"""What a run will cost, worked out without doing it: the model runs on PyTorch's meta device, which has no data."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of training a model.

    Attributes:
        parameters: number of them.
        forward_flops: of one clip, forward; a multiplication with its addition counts as two.
        training_flops: of one clip, forward and backward.
        state_bytes: weights, gradients and AdamW's two averages.
        activation_bytes: kept of one clip for the backward pass.
    """

    parameters: int
    forward_flops: int
    training_flops: int
    state_bytes: int
    activation_bytes: int

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
        state_bytes=4 * (parameters * (2 if ema else 1) + 3 * trainable),
        activation_bytes=activations,
    )


def _is_attention(tensor: Tensor) -> bool:
    """Tell attention weights (H, N, N), which fused kernels do not keep, from tokens and heads up to 128 wide."""
    return tensor.shape[:-2].numel() > 1 and min(tensor.shape[-2:]) > 128
