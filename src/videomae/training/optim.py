"""The optimisers: which parameters decay, how fast each layer learns, and the running average of the weights."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from videomae.training.settings import OptimSettings
from videomae.training.state_tensors import shared_as

_BLOCK = re.compile(r"videomae\.blocks\.(\d+)\.")
_MATRIX = re.compile(r"(^|\.)blocks\.\d+\..*weight$")  # of the encoder and of the decoder
_FUSED = ("cuda", "mps", "cpu")  # devices that PyTorch has a fused AdamW for


def parameter_groups(
    model: nn.Module,
    *,
    depth: int,
    weight_decay: float,
    layer_decay: float = 1.0,
    muon_scale: float | None = None,
    faster: Mapping[str, float] = MappingProxyType({}),
) -> list[dict]:
    """Sort the trainable parameters into groups of equal optimiser, weight decay and learning rate.

    Biases, LayerNorms and the mask token do not decay. With ``layer_decay`` the learning rate of layer i is multiplied
    by layer_decay ** (depth + 1 - i), where the patch embedding is layer 0, the blocks are 1 to depth, and all
    above them is depth + 1 (v1).

    Args:
        model: with parameters named as in a checkpoint: the encoder's begin with "videomae.".
        depth: number of encoder blocks.
        weight_decay: of the parameters that decay.
        layer_decay: in (0, 1]; 1 is off.
        muon_scale: Muon's learning rate over AdamW's, for the matrices of the blocks; None gives all to AdamW.
        faster: by beginnings of names, how many times faster such parameters learn, without decay.

    Returns:
        Groups for `build_optimizer`, with ``lr_scale``, by which the learning rate of a step is multiplied, and
        ``muon``.
    """
    groups: dict[tuple[int, bool, bool, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_of(name, depth)
        own = next((factor for beginning, factor in faster.items() if name.startswith(beginning)), None)
        decays = parameter.ndim > 1 and not name.endswith("mask_token") and own is None
        muon = muon_scale is not None and parameter.ndim == 2 and _MATRIX.search(name) is not None
        scale = layer_decay ** (depth + 1 - layer) if own is None else own
        group = groups.setdefault(
            (layer if layer_decay != 1.0 else 0, decays, muon, own or 1.0),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": scale * muon_scale if muon and muon_scale is not None else scale,
                "muon": muon,
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
    options: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    options["fused"] = device.type in _FUSED
    if settings.name == "muon":
        return MuonAdamW(groups, momentum=settings.muon_momentum, **options)
    return torch.optim.AdamW(groups, **options)


class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups that are marked ``muon``, AdamW for the others, with one state to store.

    Muon (Keller Jordan et al., 2024; arXiv 2502.16982) moves a matrix by its momentum with all singular values made
    about 1, by five Newton-Schulz steps. Unlike ``torch.optim.Muon`` it computes in float32 on processors, where
    bfloat16 is slow, takes all matrices of one shape at once, and the fused query-key-value matrix as the three
    matrices that it is.

    Args:
        groups: as `parameter_groups` returns them.
        momentum: of Muon (Nesterov's).
        options: of AdamW.
    """

    def __init__(self, groups: list[dict], *, momentum: float, **options: Any) -> None:
        super().__init__(groups, **options)
        self.momentum = momentum
        self._step_supports_amp_scaling = False  # Muon's part knows no ``found_inf``

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move all parameters by one step."""
        matrices: dict[torch.Size, list[tuple[Tensor, Tensor, float]]] = {}
        for group in self.param_groups:
            for parameter in group["params"] if group["muon"] else ():
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:  # AdamW, which restores all states, looks for a number of steps
                    state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(parameter)}
                state["step"] += 1
                average = state["momentum"]
                average.lerp_(parameter.grad, 1 - self.momentum)
                direction = parameter.grad.lerp(average, self.momentum)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parts = 3 if len(parameter) == 3 * parameter.shape[1] else 1  # query, key and value
                for part, place in zip(direction.chunk(parts), parameter.chunk(parts), strict=True):
                    rate = group["lr"] * max(1, part.shape[0] / part.shape[1]) ** 0.5
                    matrices.setdefault(part.shape, []).append((part, place, rate))
        for same in matrices.values():
            moves = orthogonalized(torch.stack([direction for direction, _, _ in same]))
            for move, (_, place, rate) in zip(moves, same, strict=True):
                place.add_(move, alpha=-rate)
        every = self.param_groups
        try:
            self.param_groups = [group for group in every if not group["muon"]]
            return super().step(closure)
        finally:
            self.param_groups = every


def orthogonalized(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Make the singular values of matrices about 1 (0.7 to 1.2), by Newton-Schulz iterations.

    Args:
        matrices: (K, rows, columns), of one shape.
        steps: iterations, with Jordan's coefficients for five.

    Returns:
        The same shape and dtype; float32 inside on a CPU, bfloat16 elsewhere.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x.float() if x.device.type == "cpu" else x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


class Ema:
    """A running average of a model's parameters, sharded as they are.

    After t updates the next one keeps the fraction min(decay, (1 + t) / (10 + t)) of the average, as TensorFlow's
    ExponentialMovingAverage does with ``num_updates``: 0.9999 from the start would after 3,000 steps still keep 74 % of
    the weights that training began with.

    Args:
        model: whose parameters are averaged.
        decay: the largest fraction of the average that stays at a step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"optim.ema must lie between 0 and 1, got {decay}.")
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.updates = torch.zeros((), device=next(model.parameters()).device)  # there, so that nobody waits for it
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, good: Tensor | bool = True) -> None:
        """Move the average towards the parameters by one step, if ``good``, which only their device may know."""
        decay = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)
        for name, parameter in self.parameters.items():
            _own_part(self.average[name]).lerp_(_own_part(parameter), (1 - decay) * good)
        self.updates += good

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for name, parameter in self.parameters.items():
            ours, average = _own_part(parameter), _own_part(self.average[name])
            kept = ours.clone()
            ours.copy_(average)  # FSDP keeps the memory of its parts, not the tensors
            average.copy_(kept)

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
        return {"average": self.average, "updates": int(self.updates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` returned."""
        self.updates.fill_(state["updates"])
        for name, tensor in self.average.items():
            tensor.copy_(shared_as(tensor, state["average"][name]))


def _own_part(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor: all of it, or its shard."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
