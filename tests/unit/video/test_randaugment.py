"""Operations on 8-bit clips are torchvision's, on whole frames and on crops, one by one and after each other."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from randaugment_reference import REFERENCE
from videomae.video.augment import seeded
from videomae.video.randaugment import OPERATIONS, RandAugment, RandAugmentedCrop

TURNING = {"Rotate", "ShearX", "ShearY"}


def clip(height: int = 60, width: int = 80, channels: int = 3) -> Tensor:
    """Two frames of a smooth picture with noise, laid out as readers give them."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(2, channels, 9, 11, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth + 4 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def differences(found: Tensor, expected: Tensor) -> Tensor:
    assert (found.dtype, found.shape) == (torch.uint8, expected.shape)
    return (found.int() - expected.int()).abs()


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_torchvision(name, channels):
    """But for roundings, and for the edge of what is turned in, which torchvision blends twice."""
    for level in (0.0, 0.33, 0.7, 1.0):
        for sign in (-1, 1):
            frames = clip(channels=channels)
            found = differences(OPERATIONS[name](frames, level, sign), REFERENCE[name](frames, level, sign))
            assert (found > 1).float().mean() <= (0.03 if name in TURNING else 0), (level, sign)
            if name not in TURNING | {"Contrast", "Color"}:
                assert not found.any(), (level, sign)


def test_flat_and_narrow_planes_are_treated_as_by_torchvision():
    for frames in (torch.full((1, 3, 8, 8), 77, dtype=torch.uint8), clip()[..., :1], clip()[..., :1, :]):
        for name in ("AutoContrast", "Equalize", "Contrast"):
            assert differences(OPERATIONS[name](frames, 0.7, 1), REFERENCE[name](frames, 0.7, 1)).max() <= 1


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", ["Equalize", "Solarize", "Rotate", "Sharpness", "Color", "TranslateX"])
def test_a_crop_of_operations_is_a_crop_of_the_whole(first, second):
    """Whatever is left to the end is done to the crop alone, and to the pixels around that it needs."""
    frames, operations = clip(), [(first, 0.7, 1), (second, 0.5, -1), ("Invert", 0.5, 1)]
    whole = frames
    for name, level, sign in operations:
        whole = OPERATIONS[name](whole, level, sign)
    crop = RandAugmentedCrop(RandAugment(), v2.RandomResizedCrop((20, 30)))
    for top, left in ((0, 0), (40, 50), (17, 23), (0, 50)):
        place = {"top": top, "left": left, "height": 20, "width": 30}
        found = crop.transform(frames, {"operations": operations} | place)
        expected = whole[..., top : top + 20, left : left + 30]
        assert differences(found, expected).float().mean() < 0.02
        assert (differences(found, expected) > 1).float().mean() < 0.002


def test_draws_are_those_of_the_two_transforms():
    augment, crop = RandAugment(), v2.RandomResizedCrop(32, antialias=True)
    for seed in range(6):
        with seeded(seed):
            found = RandAugmentedCrop(augment, crop)(clip())
        with seeded(seed):
            expected = crop(augment(clip()))
        assert (differences(found, expected) > 2).float().mean() < 0.01
