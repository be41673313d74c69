"""The host never waits for a GPU within a step. There need be none: tensors without data say where they would be."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from training_runs import settings, write_data
from videomae.training.finetuning import Finetuning
from videomae.training.loop import Job, fit
from videomae.training.optim import parameter_groups
from videomae.training.pretraining import Pretraining
from videomae.training.schedule import Schedule

GPU = torch.device("cuda", 0)
STEPS = 3


class Waits(TorchDispatchMode):
    """Lists the operations for which a host waits: values it asks for, and copies to and from its ordinary memory."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options, name = options or {}, str(function)
        result = function(*arguments, **options)
        places = {tensor.device.type for tensor in (*arguments, result) if isinstance(tensor, torch.Tensor)}
        is_copy = name.startswith(("aten._to_copy", "aten.copy_")) and places == {"cpu", "cuda"}
        waits = is_copy and not (options.get("non_blocking") or True in arguments[2:])
        if waits or name.startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal")):
            self.found.append(name)
        return result


class OneGpu:
    """What the loop asks of an Accelerator with one GPU in bf16."""

    device, distributed_type, scaler, trackers = GPU, "NO", None, ()
    num_processes, process_index, is_main_process = 1, 0, True

    def prepare(self, model, optimizer):
        self.model = model
        return model, optimizer

    def accumulate(self, model):
        return contextlib.nullcontext()

    def backward(self, loss):
        """Make gradients: PyTorch's own backward pass looks for a GPU."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def reduce(self, tensor, reduction):
        return tensor.clone()

    def clip_grad_norm_(self, parameters, largest):
        return nn.utils.clip_grad_norm_(parameters, largest)

    def init_trackers(self, *arguments, **options):
        pass

    def log(self, values, step):
        pass

    def unwrap_model(self, model):
        return model

    def wait_for_everyone(self):
        pass


class Batches:
    """The same batch again and again, in pinned memory for all that its tensors say."""

    sampler = SimpleNamespace(set_epoch=lambda epoch, start_batch: None)

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield dict(self.batch)


class Meter:
    wait_fraction = 0.0

    def track(self, batches):
        return iter(batches)

    def reset(self):
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("waiting"))


COMMON = ("--optim.ema", "0.9", "--optim.clip-grad", "0.1", "--run.log-every", "100")
# torchvision's mixing takes no tensors without data, and what is drawn on the host must be known.
UNMIXED = ("--augment.mixup", "0", "--augment.cutmix", "0", "--augment.erasing", "0")


@pytest.mark.parametrize(
    ("task", "method", "options"), [("pretrain", Pretraining, ()), ("finetune", Finetuning, UNMIXED)]
)
def test_a_step_waits_for_nothing(data, tmp_path, monkeypatch, task, method, options):
    """Batch to the GPU, normalisation, masks, loss, clipping, optimiser, average: no waiting."""
    chosen = settings(task, data, tmp_path, *COMMON, *options)
    experiment = method(chosen)
    config = experiment.config
    clip = (2, config.num_frames, config.num_channels, *config.frame_size)
    batch = {"pixel_values": torch.zeros(clip, dtype=torch.uint8), "label": torch.tensor([0, 1])}
    if mask := experiment.mask():
        batch["mask"] = torch.stack([mask(torch.Generator().manual_seed(i)) for i in range(2)])
    schedule = Schedule.make(chosen.run, chosen.optim, num_videos=12, world_size=1)
    read_after = []
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: None))
    monkeypatch.setattr("videomae.training.loop.memory_used", lambda device: 0.0)
    monkeypatch.setattr("videomae.training.loop.Checkpoints", lambda *a, **o: SimpleNamespace(steps=list, save=None))

    with torch.device("meta"):
        model = experiment.model_class()(config)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        model = model.to_empty(device=GPU)
        if task == "finetune":
            experiment.flip, experiment.class_weights = 0.0, torch.ones(len(experiment.train.classes), device=GPU)
        groups = parameter_groups(model, depth=config.num_hidden_layers, weight_decay=0.05)

        def before_step(step):
            if step == STEPS:
                raise StopIteration(step)
            if step:
                read_after.append(list(waits.found))
            waits.found.clear()

        def figures(tensor):
            waits.found.append("figures")
            return [1.0, 0.0, 0.0, 1.0, 1.0]

        monkeypatch.setattr(FakeTensor, "tolist", figures)
        job = Job(model, experiment.loss, Batches(batch), groups, Meter(), before_step=before_step)
        with pytest.raises(StopIteration):
            fit(OneGpu(), job, schedule, folder=tmp_path, run=chosen.run, optim=chosen.optim)
    assert read_after == [[], ["figures"]]  # of a step, when the next one is under way
