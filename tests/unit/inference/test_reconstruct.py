"""Reconstructions: the visible stays, the hidden is the model's, and a picture is written whole or not at all."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, tube_mask
from videomae.cli import run as videomae
from videomae.errors import CheckpointError
from videomae.inference.reconstruct import load_pretrained, reconstruct
from videomae.plots.reconstruction import draw, side_by_side
from videomae.video.processors import make_processor
from videomae.video.reader import VideoReader
from videomae.video.synthetic import motion_video, write_video

SIZES = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
}  # fmt: skip
STATISTICS = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.3, 0.4)}


def small_model(**fields):
    torch.manual_seed(0)
    return VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False, **(SIZES | STATISTICS | fields))).eval()


def clip():
    frames = motion_video("moving_up", rng=np.random.default_rng(0), num_frames=4, size=32)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in STATISTICS.values())
    return frames, (video - mean) / std


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_visible_part_stays_and_the_original_is_the_clip(norm_pix_loss):
    model = small_model(norm_pix_loss=norm_pix_loss)
    frames, pixels = clip()
    mask = tube_mask(model.config.grid, 0.5, batch_size=1)
    result = reconstruct(model, pixels, mask)
    assert np.abs(result.original.astype(int) - frames).max() <= 1
    hidden = mask[0].view(2, 1, 4, 1, 4, 1).expand(2, 2, 4, 8, 4, 8).reshape(4, 32, 32).numpy()
    assert np.array_equal(result.predicted[~hidden], result.original[~hidden])
    assert (result.masked[hidden] == 128).all()
    assert result.error_by_slot.shape == (2,)
    assert (result.with_statistics is not None) == norm_pix_loss


def test_the_error_is_the_loss_where_raw_pixels_are_the_target():
    model = small_model(norm_pix_loss=False)
    _, pixels = clip()
    mask = tube_mask(model.config.grid, 0.5, batch_size=1)
    result = reconstruct(model, pixels, mask)
    assert result.error_by_slot.mean() == pytest.approx(result.loss, rel=1e-4)


def test_a_perfect_prediction_with_statistics_is_the_original():
    """The model's own targets, put through the way back, must give the clip again."""
    from videomae.models.losses import pixel_targets

    model = small_model(norm_pix_loss=True)
    frames, pixels = clip()
    mask = tube_mask(model.config.grid, 0.5, batch_size=1)
    targets = pixel_targets(pixels, mask.nonzero()[:, 1][None], model.config)
    original = model.forward
    model.forward = lambda *args, **options: type(original(*args, **options))(logits=targets, loss=targets.sum())
    result = reconstruct(model, pixels, mask)
    assert np.abs(result.with_statistics.astype(int) - frames).max() <= 1
    assert np.abs(result.predicted.astype(int) - frames).max() > 1


@pytest.fixture
def saved(tmp_path):
    model = small_model()
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


def test_a_classifier_is_refused(saved):
    config = VideoMAEConfig(**SIZES, id2label={0: "a", 1: "b"})
    VideoMAEForVideoClassification(config).save_pretrained(saved / "classifier")
    make_processor(config, tuple(STATISTICS.values())).save_pretrained(saved / "classifier")
    with pytest.raises(CheckpointError, match="without a decoder"):
        load_pretrained(saved / "classifier")


def test_pictures_have_a_row_for_each_view():
    model = small_model(norm_pix_loss=True)
    result = reconstruct(model, clip()[1], tube_mask(model.config.grid, 0.5, batch_size=1))
    assert len(draw(result).axes) == 4 * 4 + 1
    assert side_by_side(result).shape[0] == 4


def test_a_slot_with_nothing_hidden_has_no_error():
    model = small_model()
    _, pixels = clip()
    mask = torch.zeros(1, 32, dtype=torch.bool)
    mask[:, 16:] = True
    errors = reconstruct(model, pixels, mask).error_by_slot
    assert np.isnan(errors[0])
    assert errors[1] > 0


def test_running_cell_has_a_ratio_of_its_own(saved, capsys):
    out = saved / "out.png"
    common = ("reconstruct", str(saved / "video.mp4"), "--model", str(saved / "model"), "--out", str(out))
    assert videomae((*common, "--mask", "running_cell")) == 0
    assert out.exists()
    assert videomae((*common, "--mask", "running_cell", "--ratio", "0.9")) == 2
    assert "--ratio 0.9" in capsys.readouterr().err
