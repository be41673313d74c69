import pytest
import torch

from videomae.inference.devices import choose_device, compute_dtype, process_of_group, torchrun_group


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="is not available on this machine"):
        choose_device(device)


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)  # where there are as many GPUs
    assert str(choose_device(None)) == str(choose_device("cuda")) == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(choose_device(None)) == str(choose_device("cuda")) == "cuda:3"
    assert str(choose_device("cuda:1")) == "cuda:1"
    assert str(choose_device("cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None).type != "cuda"


def test_without_torchrun_a_process_is_alone():
    with torchrun_group() as rank:
        assert (rank, *process_of_group()) == (0, 0, 1)


@pytest.mark.parametrize(
    ("device", "has_bf16", "parameters", "expected"),
    [
        ("cuda", True, torch.float32, torch.bfloat16),
        ("cuda", False, torch.float32, torch.float32),
        ("cuda", True, torch.float16, torch.float16),
        ("cpu", True, torch.float32, torch.float32),
        ("mps", True, torch.float32, torch.float32),
    ],
)
def test_a_gpu_computes_in_bfloat16_where_it_has_that(monkeypatch, device, has_bf16, parameters, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert compute_dtype(torch.device(device), parameters) is expected
