"""``videomae explain``: what it prints and draws."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae.cli import run as videomae
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader
from videomae.video.synthetic import motion_video

SIZES = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    config = VideoMAEConfig(**SIZES, id2label={0: "jump", 1: "run", 2: "sit"}, initializer_range=0.3)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "model")
    VideoMAEImageProcessor(size=32, crop_size=32).save_pretrained(tmp_path / "model")
    write_video(tmp_path / "video.mp4", motion_video("moving_up", rng=np.random.default_rng(0), size=32))
    return tmp_path


def asked(saved, *arguments):
    return ["explain", str(saved / "video.mp4"), "--model", str(saved / "model"), *map(str, arguments)]


@pytest.mark.parametrize("suffix", [".png", ".gif", ".mp4"])
def test_the_command_writes_a_picture_or_a_video(saved, suffix, capsys):
    out = saved / f"out{suffix}"
    assert videomae(asked(saved, "--out", out, "--json", "--label", "sit")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["label"] == "sit"
    assert printed["method"] == "relevance"
    assert 0 <= printed["score"] <= 1
    assert sum(printed["fraction_by_slot"]) == pytest.approx(1, abs=1e-5)
    assert [len(place) for place in printed["place_by_slot"]] == [2, 2]
    if suffix == ".mp4":
        with VideoReader(out) as reader:
            assert reader.num_frames == 4
    else:
        with Image.open(out) as picture:
            assert getattr(picture, "n_frames", 1) == (4 if suffix == ".gif" else 1)


def test_the_command_prints_a_table_for_people(saved, capsys):
    assert videomae(asked(saved, "--out", saved / "out.png", "--method", "rollout")) == 0
    out = capsys.readouterr().out
    assert "whatever the class" in out
    assert "time slot" in out


@pytest.mark.parametrize(
    ("out", "message"), [("out.jpeg", "must end in .png, .mp4 or .gif"), ("video.mp4", "is the video itself")]
)
def test_a_file_that_cannot_be_drawn_to_is_refused(saved, out, message, capsys):
    assert videomae(asked(saved, "--out", saved / out)) == 2
    assert message in capsys.readouterr().err


def test_a_pretrained_model_is_refused_by_the_command(saved, capsys):
    VideoMAEForPreTraining(VideoMAEConfig(**SIZES)).save_pretrained(saved / "model")
    assert videomae(asked(saved, "--out", saved / "out.png")) == 2
    assert "it has no classifier: fine-tune it first" in capsys.readouterr().err
    assert not (saved / "out.png").exists()


def test_help_says_that_rollout_is_not_class_specific(capsys):
    with pytest.raises(SystemExit):
        videomae(["explain", "--help"])
    assert "is not class-specific" in capsys.readouterr().out
