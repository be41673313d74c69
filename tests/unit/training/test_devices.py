"""What a run makes of the devices that it finds; there need be no GPU."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from videomae.config import VideoMAEConfig
from videomae.errors import CheckpointError
from videomae.models.videomae import VideoMAEForPreTraining
from videomae.training import devices
from videomae.training.settings import RunSettings

SMALL = {"image_size": 16, "num_frames": 4, "patch_size": 8, "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("run", "device", "sharded", "triton", "expected"),
    [
        ({}, "cuda", False, True, True),
        ({"budget": "1h"}, "cuda", False, True, True),
        ({"budget": "5m"}, "cuda", False, True, False),
        ({}, "cuda", False, False, False),
        ({}, "cuda", True, True, False),
        ({}, "cpu", False, True, False),
        ({"compile": True}, "cpu", False, False, True),
        ({"compile": False}, "cuda", False, True, False),
    ],
)
def test_a_model_is_compiled_where_that_helps_or_as_asked_for(monkeypatch, run, device, sharded, triton, expected):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object() if triton else None)
    assert devices.compiles(RunSettings(**run), torch.device(device), sharded=sharded) is expected


@pytest.fixture
def autocast_to_bf16():
    """``torch.autocast`` wants to see the GPU, whose rules it switches on."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)


def test_weights_that_are_gathered_in_bf16_run_under_autocast(autocast_to_bf16):
    """As FSDP gathers them on a GPU, while pixels and masks come as they are."""
    config = VideoMAEConfig.preset("nano", **SMALL, num_hidden_layers=2)
    with torch.device("meta"):
        model = VideoMAEForPreTraining(config).bfloat16()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model.to_empty(device="cuda")
        mask = torch.zeros(2, config.num_tubelets, dtype=torch.bool)
        output = model(torch.zeros(2, 4, 3, 16, 16), mask, num_masked=4)
    assert (output.loss.dtype, output.logits.dtype) == (torch.float32, torch.bfloat16)


def test_what_the_main_process_finds_or_raises_all_do(monkeypatch):
    sent = []
    state = SimpleNamespace(num_processes=2, is_main_process=True)
    monkeypatch.setattr("accelerate.PartialState", lambda: state)
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", lambda mine: sent.append(mine) or sent[0])

    def fail():
        raise CheckpointError("no rights.")

    for find, expected in ((fail, pytest.raises(CheckpointError, match="no rights")), (lambda: 5, nullcontext())):
        sent.clear()
        for state.is_main_process in (True, False):
            with expected:
                assert devices.on_main_process(find if state.is_main_process else lambda: 1 / 0) == 5
