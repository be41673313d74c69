"""Procedural clips: the same seed draws the same clips, and what the labels say is what the pixels do."""

import pytest
import torch

from videomae.video.procedural import (
    CAMERA_MOTIONS,
    FORMS,
    MOTIONS,
    ProceduralSettings,
    batch_generator,
    procedural_clips,
)

CLEAN = ProceduralSettings(
    second_motion=0, moving_camera=0, plain_ground=1, bystander=0, partner=0, occluder=0, passing=0, lighting=0, noise=0
)
NAMES = list(MOTIONS)


def test_a_batch_is_a_function_of_seed_and_index():
    """A run that resumes at a step sees what an unbroken run sees there, whatever was drawn before."""
    first, labels = procedural_clips(4, generator=batch_generator(3, 7))
    procedural_clips(2, generator=batch_generator(3, 8))
    again, labels_again = procedural_clips(4, generator=batch_generator(3, 7))
    assert torch.equal(first, again)
    assert torch.equal(labels.motion, labels_again.motion)
    assert torch.equal(labels.flow, labels_again.flow)
    assert not torch.equal(first, procedural_clips(4, generator=batch_generator(3, 8))[0])
    assert not torch.equal(first, procedural_clips(4, generator=batch_generator(4, 7))[0])


@pytest.mark.parametrize(("colour", "channels"), [(False, 1), (True, 3)])
def test_clips_have_the_size_that_is_asked_for(colour, channels):
    """Colour, frames and side are free."""
    settings = ProceduralSettings(colour=colour)
    clips, labels = procedural_clips(3, num_frames=8, size=32, generator=batch_generator(0, 0), settings=settings)
    assert clips.shape == (3, 8, channels, 32, 32)
    assert clips.dtype == torch.uint8
    assert labels.motion.shape == (3, 2)
    assert labels.flow.shape == (3, 8, 2, 8, 8)


def test_sizes_that_do_not_fit_the_flow_are_refused():
    """The error gives the rule and the value."""
    with pytest.raises(ValueError, match="multiple of flow_cells=8, got num_frames=16, size=36"):
        procedural_clips(1, size=36, generator=batch_generator(0, 0))


def test_everything_that_can_happen_does_and_labels_stay_in_range():
    """All motions, camera motions and forms are drawn; a finger count belongs to hands alone."""
    _, labels = procedural_clips(400, num_frames=2, size=16, generator=batch_generator(0, 0))
    assert set(labels.motion.flatten().tolist()) == set(range(len(MOTIONS)))
    assert set(labels.camera.tolist()) == set(range(len(CAMERA_MOTIONS)))
    assert set(labels.form.tolist()) == set(range(len(FORMS)))
    assert torch.equal(labels.fingers >= 0, labels.form == FORMS.index("hand"))
    assert labels.fingers.max() == 5
    assert labels.count.min() == 1
    assert labels.count.max() <= 4
    limbs = labels.motion >= NAMES.index("open")
    assert (labels.form[limbs.any(1)] > 0).all(), "only figures have limbs to open, close or wave"


def test_an_object_moves_where_its_label_says():
    """The middle of what differs from the ground goes right, down, left or up."""
    clips, labels = procedural_clips(300, num_frames=6, generator=batch_generator(1, 0), settings=CLEAN)
    shown = (clips[:, :, 0].float() - clips[:, :1, 0].float().flatten(2).median(-1).values[..., None, None]).abs() > 12
    ticks = torch.linspace(-1, 1, 64)
    area = shown.sum((2, 3)).clamp_min(1)
    x, y = (shown * ticks).sum((2, 3)) / area, (shown * ticks[:, None]).sum((2, 3)) / area
    inside = ~(shown[..., :1, :].any((1, 2, 3)) | shown[..., -1:, :].any((1, 2, 3)))
    inside &= ~(shown[..., :1].any((1, 2, 3)) | shown[..., -1:].any((1, 2, 3)))
    for name, curve, sign in (("right", x, 1), ("left", x, -1), ("down", y, 1), ("up", y, -1)):
        chosen = inside & (labels.motion[:, 0] == NAMES.index(name))
        assert chosen.any()
        assert (sign * (curve[:, -1] - curve[:, 0])[chosen] > 0.1).all(), name


def test_the_flow_brings_a_frame_to_the_next():
    """The ground, warped by the flow, fits the next frame better than the frame itself does."""
    settings = ProceduralSettings(
        figures=0, moving_camera=1, plain_ground=0, bystander=0, partner=0, occluder=0, lighting=0, noise=0
    )
    clips, labels = procedural_clips(64, generator=batch_generator(2, 0), settings=settings)
    frames = clips[:, :, 0].float()
    now, after = frames[:, 7:8], frames[:, 8:9]
    flow = torch.nn.functional.interpolate(labels.flow[:, 7], (64, 64), mode="bilinear")
    still = torch.nn.functional.affine_grid(torch.eye(2, 3).expand(64, 2, 3), [64, 1, 64, 64], align_corners=False)
    warped = torch.nn.functional.grid_sample(
        now, still - flow.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    moving = labels.flow[:, 7].abs().mean((1, 2, 3)) > 0.02
    assert moving.sum() > 10
    error, standing = (warped - after).abs().mean((1, 2, 3)), (now - after).abs().mean((1, 2, 3))
    assert (error < standing)[moving].float().mean() > 0.9


def test_the_global_random_state_is_left_alone():
    """Textures are made at first use, from their own seed."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    procedural_clips(2, generator=batch_generator(0, 0))
    assert torch.equal(torch.rand(3), expected)
