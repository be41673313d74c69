"""Frames cut without PyTorch are those that the processor and the published tests give."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from videomae import VideoClassifier, VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae.inference.eight_bit_views import EightBitViews
from videomae.inference.protocols import ViewTransform
from videomae.video.synthetic import motion_video

SIZE = 32
PROCESSOR = VideoMAEImageProcessor(size=SIZE, crop_size=SIZE, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))


def clip(height=48, width=72):
    frames = motion_video("moving_left", rng=np.random.default_rng(0), num_frames=4, size=96)
    return np.ascontiguousarray(frames[:, :height, :width])


def in_8_bits(pixel_values):
    """Undo the normalisation of (S, T, C, H, W)."""
    mean, std = (torch.from_numpy(values).view(-1, 1, 1) for values in PROCESSOR.normalization)
    pixels = pixel_values if pixel_values.dtype == torch.uint8 else pixel_values * std + mean
    return np.rint(pixels.permute(0, 1, 3, 4, 2).numpy())


@pytest.mark.parametrize(("num_crops", "resize"), [(1, "processor"), (3, "processor"), (3, "published")])
@pytest.mark.parametrize("shape", [(48, 72), (72, 48), (96, 96), (20, 24), (32, 32), (90, 96)])
def test_views_without_pytorch_are_those_with_it(num_crops, resize, shape):
    options = (num_crops, resize, (SIZE, SIZE), PROCESSOR)
    expected = in_8_bits(ViewTransform(*options)(clip(*shape)))
    found = EightBitViews(*options)(clip(*shape))
    assert found.dtype == np.uint8
    assert found.shape == expected.shape == (num_crops, 4, SIZE, SIZE, 3)
    difference = np.abs(found - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize("shape", [(40, 60), (20, 24)])
def test_published_views_of_small_frames_are_the_same_bits(shape):
    """They are resized once, by a rule of our own."""
    options = (3, "published", (SIZE, SIZE), PROCESSOR)
    np.testing.assert_array_equal(
        EightBitViews(*options)(clip(*shape)), in_8_bits(ViewTransform(*options)(clip(*shape)))
    )


def test_frames_of_any_common_form_give_the_same_views():
    cut = EightBitViews(1, "processor", (SIZE, SIZE), PROCESSOR)
    frames = clip()
    for given in (
        list(frames),
        [Image.fromarray(frame) for frame in frames],
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        [frame.transpose(2, 0, 1) for frame in frames],
    ):
        np.testing.assert_array_equal(cut(given), cut(frames))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_frames_become_those_of_the_processor(mode):
    images = [Image.fromarray(frame).convert(mode) for frame in clip(32, 32)]
    for image in images if mode == "RGBA" else []:
        image.putalpha(Image.linear_gradient("L").resize((32, 32)))
    expected = in_8_bits(PROCESSOR(images, return_tensors="pt").pixel_values)[0]
    for given in (images, [np.asarray(image) for image in images]):
        assert np.abs(PROCESSOR.eight_bit(given) - expected).max() <= 1


def test_frames_smaller_than_the_crop_get_its_black_margin():
    processor = dataclasses.replace(PROCESSOR, do_resize=False)
    expected = in_8_bits(processor(list(clip(20, 24)), return_tensors="pt").pixel_values)[0]
    np.testing.assert_array_equal(processor.eight_bit(clip(20, 24)), expected)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 32, 32, 3), np.float32), "frames of 8 bits, 0 to 255, got float32"),
        (np.zeros((2, 4, 32, 32, 3), np.uint8), "one clip at a time, got 2"),
    ],
)
def test_what_cannot_be_cut_is_refused(frames, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PROCESSOR.eight_bit(frames)


def test_the_engine_of_pytorch_takes_frames_as_the_exported_ones_do():
    config = VideoMAEConfig.preset("tiny", image_size=SIZE, num_frames=4, num_labels=6, num_hidden_layers=1)
    torch.manual_seed(0)
    classifier = VideoClassifier(VideoMAEForVideoClassification(config).eval(), PROCESSOR)
    pixels = PROCESSOR([list(clip()), list(clip(60, 96))], return_tensors="pt").pixel_values
    frames = np.stack([PROCESSOR.eight_bit(clip()), PROCESSOR.eight_bit(clip(60, 96))])
    found = classifier.probabilities(frames)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, classifier.probabilities(pixels).numpy(), atol=2e-3)
    np.testing.assert_allclose(classifier.probabilities([frames[:1], frames[1:]], batch_size=1), found, atol=1e-6)
