"""What a run has learnt, as whole tensors by name, however the processes share it.

Nothing here is pickled: a checkpoint of tensors cannot run code, and is the same for any number of processes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Tensors = dict[str, Tensor]


def weights_of(model: nn.Module) -> Tensors:
    """Return the parameters and buffers of a model."""
    return model.state_dict()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill a model with what ``weights_of`` returned, each process with its part.

    Raises:
        RuntimeError: if names or shapes differ.
    """
    ours = model.state_dict()
    model.load_state_dict({name: shared_as(ours.get(name), tensor) for name, tensor in tensors.items()})


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return what an optimiser remembers of each parameter, under "PARAMETER/NAME": averages and a count of steps."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {f"{names[p]}/{key}": value for p, state in optimizer.state.items() for key, value in state.items()}


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Fill an optimiser with what ``moments_of`` returned; its learning rates and other settings stay as they are.

    Raises:
        ValueError: if a tensor is of no parameter of the optimiser, or not of its shape.
    """
    groups = optimizer.state_dict()["param_groups"]
    learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {parameter: name for name, parameter in model.named_parameters()}
    places = {names[parameter]: index for index, parameter in enumerate(learnt)}
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        if owner not in places:
            raise ValueError(f"{name} is of no parameter that is trained.")
        parameter = learnt[places[owner]]
        if tensor.shape not in (parameter.shape, ()):
            raise ValueError(f"{name} is {tuple(tensor.shape)}, its parameter {tuple(parameter.shape)}.")
        if tensor.shape == parameter.shape:
            tensor = _laid_out_as(parameter, shared_as(parameter, tensor))
        state.setdefault(places[owner], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> Tensors:
    """Put the parts of tensors that processes share together, on the CPU; every process calls this.

    Args:
        tensors: of this process.
        keep: whether this process wants them; the others take part, one tensor at a time, and get nothing.
    """
    whole: Tensors = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            whole[name] = full.detach().cpu().contiguous()
    return whole


def shared_as(reference: Tensor | None, tensor: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, cut as the reference is."""
    if not isinstance(reference, DTensor):
        return tensor
    mesh = reference.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, reference.placements, src_data_rank=None)


def _laid_out_as(reference: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor in the memory format of its parameter: fused optimisers walk through the memory of both alike."""
    return (
        tensor
        if tensor.stride() == reference.stride()
        else torch.empty_like(reference, dtype=tensor.dtype).copy_(tensor)
    )
