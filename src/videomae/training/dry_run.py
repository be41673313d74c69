"""What a run would do and take, printed without doing it."""

from videomae.console import output
from videomae.processes import local_world_size, world_size
from videomae.training.experiment import Experiment
from videomae.training.schedule import Schedule, divisors


def dry_run(experiment: Experiment) -> None:
    """Print batches, steps, memory, FLOPs and learning rates; the model exists on PyTorch's meta device only."""
    import torch

    from videomae.training.devices import free_memory, resolve_precision, training_device
    from videomae.training.estimate import estimate

    s, config = experiment.settings, experiment.config
    schedule = Schedule.make(s.run, s.optim, num_videos=len(experiment.samples), world_size=world_size())
    with torch.device("meta"):
        model = experiment.model_class()(config).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = experiment.frozen is None or not name.startswith(experiment.frozen)
    precision = resolve_precision(s.run)
    cost = estimate(
        model,
        experiment.example_loss,
        half=precision != "float32",
        ema=s.optim.ema is not None,
        recompute=s.run.gradient_checkpointing,
    ).shared(s.run.strategy, schedule.world_size)
    each = s.loader.clips_per_video * s.loader.augmentations_per_clip
    clips = schedule.per_device_batch * each
    console, device = output(), training_device(s.run)
    copies = f" + {cost.copy_bytes / 1e9:.3g} GB for copies in 16 bits" if cost.copy_bytes else ""
    console.print(schedule.describe(), markup=False)
    console.print(
        f"model: {cost.parameters / 1e6:.2f} M parameters; {cost.forward_flops / 1e9:.4g} GFLOPs per clip forward, "
        f"{cost.training_flops / 1e9:.4g} with the backward pass (a multiplication and an addition are two)"
    )
    console.print(
        f"memory per process, estimated: {cost.memory(clips) / 1e9:.3g} GB = {cost.state_bytes / 1e9:.3g} GB for "
        f"weights, gradients and optimiser{copies} + {clips} clips x {cost.activation_bytes / 1e6:.4g} MB in "
        f"{precision}"
    )
    free = free_memory(device) / (local_world_size(schedule.world_size) if device.type == "cpu" else 1)
    if cost.memory(clips) > free:
        parts = [part for part in divisors(schedule.per_device_batch) if cost.memory(part * each) <= free]
        advice = (
            f"--run.per-device-batch {parts[-1]}" if parts else "a smaller model, or --run.strategy fsdp on more GPUs"
        )
        console.print(
            f"warning: this does not fit into the {free / 1e9:.3g} GB that are free on {device}: take {advice}"
            f"{'' if s.run.gradient_checkpointing else ', or --run.gradient-checkpointing'}",
            markup=False,
        )
    console.print("learning rate by step:")
    for step in sorted({round(i * (schedule.steps - 1) / 10) for i in range(11)} | {max(schedule.warmup_steps - 1, 0)}):
        rate = schedule.learning_rate(step)
        console.print(f"  {step:>8}  {rate:.3e}  {'#' * round(40 * rate / (schedule.lr or 1))}", markup=False)
