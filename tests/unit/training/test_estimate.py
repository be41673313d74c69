"""What a run will cost is worked out without data, and is what a run keeps."""

import contextlib

import pytest
import torch

from training_runs import settings, write_data
from videomae.training import devices
from videomae.training.dry_run import dry_run
from videomae.training.estimate import Cost, estimate
from videomae.training.finetuning import Finetuning
from videomae.training.pretraining import Pretraining

# Tokens enough for what is kept of clips to count for more than what is kept once.
SIZE = ("--model.image-size", "64", "--model.hidden-size", "64")
TASKS = {"pretrain": Pretraining, "finetune": Finetuning}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("estimate"))


def kept(model, loss, clips, precision):
    """Return the bytes that a real forward pass keeps for the backward pass, beside the weights."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        loss(model, clips)
    return sum(storages.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("task", "options"), [("pretrain", ()), ("finetune", ()), ("pretrain", ("--mask.decoder", "random"))]
)
def test_memory_is_what_a_step_keeps(data, tmp_path, task, options, precision):
    experiment = TASKS[task](settings(task, data, tmp_path, *SIZE, *options))
    config = experiment.config
    with torch.device("meta"):
        empty = experiment.model_class()(config).train()
    cost = estimate(empty, experiment.example_loss, half=precision == "bf16", ema=False)
    pixels = 4 * 3 * 64 * 64
    estimated = cost.copy_bytes + 3 * (cost.activation_bytes - 5 * pixels)
    measured = kept(experiment.model_class()(config).train(), experiment.example_loss, 3, precision)
    assert estimated == pytest.approx(measured, rel=0.1)
    assert (cost.copy_bytes > 1000) is (precision == "bf16")


def test_gradient_checkpointing_keeps_the_inputs_of_blocks_and_one_block(data, tmp_path):
    deep = ("--model.num-hidden-layers", "12")
    experiment = Finetuning(settings("finetune", data, tmp_path, *SIZE, *deep))
    with torch.device("meta"):
        model = experiment.model_class()(experiment.config).train()
    whole, recomputed = (
        estimate(model, experiment.example_loss, half=False, ema=False, recompute=recompute)
        for recompute in (False, True)
    )
    inputs = 12 * 4 * experiment.config.num_tubelets * 64
    block = (whole.activation_bytes - recomputed.activation_bytes + inputs) / 11
    assert recomputed.activation_bytes < whole.activation_bytes / 3
    assert recomputed.activation_bytes == pytest.approx(whole.activation_bytes - 12 * block + inputs + block)


def test_sharded_state_takes_a_share_of_the_memory():
    """FSDP shards weights, gradients and the optimiser's averages; ZeRO 2 leaves the weights whole."""
    cost = Cost(100, 0, 0, weight_bytes=400, optimizer_bytes=1200, activation_bytes=50, copy_bytes=200)
    assert cost.shared("auto", 4).memory(2) == cost.memory(2) == 1900
    assert cost.shared("fsdp", 4).memory(2) == 400 + 100
    assert cost.shared("deepspeed", 4).memory(2) == 400 + 300 + 200 + 100


@pytest.mark.parametrize(
    ("fitting", "told"),
    [
        (4, None),
        (2, "take --run.per-device-batch 2, or --run.gradient-checkpointing"),
        (0, "take a smaller model, or --run.strategy fsdp on more GPUs, or --run.gradient-checkpointing"),
    ],
)
def test_a_dry_run_warns_of_too_little_memory(data, tmp_path, monkeypatch, capsys, fitting, told):
    experiment = Finetuning(settings("finetune", data, tmp_path, "--loader.augmentations-per-clip", "3"))
    with torch.device("meta"):
        model = experiment.model_class()(experiment.config).train()
    cost = estimate(model, experiment.example_loss, half=False, ema=False)
    monkeypatch.setattr(devices, "free_memory", lambda device: cost.memory(3 * fitting))
    dry_run(experiment)
    printed = " ".join(capsys.readouterr().out.split())
    assert ("warning: this does not fit into the" in printed) is (told is not None)
    assert told is None or told in printed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares with what a CUDA GPU allocates")
def test_the_estimate_is_what_a_gpu_allocates(data, tmp_path):
    """At the end of the forward pass, in bfloat16: weights, copies, activations; gradients and averages come later."""
    large = (
        "--model.image-size",
        "224",
        "--model.patch-size",
        "16",
        "--model.num-frames",
        "16",
        "--model.hidden-size",
        "384",
    )
    experiment = Finetuning(settings("finetune", data, tmp_path, *large, "--model.num-attention-heads", "6"))
    with torch.device("meta"):
        model = experiment.model_class()(experiment.config).train()
    cost = estimate(model, experiment.example_loss, half=True, ema=False)
    model = experiment.model_class()(experiment.config).cuda().train()
    with torch.autocast("cuda", torch.bfloat16):
        loss = experiment.example_loss(model, 8)
    expected = cost.weight_bytes + cost.copy_bytes + 8 * cost.activation_bytes
    assert torch.cuda.memory_allocated() == pytest.approx(expected, rel=0.1)
    loss.backward()
