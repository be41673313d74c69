"""The optimiser: which parameters decay, how fast each layer learns, and the running average of the weights."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from videomae.training.settings import OptimSettings

_BLOCK = re.compile(r"videomae\.blocks\.(\d+)\.")
_FUSED = ("cuda", "mps", "cpu")  # devices that PyTorch has a fused AdamW for


def parameter_groups(model: nn.Module, *, depth: int, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Sort the trainable parameters into groups of equal weight decay and learning rate.

    Biases, LayerNorms and the mask token do not decay. With ``layer_decay`` the learning rate of layer i is multiplied
    by layer_decay ** (depth + 1 - i), where the patch embedding is layer 0, the blocks are 1 to depth, and all
    above them is depth + 1 (v1).

    Args:
        model: with parameters named as in a checkpoint: the encoder's begin with "videomae.".
        depth: number of encoder blocks.
        weight_decay: of the parameters that decay.
        layer_decay: in (0, 1]; 1 is off.

    Returns:
        Groups for AdamW, with ``lr_scale`` besides.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_of(name, depth)
        decays = parameter.ndim > 1 and not name.endswith("mask_token")
        group = groups.setdefault(
            (layer if layer_decay != 1.0 else 0, decays),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": layer_decay ** (depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter: 0 for the patch embedding, i + 1 for block i, depth + 1 for all else."""
    if name.startswith("videomae.patch_embed."):
        return 0
    block = _BLOCK.match(name)
    return int(block[1]) + 1 if block else depth + 1


def build_optimizer(groups: list[dict], settings: OptimSettings, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW over the groups, fused where the device has it; the loop sets the learning rate of every step."""
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=device.type in _FUSED
    )


class Ema:
    """A running average of a model's parameters.

    After t updates the next one keeps the share min(decay, (1 + t) / (10 + t)) of the average, as TensorFlow's
    ExponentialMovingAverage does with ``num_updates``: 0.9999 from the start would after 3,000 steps still keep 74 % of
    the weights that training began with.

    Args:
        model: whose parameters are averaged.
        decay: the largest share of the average that stays at a step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"optim.ema must lie between 0 and 1, got {decay}")
        self.decay = decay
        self.updates = 0
        self.parameters = dict(model.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters by one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for name, parameter in self.parameters.items():
            parameter.data, self.average[name] = self.average[name], parameter.data

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the model have the average for its parameters inside the block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the average, by parameter name, and the number of updates."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` returned."""
        self.updates = state["updates"]
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])
