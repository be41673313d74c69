import dataclasses

import numpy as np
import pytest
import torch

from videomae import VideoMAEConfig, VideoMAEImageProcessor
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.inference.eight_bit_views import EightBitViews
from videomae.inference.protocols import PROTOCOLS, Protocol, ViewTransform, find_protocol, published_top1
from videomae.video.sampling import ClipSampling

CONFIG = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_labels=6, num_hidden_layers=2)


def test_one_view_is_the_middle_clip():
    rows = Protocol.of_model(CONFIG).sampling(101, video_fps=25, clip_frames=4)
    assert rows.shape == (1, 4)
    assert abs(rows.mean() - 50) <= 2


@pytest.mark.parametrize(
    ("fields", "stride", "expected"),
    [
        ({}, None, [12, 16, 20, 24]),
        ({"clip_stride": 2.5}, None, [15, 17, 20, 22]),
        ({"clip_stride": 2.0, "clip_fps": 8.0}, None, [12, 16, 20, 24]),
        ({"clip_sampling": "uniform"}, None, [5, 15, 25, 35]),
        ({"clip_sampling": "uniform", "clip_fps": 8.0}, 3, [14, 17, 20, 23]),
    ],
)
def test_frames_are_chosen_as_in_training_unless_a_stride_is_given(fields, stride, expected):
    config = CONFIG.replace(**fields)
    protocol = Protocol.of_model(VideoMAEConfig.from_dict(config.to_dict()), stride=stride)
    rows = protocol.sampling(40, video_fps=16, clip_frames=4)
    np.testing.assert_allclose(rows, [expected], atol=1)


def test_the_centre_protocol_chooses_frames_as_in_training():
    config = VideoMAEConfig(clip_sampling="uniform", clip_stride=2.5, clip_fps=12.0)
    found = find_protocol("center", config)
    assert found.sampling == ClipSampling("uniform", 2.5, 12.0)
    assert (found.num_clips, found.num_crops) == (1, 1)
    assert find_protocol("k400", config) == PROTOCOLS["k400"]


def test_views_are_counted_from_the_middle_outwards():
    assert PROTOCOLS["k400"].views[:7] == [(2, 1), (1, 1), (3, 1), (0, 1), (4, 1), (2, 0), (2, 2)]
    assert PROTOCOLS["ssv2"].views == [(0, 1), (1, 1), (0, 0), (0, 2), (1, 0), (1, 2)]


def test_the_published_score_is_that_of_size_and_benchmark():
    assert published_top1("k400", VideoMAEConfig.preset("base", num_labels=400)) == {"v1": 81.5}
    assert published_top1("ssv2", VideoMAEConfig.preset("giant", num_labels=174)) == {"v2": 77.0}
    assert published_top1("ssv2", VideoMAEConfig.preset("huge", num_labels=174)) == {}
    assert published_top1("k400", VideoMAEConfig.preset("base", num_labels=10)) == {}
    assert published_top1("k400", VideoMAEConfig.preset("tiny", num_labels=400)) == {}
    assert published_top1("center", VideoMAEConfig.preset("base", num_labels=400)) == {}


def test_the_giant_of_v2_is_tested_on_hmdb51_with_its_own_stride():
    giant, base = (VideoMAEConfig.preset(size, num_labels=51) for size in ("giant", "base"))
    assert [find_protocol("hmdb51", config).sampling.stride for config in (giant, base)] == [2, 4]
    assert [find_protocol("ucf101", config).sampling.stride for config in (giant, base)] == [4, 4]
    protocol, processor = find_protocol("hmdb51", giant), VideoMAEImageProcessor()
    other = dataclasses.replace(protocol, sampling=ClipSampling("v1_finetune", stride=4))
    assert not any("stride" in line for line in protocol.departures(giant, processor))
    assert "stride is 4, the protocol has 2" in other.departures(giant, processor)


def test_what_departs_from_the_published_protocol_is_listed():
    config = VideoMAEConfig.preset("base", num_labels=400)
    imagenet = VideoMAEImageProcessor(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    assert PROTOCOLS["k400"].departures(config, imagenet) == []
    changed = dataclasses.replace(PROTOCOLS["k400"], num_crops=1)
    assert changed.departures(config, imagenet) == ["num_crops is 1, the protocol has 3"]
    assert "mean is (0.5, 0.5, 0.5)" in PROTOCOLS["k400"].departures(config, VideoMAEImageProcessor())[0]


def test_frames_that_are_not_square_have_a_centre_only():
    with pytest.raises(ValueError, match=r"need square frames; the model's are \(32, 64\)"):
        ViewTransform(3, "processor", (32, 64), VideoMAEImageProcessor())
    processor = VideoMAEImageProcessor(size=(32, 64), crop_size=(32, 64))
    clip = torch.zeros(4, 3, 40, 80, dtype=torch.uint8)
    assert ViewTransform(1, "processor", (32, 64), processor)(clip).shape == (1, 4, 3, 32, 64)


def test_frames_smaller_than_the_crops_are_refused_with_what_to_do():
    small = VideoMAEImageProcessor(size=24, crop_size=32)
    with pytest.raises(
        ValueError, match=r"at least 32 pixels after resizing, got \(24, 48\): set the processor's size"
    ):
        ViewTransform(3, "processor", (32, 32), small)(torch.zeros(4, 3, 40, 80, dtype=torch.uint8))


@pytest.mark.parametrize("views", [ViewTransform, EightBitViews])
@pytest.mark.parametrize(
    ("resize", "num_crops", "options"),
    [
        ("processor", 1, {}),
        ("processor", 3, {}),
        ("published", 3, {}),
        ("processor", 1, {"size": {"height": 40, "width": 56}, "resample": "bicubic"}),
        ("processor", 1, {"resample": "nearest"}),
        ("processor", 1, {"do_resize": False}),
    ],
)
@pytest.mark.parametrize("size", [(120, 200), (201, 119), (20, 30)])
def test_frames_that_are_shrunk_one_by_one_give_the_same_views_to_the_bit(views, resize, num_crops, options, size):
    """One frame of full size is in memory at a time, whatever the length of a clip."""
    options = {"size": {"shortest_edge": 32}, "crop_size": 32} | options
    processor = VideoMAEImageProcessor(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD, **options)
    cut = views(num_crops, resize, (32, 32), processor)
    clip = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    clip = clip[:, ::-1]  # as a file that asks to be turned gives them
    shrunk = np.stack([cut.shrink(frame) for frame in clip])
    assert shrunk.nbytes < clip.nbytes or min(size) < 32 or not options.get("do_resize", True)
    np.testing.assert_array_equal(np.asarray(cut(shrunk)), np.asarray(cut(np.ascontiguousarray(clip))))
