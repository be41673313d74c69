"""Reconstructions: the visible stays, the hidden is the model's, and a picture is written whole or not at all."""

import numpy as np
import pytest
import torch

from support import TINY
from videomae import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, tube_mask
from videomae.errors import CheckpointError
from videomae.inference.reconstruct import load_pretrained, reconstruct
from videomae.video.checkpoint_processor import make_processor
from videomae.video.synthetic import motion_video

STATISTICS = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.3, 0.4)}


def small_model(**fields):
    torch.manual_seed(0)
    return VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False, **(TINY | STATISTICS | fields))).eval()


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


def test_a_classifier_is_refused(tmp_path):
    config = VideoMAEConfig(**TINY, id2label={0: "a", 1: "b"})
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "classifier")
    make_processor(config, tuple(STATISTICS.values())).save_pretrained(tmp_path / "classifier")
    with pytest.raises(CheckpointError, match="without a decoder"):
        load_pretrained(tmp_path / "classifier")


def test_a_slot_with_nothing_hidden_has_no_error():
    model = small_model()
    _, pixels = clip()
    mask = torch.zeros(1, 32, dtype=torch.bool)
    mask[:, 16:] = True
    errors = reconstruct(model, pixels, mask).error_by_slot
    assert np.isnan(errors[0])
    assert errors[1] > 0
