"""The devices and processes that a run has, as Accelerate's `Accelerator`."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from videomae.errors import MissingPackageError, VideoMAEError
from videomae.files import lasting_utf8_address
from videomae.options import parse_duration
from videomae.training.settings import RunSettings

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

_SHARDED_BLOCK = "Block"  # FSDP gathers the weights of one such module at a time

WORTH_COMPILING = 600  # seconds of training
SHARDED = ("FSDP", "DEEPSPEED")

T = TypeVar("T")


def build_accelerator(run: RunSettings, *, folder: Path) -> "Accelerator":
    """Return the Accelerator for the devices and processes there are.

    Args:
        run: device, precision, strategy and trackers.
        folder: the run directory, where trackers write.

    Raises:
        ValueError: if a strategy or a tracker is asked for that is not available.
        MissingPackageError: if DeepSpeed is asked for and not installed.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.tracking import get_available_trackers

    available = [str(tracker.value) for tracker in get_available_trackers()]
    if missing := [name for name in run.trackers if name not in available]:
        raise ValueError(
            f"run.trackers: {missing[0]!r} is not installed, or Accelerate does not know it. Available are: "
            f"{', '.join(available) or 'none'}."
        )
    # Accelerate shares its state in a process; a second run may have another precision, strategy or accumulation.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    on_cpu = run.device == "cpu"
    precision = resolve_precision(run)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "float32" else precision,
        log_with=list(run.trackers) or None,
        project_dir=lasting_utf8_address(folder / "logs") if run.trackers else None,
        fsdp_plugin=_fsdp_plugin(half=precision == "bf16") if run.strategy == "fsdp" else None,
        deepspeed_plugin=_deepspeed_plugin() if run.strategy == "deepspeed" else None,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],  # gradients exist once
        step_scheduler_with_optimizer=False,
    )
    if run.strategy == "fsdp" and accelerator.distributed_type is DistributedType.MULTI_CPU:
        # Accelerate offers FSDP on accelerators only, though PyTorch's works on processors: for trying it out.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = _fsdp_plugin()
    if run.strategy == "fsdp" and accelerator.distributed_type is not DistributedType.FSDP:
        raise ValueError("run.strategy = 'fsdp' needs several processes: start it with `torchrun --nproc-per-node N`.")
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where float32 is left
    return accelerator


def training_device(run: RunSettings) -> "torch.device":
    """Return the device that a single process trains on, as Accelerate chooses it."""
    import torch

    if run.device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if run.device != "cpu" and torch.backends.mps.is_available() else "cpu")


def free_memory(device: "torch.device") -> float:
    """Return the bytes that are free on a device."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def compiles(run: RunSettings, device: "torch.device", *, sharded: bool = False) -> bool:
    """Tell whether a model on a device is compiled: as the run asks for, or where that is known to help.

    Args:
        run: what is asked for; compiling is not worth a short budget.
        device: that the model runs on.
        sharded: whether processes share the weights.
    """
    if run.compile is not None:
        return run.compile
    is_short = run.budget is not None and parse_duration(run.budget, name="run.budget") < WORTH_COMPILING
    has_compiler = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return has_compiler and not sharded and not is_short


def resolve_precision(run: RunSettings) -> str:
    """Return "float32", "bf16" or "fp16": what "auto" stands for here, or the precision that is asked for."""
    if run.precision != "auto":
        return run.precision
    import torch

    bf16 = run.device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if bf16 else "float32"


def on_main_process(find: Callable[[], T]) -> T:
    """Return what the main process finds, or raise what it raises, on every process; all of them call this.

    Over a network file system each of them may see another state of a folder: what one finds, all do.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    if state.num_processes == 1:
        return find()
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = find()
        except (VideoMAEError, ValueError, OSError) as error:
            found[1] = error
    value, obstacle = broadcast_object_list(found)
    if obstacle is not None:
        raise obstacle
    return value


def _fsdp_plugin(*, half: bool = False) -> Any:
    import torch
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # It warns of outputs that are views, lest someone changes them in place; nobody here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[_SHARDED_BLOCK],
        # Gathered in bf16 the weights are half of the bytes; gradients are added up in float32. (On processors autocast
        # leaves LayerNorm alone, which takes no such weights.) Inputs are pixels, from which the targets are made: they
        # stay float32, and autocast does the rest.
        mixed_precision_policy=MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        ),
    )


def _deepspeed_plugin() -> Any:
    from accelerate import DeepSpeedPlugin

    try:
        return DeepSpeedPlugin(zero_stage=2)
    except ImportError as error:
        raise MissingPackageError("run.strategy = 'deepspeed' needs DeepSpeed: pip install deepspeed.") from error
