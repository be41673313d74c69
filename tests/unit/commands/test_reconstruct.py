"""``videomae reconstruct``: what it prints and draws."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from support import TINY
from videomae import VideoMAEConfig, VideoMAEForPreTraining
from videomae.cli import run as videomae
from videomae.video.checkpoint_processor import make_processor
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader
from videomae.video.synthetic import motion_video

STATISTICS = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.3, 0.4)}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False, **TINY, **STATISTICS))
    model.save_pretrained(tmp_path / "model")
    make_processor(model.config, tuple(STATISTICS.values())).save_pretrained(tmp_path / "model")
    write_video(tmp_path / "video.mp4", motion_video("moving_up", rng=np.random.default_rng(0), size=32))
    return tmp_path


@pytest.mark.parametrize("suffix", [".png", ".gif", ".mp4"])
def test_the_command_writes_a_picture_or_a_video(saved, suffix, capsys):
    out = saved / f"out{suffix}"
    arguments = (str(saved / "video.mp4"), "--model", str(saved / "model"), "--ratio", "0.75", "--out", str(out))
    assert videomae(["reconstruct", *arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["error_by_slot"]) == 2
    if suffix == ".mp4":
        with VideoReader(out) as reader:
            assert reader.num_frames == 4
    else:
        with Image.open(out) as picture:
            assert getattr(picture, "n_frames", 1) == (4 if suffix == ".gif" else 1)


def test_an_unknown_kind_of_picture_is_refused(saved, capsys):
    arguments = [str(saved / "video.mp4"), "--model", str(saved / "model"), "--out", str(saved / "out.jpeg")]
    assert videomae(["reconstruct", *arguments]) == 2
    assert "must end in" in capsys.readouterr().err
    assert not (saved / "out.jpeg").exists()


def test_running_cell_has_a_ratio_of_its_own(saved, capsys):
    out = saved / "out.png"
    common = ("reconstruct", str(saved / "video.mp4"), "--model", str(saved / "model"), "--out", str(out))
    assert videomae((*common, "--mask", "running_cell")) == 0
    assert out.exists()
    assert videomae((*common, "--mask", "running_cell", "--ratio", "0.9")) == 2
    assert "--ratio 0.9" in capsys.readouterr().err
