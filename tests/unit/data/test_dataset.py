"""What a sample is depends on (seed, epoch, index) alone, and a bad file never goes unnoticed."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from videomae.data.dataset import EpochSampler, VideoDataset, build_loader, collate
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.data.timing import DataTimeMeter
from videomae.errors import DataError, VideoError
from videomae.video.augment import eval_views, pretrain_augmentation
from videomae.video.augment_settings import PretrainAugmentation
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videos import moving_square, write_video

SAMPLING = ClipSampling(stride=2)
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CROP = pretrain_augmentation(PretrainAugmentation(flip=0.5), image_size=16)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Manifest:
    root = tmp_path_factory.mktemp("videos")
    for i in range(8):
        (root / f"class{i % 2}").mkdir(exist_ok=True)
        write_video(root / f"class{i % 2}" / f"v{i}.mkv", moving_square(20 + i, 24, 32, seed=i), fps=10)
    return read_manifest(root)


@pytest.fixture
def with_bad(videos, tmp_path) -> list[Sample]:
    """The same videos, of which the third is not one."""
    (tmp_path / "bad.mkv").write_bytes(b"not a video")
    samples = list(videos)
    samples[2] = Sample("bad.mkv", tmp_path / "bad.mkv", label=0)
    return samples


def some_mask(generator: torch.Generator) -> Tensor:
    return torch.rand(8, generator=generator) < 0.5


def dataset(samples: Manifest | Sequence[Sample], **options) -> VideoDataset:
    options = {
        "sampling": SAMPLING,
        "clip_frames": 4,
        "training": True,
        "transform": CROP,
        "mask": some_mask,
        "seed": 7,
    } | options
    return VideoDataset(samples, **options)


def fingerprints(batches) -> list[tuple]:
    """What was seen, clip by clip, in order."""
    return [
        (path, pixels.sum().item(), mask.tolist())
        for batch in batches
        for path, pixels, mask in zip(batch["path"], batch["pixel_values"], batch["mask"], strict=True)
    ]


# ---- one sample


def test_an_item_holds_its_clips_and_says_whose_they_are(videos):
    item = dataset(videos)[3]
    assert item["pixel_values"].shape == (1, 4, 3, 16, 16)
    assert item["pixel_values"].dtype == torch.uint8
    assert item["mask"].shape == (1, 8)
    assert (item["index"], item["path"], item["label"], item["unreadable"]) == (3, "class0/v6.mkv", 0, [])


def test_a_sample_is_a_function_of_seed_epoch_and_index(videos):
    first, again = dataset(videos)[1, 3], dataset(videos)[1, 3]
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert torch.equal(first["mask"], again["mask"])
    for other in (dataset(videos)[2, 3], dataset(videos, seed=8)[1, 3]):
        assert not torch.equal(first["pixel_values"], other["pixel_values"])


def test_drawing_a_sample_leaves_the_global_generators_alone(videos):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    dataset(videos)[0]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_frames_are_those_of_the_reader(videos):
    clip = dataset(videos, transform=None, training=False, mask=None)[0]["pixel_values"][0]
    sample = videos.samples[0]
    with VideoReader(sample.file) as reader:
        expected = reader.frames_at(SAMPLING(reader.num_frames, video_fps=reader.fps, clip_frames=4)[0])
    assert np.array_equal(clip.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize(("square_pixels", "width"), [(True, 192), (False, 96)])
def test_pixels_are_square_unless_the_stored_ones_are_chosen(square_pixels, width, tmp_path):
    file = write_video(tmp_path / "wide.mp4", moving_square(12), pixel_aspect=Fraction(2))
    clips = dataset([Sample("wide", file)], transform=None, mask=None, square_pixels=square_pixels)
    assert clips[0]["pixel_values"].shape == (1, 4, 3, 64, width)


def test_a_stretch_of_a_video_gives_only_its_frames(videos):
    whole = dataset(videos, transform=None, training=False, mask=None)
    file = videos.samples[0].file
    stretch = Sample("part", file, start=0.5, end=1.0)  # frames 5 to 9 at 10 frames per second
    clip = dataset([stretch], transform=None, training=False, mask=None)[0]["pixel_values"][0]
    with VideoReader(file) as reader:
        expected = reader.frames_at([5, 7, 9, 9])
    assert np.array_equal(clip.permute(0, 2, 3, 1).numpy(), expected)
    assert whole[0]["pixel_values"].shape == (1, 4, 3, 24, 32)
    with pytest.raises(VideoError, match="shows no frame between 90 s"):
        dataset([Sample("late", file, start=90.0)], on_bad="raise")[0]


def test_several_clips_and_several_augmentations_come_from_one_video(videos):
    item = dataset(videos, clips_per_video=2, augmentations_per_clip=2, transform=None)[0]
    a, a_again, b, b_again = item["pixel_values"]
    assert torch.equal(a, a_again)
    assert torch.equal(b, b_again)
    assert not torch.equal(a, b)
    augmented = dataset(videos, augmentations_per_clip=2)[0]
    assert not torch.equal(*augmented["pixel_values"])
    assert not torch.equal(*augmented["mask"])


def test_evaluation_gives_every_view_and_crop(videos):
    views = dataset(
        videos,
        training=False,
        sampling=ClipSampling(stride=2),
        clip_frames=4,
        num_clips=2,
        transform=partial(eval_views, short_side=16, image_size=16),
        mask=None,
    )
    assert views[0]["pixel_values"].shape == (6, 4, 3, 16, 16)
    assert torch.equal(views[0]["pixel_values"], views[5, 0]["pixel_values"])


def test_any_torchvision_transform_fits(videos):
    clips = dataset(videos, transform=v2.Compose([v2.RandomCrop(16), v2.RandomHorizontalFlip()]))
    assert torch.equal(clips[0]["pixel_values"], clips[0]["pixel_values"])


# ---- bad files


def test_training_takes_another_video_for_a_bad_one_and_says_so(with_bad):
    item = dataset(with_bad)[2]
    assert item["path"] != "bad.mkv"
    assert item["label"] == with_bad[item["index"]].label
    [(path, reason)] = item["unreadable"]
    assert path == "bad.mkv"
    assert "bad.mkv" in reason
    assert torch.equal(item["pixel_values"], dataset(with_bad)[2]["pixel_values"])
    assert len({dataset(with_bad)[epoch, 2]["path"] for epoch in range(10)}) > 2


def test_evaluation_never_replaces_a_video(with_bad):
    with pytest.raises(VideoError, match=r"bad\.mkv"):
        dataset(with_bad, training=False)[2]
    with pytest.raises(ValueError, match="never replaces"):
        dataset(with_bad, training=False, on_bad="skip")
    marked = dataset(with_bad, training=False, on_bad="mark")
    assert "pixel_values" not in marked[2]
    batch = collate([marked[1], marked[2]])
    assert batch["index"].tolist() == [1]
    assert batch["unreadable_index"] == [2]
    only_bad = collate([marked[2]])
    assert only_bad["index"].tolist() == []


def test_a_data_set_without_readable_videos_stops(tmp_path):
    samples = [Sample(f"{i}.mkv", tmp_path / f"{i}.mkv") for i in range(3)]
    with pytest.raises(DataError, match="in a row could not be read"):
        dataset(samples)[0]


# ---- batches


def test_repeats_of_a_video_lie_far_apart_in_the_batch(videos):
    """`mix` pairs neighbours: they should be different videos."""
    batch = collate([dataset(videos, augmentations_per_clip=2)[i] for i in range(3)])
    assert batch["index"].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch["pixel_values"].shape == (6, 4, 3, 16, 16)
    assert batch["mask"].shape == (6, 8)
    assert batch["label"].tolist() == [0, 0, 0, 0, 0, 0]


def test_workers_do_not_change_what_is_seen(with_bad):
    """A bad file among them is replaced alike, and workers that live on learn of the next epoch."""

    def two_epochs(num_workers: int) -> list[tuple]:
        loader = build_loader(dataset(with_bad), batch_size=2, num_workers=num_workers, start_method=START_METHOD)
        seen = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            seen += fingerprints(loader)
        return seen

    alone = two_epochs(0)
    assert len(alone) == 16
    assert alone[:8] != alone[8:]
    assert two_epochs(1) == alone
    assert two_epochs(2) == alone


def test_two_ranks_see_together_what_one_sees(videos):
    alone = fingerprints(build_loader(dataset(videos), batch_size=4))
    halves = [fingerprints(build_loader(dataset(videos), batch_size=2, rank=r, world_size=2)) for r in (0, 1)]
    for step in range(2):
        together = halves[0][2 * step : 2 * step + 2] + halves[1][2 * step : 2 * step + 2]
        assert sorted(together) == sorted(alone[4 * step : 4 * step + 4])


def test_a_resumed_epoch_goes_on_where_it_stopped(videos):
    whole, rest = (build_loader(dataset(videos), batch_size=2) for _ in range(2))
    whole.sampler.set_epoch(3)
    rest.sampler.set_epoch(3, start_batch=1)
    assert len(rest) == 3
    assert fingerprints(rest) == fingerprints(whole)[2:]


def test_evaluation_sees_every_video_once_in_order(videos):
    for batch_size, world_size in ((3, 1), (3, 2), (5, 3)):
        loaders = [
            build_loader(dataset(videos, training=False), batch_size=batch_size, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        seen = [index for loader in loaders for batch in loader for index in batch["index"].tolist()]
        assert sorted(seen) == list(range(8))
        assert world_size > 1 or seen == sorted(seen)


def test_every_rank_makes_the_same_number_of_steps():
    samplers = [
        EpochSampler(103, shuffle=True, batch_size=4, drop_last=True, rank=rank, world_size=3) for rank in range(3)
    ]
    assert [len(sampler) for sampler in samplers] == [32, 32, 32]
    keys = [key for sampler in samplers for key in sampler]
    assert len(set(keys)) == 96


def test_a_step_larger_than_the_data_is_refused(videos):
    with pytest.raises(DataError, match="8 videos do not fill one step of 16"):
        build_loader(dataset(videos), batch_size=16)
    with pytest.raises(ValueError, match="rank must lie between 0 and"):
        build_loader(dataset(videos), batch_size=1, rank=2, world_size=2)


def test_loading_leaves_the_global_generator_alone(videos):
    before = torch.get_rng_state()
    list(build_loader(dataset(videos), batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files the way Linux shows them")
def test_no_file_stays_open(videos):
    clips = dataset(videos)
    clips[0]
    before = len(os.listdir("/proc/self/fd"))
    for i in range(24):
        clips[i % 8]
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_meter_tells_waiting_from_working():
    def slow_batches():
        for i in range(3):
            time.sleep(0.02)
            yield i

    meter = DataTimeMeter()
    for _ in meter.track(slow_batches()):
        time.sleep(0.01)
    assert 0.06 <= meter.waiting <= meter.total - 0.03
    assert 0 < meter.wait_fraction < 1
    meter.reset()
    assert meter.wait_fraction == 0


def test_python_ends_while_a_loader_with_workers_is_still_there(videos):
    """As where it lies in a reference cycle: the workers ignore SIGTERM, with which Python ends them."""
    script = f"""
from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import Sample
from videomae.video.sampling import ClipSampling
from pathlib import Path
file = Path({str(videos.samples[0].file)!r})
data = VideoDataset([Sample("a", file)] * 4, sampling=ClipSampling(), clip_frames=4, training=False)
kept = build_loader(data, batch_size=2, num_workers=1)
print(sum(len(batch["index"]) for batch in kept))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr


@pytest.mark.parametrize(("epoch", "start_batch"), [(0, 0), (1, 2)])
def test_endless_batches_are_those_of_epoch_after_epoch(epoch, start_batch):
    options = {"shuffle": True, "batch_size": 2, "drop_last": True, "rank": 1, "world_size": 2}
    endless, one = EpochSampler(13, **options, endless=True), EpochSampler(13, **options)
    endless.set_epoch(epoch, start_batch=start_batch)
    expected = []
    for number in range(epoch, epoch + 3):
        one.set_epoch(number, start_batch=start_batch if number == epoch else 0)
        expected += list(one)
    assert list(itertools.islice(endless, len(expected))) == expected
    with pytest.raises(ValueError, match="endless batches need drop_last"):
        EpochSampler(13, shuffle=True, batch_size=2, drop_last=False, endless=True)
