"""The usage example of transformers' documentation runs with only its import line changed, and agrees."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

import videomae
from support import shared_dir

transformers = pytest.importorskip("transformers")


def example(package, model, video):
    """The example's code, with local paths where it asks the Hub."""
    text = shared_dir("spec/videomae-api.md").read_text()
    code = re.search(r"```py\n(.*?)```", text, re.DOTALL)[1]
    code = code.replace("from transformers import", f"from {package} import")
    code = re.sub(r"hf_hub_download\(.*?\)", repr(str(video)), code, count=1, flags=re.DOTALL)
    return code.replace("from huggingface_hub import " + repr(str(video)), "").replace(
        '"MCG-NJU/videomae-base-finetuned-kinetics"', repr(str(model))
    )


def run(code):
    np.random.seed(3)
    scope: dict = {}
    exec(compile(code, "usage example", "exec"), scope)
    return scope


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, num_labels=5)
    config.intermediate_size = 96
    model = transformers.VideoMAEForVideoClassification(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    transformers.VideoMAEImageProcessor(image_mean=[0.485, 0.456, 0.406]).save_pretrained(tmp_path)
    return tmp_path


def test_the_usage_example_agrees_with_transformers(model, capsys):
    video = shared_dir("clips/eating_spaghetti.mp4")
    theirs, ours = run(example("transformers", model, video)), run(example("videomae", model, video))
    assert type(ours["model"]).__module__.startswith("videomae.")
    assert np.array_equal(ours["video"], theirs["video"])
    assert torch.equal(ours["inputs"]["pixel_values"], theirs["inputs"]["pixel_values"])
    torch.testing.assert_close(ours["logits"], theirs["logits"], atol=1e-5, rtol=0)
    printed = capsys.readouterr().out.split()
    assert printed[-1] == printed[-2]


def test_the_examples_own_functions_are_ours_too(model):
    scope = run(example("videomae", model, shared_dir("clips/eating_spaghetti.mp4")))
    np.random.seed(5)
    theirs = scope["sample_frame_indices"](clip_len=16, frame_sample_rate=4, seg_len=300)
    np.random.seed(5)
    ours = videomae.sample_frame_indices(clip_len=16, frame_sample_rate=4, seg_len=300)
    assert np.array_equal(ours, theirs)
    container = scope["container"]
    expected = scope["read_video_pyav"](container, theirs)
    assert np.array_equal(videomae.read_video_pyav(container, ours), expected)
    assert "videomae" in sys.modules
