"""What things cost on this machine, and the pixels of some videos."""

import dataclasses

import numpy as np
import pytest

from videomae import VideoMAEConfig
from videomae.config import SMALLEST_STD
from videomae.data.audit.check import check
from videomae.data.manifest import read_manifest
from videomae.pipeline import measure
from videomae.pipeline.recipes import recipes_of
from videomae.pipeline.split import split_for_training
from videomae.training.settings import LoaderSettings
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader


def test_a_batch_that_does_not_fit_into_memory_is_taken_in_parts(monkeypatch):
    config = VideoMAEConfig.preset("tiny", image_size=64, num_frames=8)
    parts = []
    for free in (1.0, 2e8, 4e8, 1e15):
        monkeypatch.setattr(measure, "free_memory", lambda device, free=free: free)
        parts.append(measure.fitting_batch(config, 24, "cpu"))
    assert parts[0] == 1
    assert parts[-1] == 24
    assert parts == sorted(parts)
    assert len(set(parts)) > 2


def test_copies_of_some_frames_tell_what_copying_takes(videos, tmp_path):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0).split("train")
    seconds_a_frame, copies = measure.small_copies(manifest, 16, tmp_path)
    assert len(copies) == measure.COPIED_VIDEOS
    with VideoReader(copies.samples[0].file) as reader:
        assert (reader.height, len(reader)) == (16, 16)
    assert seconds_a_frame < 1
    config = VideoMAEConfig.preset("nano", image_size=24, num_frames=4, tubelet_size=4)
    recipe = recipes_of("nano").finetune
    one, four = (
        measure.reading_seconds(copies, dataclasses.replace(recipe, loader=LoaderSettings(num_workers=workers)), config)
        for workers in (1, 40)
    )
    assert one > 4 * four  # forty processes share the work


def test_a_constant_channel_is_not_blown_up(tmp_path):
    write_video(tmp_path / "grey.mp4", np.full((8, 32, 32, 3), 77, np.uint8))
    _, std = measure.pixel_statistics(read_manifest(tmp_path))
    assert std == (SMALLEST_STD,) * 3


def test_the_input_is_normalised_by_the_videos_own_pixels(videos):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0).split("train")
    mean, std = measure.pixel_statistics(manifest)
    frames = []
    for sample in manifest:
        with VideoReader(sample.file) as reader:
            frames.append(reader.frames_at(range(len(reader))) / 255)
    whole = np.concatenate(frames)
    assert mean == pytest.approx(whole.mean(axis=(0, 1, 2)), abs=0.02)
    assert std == pytest.approx(whole.std(axis=(0, 1, 2)), abs=0.02)


def test_measured_speed_is_a_rate():
    config = VideoMAEConfig.preset("nano", image_size=24, num_frames=16, tubelet_size=4)
    assert 1e8 < measure.training_speed(config, measure.finetuning_cost(config), "cpu") < 1e13
