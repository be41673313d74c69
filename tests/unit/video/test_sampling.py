"""Frames are chosen as published; a video of any length gives frames that it has."""

import numpy as np
import pytest

from videomae.config import VideoMAEConfig
from videomae.inference.protocols import find_protocol
from videomae.video.sampling import (
    METHODS,
    ClipSampling,
    dense_indices,
    multi_view_indices,
    sample_frame_indices,
    sliding_windows,
    uniform_indices,
    uniform_view_indices,
    v1_finetune_indices,
    v1_pretrain_indices,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def starts(function, num_frames: int, **options) -> set[int]:
    return {int(function(num_frames, generator=rng(seed), **options)[0]) for seed in range(400)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 15, 16, 17, 30, 63, 64, 65, 66, 300])
def test_every_method_gives_rising_frames_that_the_video_has(method, num_frames):
    for draw in (None, rng(num_frames)):
        clips = ClipSampling(method=method)(num_frames, video_fps=25, num_clips=3, generator=draw)
        assert clips.shape == ((3, 16) if draw is None else (1, 16))
        assert clips.dtype == np.int64
        assert clips.min() >= 0
        assert clips.max() < num_frames
        assert (np.diff(clips) >= 0).all()


def test_dense_takes_every_fourth_frame_from_any_start():
    assert dense_indices(64).tolist() == list(range(0, 64, 4))
    assert dense_indices(300).tolist() == list(range(118, 118 + 64, 4))
    assert starts(dense_indices, 70) == set(range(7))
    assert starts(v1_pretrain_indices, 70) == set(range(7))
    assert starts(dense_indices, 40, stride=2) == set(range(9))


def test_a_short_video_repeats_its_last_frame():
    assert dense_indices(10, clip_frames=5).tolist() == [0, 4, 8, 9, 9]
    assert multi_view_indices(10, num_clips=2, clip_frames=5).tolist() == [[0, 4, 8, 9, 9]] * 2
    assert sliding_windows(10, clip_frames=5).tolist() == [[0, 4, 8, 9, 9]]
    assert dense_indices(1).tolist() == [0] * 16


def test_fine_tuning_as_v1_steps_by_four_and_a_quarter():
    long = v1_finetune_indices(300, generator=rng())
    assert (long - long[0]).tolist() == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert starts(v1_finetune_indices, 70) == set(range(6))
    assert (long == sample_frame_indices(16, 4, 300, generator=rng())).all()


def test_fine_tuning_as_v1_fills_short_videos_with_the_last_frame():
    """Figures of v1's own code: linspace(0, 30, 7), then the last frame."""
    assert v1_finetune_indices(30).tolist() == [0, 5, 10, 15, 20, 25] + [29] * 10
    assert v1_finetune_indices(64).tolist() == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert v1_finetune_indices(3).tolist() == [2] * 16


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 28, 29, 30, 63])
def test_pretraining_as_v1_stops_where_v1_does(num_frames):
    """v1 counts from 1 and steps on only while the next position stays below the number of frames."""
    position, expected = 1, []
    for _ in range(16):
        expected.append(position - 1)
        if position + 4 < num_frames:
            position += 4
    assert v1_pretrain_indices(num_frames).tolist() == expected


def test_uniform_takes_one_frame_of_each_segment():
    assert uniform_indices(32).tolist() == list(range(1, 32, 2))
    assert uniform_indices(8, clip_frames=16).tolist() == [i // 2 for i in range(16)]
    drawn = np.stack([uniform_indices(167, generator=rng(seed)) for seed in range(300)])
    borders = np.arange(17) * 167 / 16
    assert (drawn >= np.floor(borders[:-1])).all()
    assert (drawn < borders[1:]).all()
    assert (drawn.min(), drawn.max()) == (0, 166)


@pytest.mark.parametrize("num_frames", [16, 30, 45, 167])
def test_the_two_uniform_views_are_v1s(num_frames):
    tick = num_frames / 16
    both = sorted([int(tick / 2 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)])
    assert uniform_view_indices(num_frames).tolist() == [both[0::2], both[1::2]]
    assert (uniform_view_indices(num_frames, num_clips=1)[0] == uniform_indices(num_frames)).all()


@pytest.mark.parametrize("num_frames", [64, 65, 100, 250, 300])
def test_the_five_dense_views_are_v1s(num_frames):
    strided = list(range(0, num_frames, 4))
    step = max((len(strided) - 16) / 4, 0)
    expected = [strided[int(view * step) : int(view * step) + 16] for view in range(5)]
    assert multi_view_indices(num_frames).tolist() == expected


@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 6, 28, 29, 30, 33, 61, 63])
def test_the_published_tests_fill_short_videos_as_v1_does(num_frames):
    """v1 takes every fourth frame and repeats the last of them, which need not be the last of the video."""
    strided = list(range(0, num_frames, 4))
    strided += [strided[-1]] * (16 - len(strided))
    assert multi_view_indices(num_frames, on_stride=True).tolist() == [strided] * 5
    as_published = find_protocol("k400", VideoMAEConfig.preset("base")).sampling
    assert as_published(num_frames, video_fps=25, num_clips=5).tolist() == [strided] * 5
    ours = ClipSampling("dense", stride=4)(num_frames, video_fps=25)
    assert ours[0, -1] == min(60, num_frames - 1)


def test_one_view_is_the_middle():
    assert multi_view_indices(300, num_clips=1)[0, 0] == 116
    assert multi_view_indices(64, num_clips=1)[0, 0] == 0


def test_sliding_windows_cover_the_video():
    windows = sliding_windows(150)
    assert windows[:, 0].tolist() == [0, 64, 86]
    assert sliding_windows(128)[:, 0].tolist() == [0, 64]
    assert sliding_windows(100, hop=16)[:, 0].tolist() == [0, 16, 32, 36]
    seen = {int(frame) for first in windows[:, 0] for frame in range(first, first + 64)}
    assert seen == set(range(150))
    with pytest.raises(ValueError, match="hop must be at least 1"):
        sliding_windows(100, hop=0)


def test_a_frame_rate_makes_clips_last_equally_long():
    at_25 = ClipSampling(fps=25)(1000, video_fps=25, generator=rng())[0]
    at_50 = ClipSampling(fps=25)(1000, video_fps=50, generator=rng())[0]
    at_30 = ClipSampling(fps=25)(1000, video_fps=29.97, generator=rng())[0]
    assert np.unique(np.diff(at_25)).tolist() == [4]
    assert np.unique(np.diff(at_50)).tolist() == [8]
    assert (at_30[-1] - at_30[0]) / 29.97 == pytest.approx(60 / 25, abs=1 / 25)
    assert ClipSampling()(1000, video_fps=50)[0, 1] - ClipSampling()(1000, video_fps=50)[0, 0] == 4


def test_impossible_choices_are_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        ClipSampling(method="sparse")
    with pytest.raises(ValueError, match="above 0"):
        ClipSampling(stride=0)
    with pytest.raises(ValueError, match="whole strides"):
        ClipSampling(method="v1_finetune", fps=25)
    with pytest.raises(ValueError, match="at least 1 frame"):
        dense_indices(0)


def test_jitter_draws_slower_and_faster_clips_for_training_only():
    sampling = ClipSampling(stride=10, jitter=0.2)
    spans = [np.ptp(sampling(1000, video_fps=25, clip_frames=4, generator=rng(seed))) for seed in range(200)]
    assert 24 <= min(spans) < 26
    assert 34 < max(spans) <= 36
    assert np.ptp(sampling(1000, video_fps=25, clip_frames=4)) == 30


@pytest.mark.parametrize("settings", [{"jitter": 1.0}, {"jitter": -0.1}, {"method": "uniform", "jitter": 0.1}])
def test_jitter_without_sense_is_refused(settings):
    with pytest.raises(ValueError, match="jitter"):
        ClipSampling(**settings)
