"""A clip is changed the same way in all its frames, and the same seed changes it the same way again."""

import pickle
from collections import Counter

import pytest
import torch
from torch import Tensor

from videomae.video.augment import (
    OPERATIONS,
    ClipErasing,
    FinetuneAugmentation,
    MultiScaleCrop,
    PretrainAugmentation,
    RandAugment,
    ShrinkShortSide,
    erase,
    eval_views,
    finetune_augmentation,
    finetune_crops,
    mix,
    normalize,
    pretrain_augmentation,
    seeded,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = FinetuneAugmentation(max_short_side=48)


def finetune(settings: FinetuneAugmentation):
    return finetune_augmentation(settings, mean=MEAN, std=STD, image_size=32)


def still_clip(frames: int = 4, height: int = 60, width: int = 80) -> Tensor:
    """The same random picture in every frame, laid out as readers give it."""
    picture = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return picture.expand(frames, -1, -1, -1).clone().permute(0, 3, 1, 2)


def ramp(height: int, width: int) -> Tensor:
    """A clip whose red is the row and whose green is the column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows]).to(torch.uint8)[None]


def run(transform, clip: Tensor, seed: int) -> Tensor:
    with seeded(seed):
        return transform(clip)


@pytest.mark.parametrize(
    "transform",
    [
        pretrain_augmentation(PretrainAugmentation(flip=0.5), image_size=32),
        finetune(FinetuneAugmentation(color_jitter=0.4, erasing=0.0)),
    ],
    ids=["pretrain", "finetune"],
)
def test_all_frames_change_alike(transform):
    for seed in range(12):
        result = run(transform, still_clip(), seed)
        assert result.shape == (4, 3, 32, 32)
        assert (result == result[:1]).all()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_operation_keeps_shape_type_and_unity_of_the_frames(name, sign):
    for level in (0.0, 0.7, 1.0):
        result = OPERATIONS[name](still_clip(), level, sign)
        assert result.shape == (4, 3, 60, 80)
        assert result.dtype == torch.uint8
        assert (result == result[:1]).all()


def test_the_strength_of_an_operation_is_that_of_timm():
    grey = torch.full((1, 3, 8, 10), 100, dtype=torch.uint8)
    assert OPERATIONS["Brightness"](grey, 0.7, 1).unique().tolist() == [163]
    assert OPERATIONS["Brightness"](grey, 0.7, -1).unique().tolist() == [37]
    assert OPERATIONS["Solarize"](grey, 0.7, 1).unique().tolist() == [155]  # threshold 256 - 179 = 77
    assert OPERATIONS["SolarizeAdd"](grey, 0.7, 1).unique().tolist() == [177]
    assert OPERATIONS["Posterize"](grey + 29, 0.7, 1).unique().tolist() == [128]  # 4 - 2 = 2 bits
    moved = OPERATIONS["TranslateX"](ramp(10, 20), 1.0, 1)[0, 1, 0]
    assert moved.tolist() == [128] * 9 + list(range(11))


def test_randaugment_draws_half_of_its_operations():
    augment = RandAugment()
    drawn = Counter()
    for seed in range(600):
        with seeded(seed):
            operations = augment.make_params([])["operations"]
        drawn.update(name for name, _, _ in operations)
        assert all(0 <= level <= 1 for _, level, _ in operations)
    assert set(drawn) == set(OPERATIONS)
    assert sum(drawn.values()) / 600 == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("build", [lambda: pretrain_augmentation(PretrainAugmentation()), lambda: finetune(SMALL)])
def test_a_seed_repeats_a_sample_and_leaves_the_global_generator_alone(build):
    clip, before = still_clip(), torch.get_rng_state()
    first, again, other = (run(build(), clip, seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_pipelines_travel_to_workers():
    for transform in (pretrain_augmentation(PretrainAugmentation()), finetune(SMALL)):
        again = pickle.loads(pickle.dumps(transform))
        assert torch.equal(run(again, still_clip(), 3), run(transform, still_clip(), 3))


def test_multi_scale_crops_are_those_of_v1():
    """v1 at 340x256: sides 256, 224, 192, 168, at most one step apart, at 13 places in quarters of the free room."""
    crop, clip = MultiScaleCrop(224), torch.zeros(1, 3, 256, 340, dtype=torch.uint8)
    sizes, places = set(), set()
    for seed in range(2000):
        with seeded(seed):
            drawn = crop.make_params([clip])
        sizes.add((drawn["height"], drawn["width"]))
        if (drawn["height"], drawn["width"]) == (192, 192):
            places.add((drawn["left"], drawn["top"]))
    sides = [256, 224, 192, 168]
    assert sizes == {(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1}
    corners_and_edges = {(x, y) for x in (0, 74, 148) for y in (0, 32, 64)}
    assert places == corners_and_edges | {(37, 16), (111, 16), (37, 48), (111, 48)}


def test_a_crop_close_to_the_wanted_size_is_not_resized():
    crop = MultiScaleCrop(224, scales=(1,))
    for short in (222, 224, 226):
        result = run(crop, torch.zeros(1, 3, short, 300, dtype=torch.uint8), 0)
        assert result.shape == (1, 3, 224, 224)
    assert crop.make_params([torch.zeros(1, 3, 226, 300)])["height"] == 224


def test_a_video_of_one_pixel_can_be_cropped():
    assert run(MultiScaleCrop(16), torch.zeros(2, 3, 1, 1, dtype=torch.uint8), 1).shape == (2, 3, 16, 16)


def test_only_large_frames_are_shrunk():
    shrink = ShrinkShortSide(48)
    assert shrink(torch.zeros(1, 3, 60, 80, dtype=torch.uint8)).shape == (1, 3, 48, 64)
    assert shrink(torch.zeros(1, 3, 40, 80, dtype=torch.uint8)).shape == (1, 3, 40, 80)


def test_erasing_fills_one_rectangle_with_fresh_noise_in_each_frame():
    clip = torch.full((4, 3, 32, 32), 7.0)
    erased = run(ClipErasing(1.0), clip, 1)
    holes = (erased != 7).any(1)  # (T, H, W)
    assert (holes == holes[:1]).all()
    rows, columns = holes[0].any(1).sum(), holes[0].any(0).sum()
    assert holes[0].sum() == rows * columns
    assert 0.015 < rows * columns / 1024 < 0.36
    assert not torch.equal(erased[0], erased[1])
    assert torch.equal(run(ClipErasing(0.0), clip, 1), clip)


def test_a_batch_is_erased_clip_by_clip_and_a_seed_repeats_it():
    clips = torch.full((40, 4, 3, 32, 32), 7.0)
    erased = erase(clips.clone(), p=0.5, seed=3)
    holes = (erased != 7).any(2)  # (B, T, H, W)
    assert (holes == holes[:, :1]).all()
    assert 10 < holes[:, 0].any((1, 2)).sum() < 30
    assert len({tuple(hole.any(1).tolist()) for hole in holes[:, 0]}) > 5  # not one rectangle for all
    noise = erased[erased != 7]
    assert (noise.mean().abs(), (noise.std() - 1).abs()) < (0.05, 0.05)
    assert torch.equal(erase(clips.clone(), p=0.5, seed=3), erased)
    assert not torch.equal(erase(clips.clone(), p=0.5, seed=4), erased)
    assert torch.equal(erase(clips.clone(), p=0, seed=3), clips)


@pytest.mark.parametrize("color_jitter", [0.0, 0.4])
def test_crops_stay_8_bit_and_are_what_the_whole_transform_normalises(color_jitter):
    settings = FinetuneAugmentation(max_short_side=48, color_jitter=color_jitter, erasing=0.0)
    for seed in range(5):
        crops = run(finetune_crops(settings, image_size=32), still_clip(), seed)
        assert crops.dtype == torch.uint8
        assert torch.equal(run(finetune(settings), still_clip(), seed), normalize(crops, mean=MEAN, std=STD))


def test_flips_can_be_switched_off():
    never = finetune(FinetuneAugmentation(flip=0, randaugment_ops=0, erasing=0, area=(1, 1), aspect_ratio=(1, 1)))
    clip = ramp(32, 32)
    assert all(torch.equal(run(never, clip, seed), normalize(clip, mean=MEAN, std=STD)) for seed in range(8))


def test_normalising_follows_the_definition():
    clip = still_clip()
    expected = (clip.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    result = normalize(clip, mean=MEAN, std=STD)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="normalised already"):
        normalize(result, mean=MEAN, std=STD)


def test_normalizing_into_a_given_tensor_gives_the_same_pixels():
    clips = torch.randint(256, (2, 4, 3, 8, 8), dtype=torch.uint8)
    out = torch.empty(clips.shape)
    assert normalize(clips, mean=MEAN, std=STD, out=out) is out
    assert torch.equal(out, normalize(clips, mean=MEAN, std=STD))
    with pytest.raises(ValueError, match="out must be float32 of shape"):
        normalize(clips[:1], mean=MEAN, std=STD, out=out)


@pytest.mark.parametrize(("height", "width"), [(32, 80), (80, 32)])
def test_three_crops_spread_over_the_long_side(height, width):
    clip = ramp(height, width)
    views = eval_views(clip, short_side=32, image_size=32)
    assert views.shape == (3, 1, 3, 32, 32)
    along = 0 if height > width else 1
    assert [int(view[0, along, 0, 0]) for view in views] == [0, 24, 48]
    assert torch.equal(eval_views(clip, short_side=32, image_size=32, num_crops=1)[0], views[1])


def test_a_larger_short_side_centres_the_other_axis():
    views = eval_views(ramp(40, 100), short_side=40, image_size=32)
    assert [view[0, :2, 0, 0].tolist() for view in views] == [[4, 0], [4, 34], [4, 68]]
    with pytest.raises(ValueError, match="image_size <= short_side"):
        eval_views(ramp(40, 100), short_side=32, image_size=40)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.0, 0.0)])
def test_soft_targets_match_the_mixed_pixels(mixup, cutmix):
    """Each clip is one colour, so its mean tells how much of it is left."""
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, 16, 16).contiguous()
    for seed in range(10):
        settings = FinetuneAugmentation(mixup=mixup, cutmix=cutmix)
        pixels, targets = mix(clips, torch.arange(4), num_classes=5, settings=settings, seed=seed)
        assert type(pixels) is Tensor
        assert targets.dtype == torch.float32
        torch.testing.assert_close(pixels.mean((1, 2, 3, 4)), targets @ torch.arange(5.0))
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_mixing_needs_normalised_clips():
    with pytest.raises(ValueError, match="normalize"):
        mix(
            torch.zeros(2, 2, 3, 4, 4, dtype=torch.uint8),
            torch.tensor([0, 1]),
            num_classes=2,
            settings=FinetuneAugmentation(),
            seed=0,
        )
