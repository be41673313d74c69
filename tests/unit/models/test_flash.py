"""Which flash kernel PyTorch calls: its own, or that of a package; none is chosen silently."""

import pytest
import torch
from torch.nn import attention

from videomae import VideoMAEConfig, VideoMAEModel

SMALL = {"image_size": 32, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def kernels(monkeypatch):
    """Stand in for PyTorch's table of kernels, and return which one was active when."""
    active = [None]
    monkeypatch.setattr(attention, "current_flash_attention_impl", lambda: active[-1], raising=False)
    monkeypatch.setattr(attention, "activate_flash_attention_impl", active.append, raising=False)
    monkeypatch.setattr(attention, "restore_flash_attention_impl", lambda: active.append(None), raising=False)
    return active


def model(implementation):
    return VideoMAEModel(VideoMAEConfig(**SMALL, attn_implementation=implementation))


def test_a_model_activates_its_kernel_once(kernels):
    model("sdpa")
    model("flash_attention_2")
    assert kernels == [None]
    model("flash_attention_3")
    assert kernels == [None, "FA3"]
    model("eager")
    other = model("flash_attention_4")
    assert kernels == [None, "FA3", "FA4"]
    other.set_attn_implementation("flash_attention_2")
    assert kernels == [None, "FA3", "FA4", None]
    assert {block.attn.implementation for block in other.blocks} == {"flash_attention_2"}


def test_a_kernel_whose_package_is_missing_is_refused_and_nothing_changes(kernels, monkeypatch):
    def fail(kernel):
        raise ModuleNotFoundError("No module named 'flash_attn_interface'")

    monkeypatch.setattr(attention, "activate_flash_attention_impl", fail)
    plain = model("sdpa")
    told = "'flash_attention_3' needs the package flash_attn_interface and a GPU that it is made for"
    with pytest.raises(RuntimeError, match=told):
        plain.set_attn_implementation("flash_attention_3")
    assert plain.config.attn_implementation == "sdpa"
    assert {block.attn.implementation for block in plain.blocks} == {"sdpa"}


def test_a_pytorch_that_knows_its_own_kernel_only_is_told(monkeypatch):
    for name in ("current_flash_attention_impl", "activate_flash_attention_impl", "restore_flash_attention_impl"):
        monkeypatch.delattr(attention, name, raising=False)
    model("flash_attention_2")
    with pytest.raises(RuntimeError, match=f"{torch.__version__.split('+')[0]}.* cannot: install a newer one"):
        model("flash_attention_4")
