"""What training does to the pixels of a clip: crops, flips, RandAugment, erasing, mixup and cutmix.

A clip is a (T, C, H, W) uint8 tensor, values 0 to 255. Every draw is made once per clip, so all frames change alike.

The transforms are those of ``torchvision.transforms.v2`` or subclasses of its ``Transform``, so that any of them can be
composed with these. They draw from torch's global CPU generator; `seeded` lends them one for a single sample and puts
the old state back. Transforms that draw from ``random`` or ``numpy`` are outside this promise: do not mix them in.

A clip permuted from (T, H, W, C), as readers give it, is resized three times as fast as a contiguous one: leave it so.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from videomae.video.augment_settings import DistillAugmentation, FinetuneAugmentation, PretrainAugmentation
from videomae.video.clips import spread_crops
from videomae.video.randaugment import BILINEAR, RandAugment, RandAugmentedCrop
from videomae.video.randaugment import OPERATIONS as OPERATIONS


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's global CPU generator start from ``seed`` inside the block; its state returns afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


# -------------------------------------------------------------------------------------------------- pipelines


def pretrain_augmentation(settings: PretrainAugmentation, *, image_size: int = 224) -> Callable[[Tensor], Tensor]:
    """Return the transform of pre-training: (T, C, H, W) uint8 to (T, C, S, S) uint8, with S = ``image_size``.

    The result stays uint8, a quarter of the bytes to move; `normalize` the batch where the model is.
    """
    return v2.Compose([MultiScaleCrop(image_size, scales=settings.scales), v2.RandomHorizontalFlip(settings.flip)])


def finetune_augmentation(
    settings: FinetuneAugmentation, *, mean: Sequence[float], std: Sequence[float], image_size: int = 224
) -> Callable[[Tensor], Tensor]:
    """Return the transform of fine-tuning: (T, C, H, W) uint8 to (T, C, S, S) float32, with S = ``image_size``.

    The order is v1's: RandAugment on the whole frame, crop, flip, normalise, erase. Crops are resized with
    antialiasing, where v1 has none. `finetune_crops`, `normalize` and `erase` do the same with the last two steps on
    batches, where the model is.

    Args:
        settings: how clips are varied; `videomae.data.mirroring.resolve_mirroring` says how often they are mirrored.
        mean: per channel, in pixels scaled to 0-1; as stored with the model.
        std: likewise.
        image_size: height and width of the result, pixels.
    """
    crops = finetune_crops(settings, image_size=image_size)
    return v2.Compose([crops, partial(normalize, mean=mean, std=std), ClipErasing(settings.erasing)])


def finetune_crops(settings: FinetuneAugmentation, *, image_size: int = 224) -> Callable[[Tensor], Tensor]:
    """Return the part of `finetune_augmentation` before pixels are normalised: to (T, C, S, S) uint8."""
    s = settings
    augment = RandAugment(num_ops=s.randaugment_ops, magnitude=s.randaugment_magnitude, std=s.randaugment_std)
    crop = v2.RandomResizedCrop(image_size, s.area, s.aspect_ratio, interpolation=BILINEAR, antialias=True)
    jitter = v2.ColorJitter(s.color_jitter, s.color_jitter, s.color_jitter)
    flip = v2.RandomHorizontalFlip(0.5 if s.flip is None else s.flip)
    middle = [augment, jitter, crop] if s.color_jitter else [RandAugmentedCrop(augment, crop)]
    return v2.Compose([ShrinkShortSide(s.max_short_side), *middle, flip])


def distill_augmentation(settings: DistillAugmentation, *, side: int, image_size: int) -> Callable[[Tensor], Tensor]:
    """Return the transform of distillation: (T, C, H, W) uint8 to grey (T, 1, S, S) uint8, with S = ``image_size``.

    Args:
        settings: how clips are varied; `videomae.data.mirroring.resolve_mirroring` says how often they are mirrored.
        side: whole frames are first squeezed to squares of so many pixels.
        image_size: height and width of the result, pixels.
    """
    s = settings
    steps: list[Callable[[Tensor], Tensor]] = [
        Squeeze(side),
        v2.Grayscale(),
        AffineCrop(image_size, zoom=s.zoom, stretch=s.stretch, turn=s.turn, shift=s.shift),
        v2.ColorJitter(contrast=s.contrast),
        v2.RandomHorizontalFlip(0.5 if s.flip is None else s.flip),
    ]
    return v2.Compose(steps)


def squeezed_view(clip: Tensor, *, side: int, image_size: int) -> Tensor:
    """Cut out the middle on which a clip is scored after distillation: (T, C, H, W) uint8 to (1, T, C, S, S).

    Args:
        clip: to cut from.
        side: whole frames are first squeezed to squares of so many pixels.
        image_size: S.
    """
    return F.center_crop(Squeeze(side)(clip), [image_size, image_size])[None]


def eval_views(
    clip: Tensor, *, short_side: int = 224, image_size: int = 224, num_crops: int = 3, antialias: bool = True
) -> Tensor:
    """Cut the crops on which a clip is scored: resize the short side, then spread squares over the long side.

    Args:
        clip: (T, C, H, W) uint8.
        short_side: pixels of the short side after resizing; the long side is truncated to an integer.
        image_size: height and width of a crop, at most ``short_side``.
        num_crops: how many; 1 is the centre, 3 are both ends and the middle.
        antialias: off reproduces v1, which shrinks with OpenCV's plain bilinear.

    Returns:
        (num_crops, T, C, image_size, image_size) uint8.
    """
    if image_size > short_side:
        raise ValueError(
            f"crops need image_size <= short_side, got {image_size} and {short_side}. Resize to a longer short side."
        )
    clip = F.resize(clip, [short_side], interpolation=BILINEAR, antialias=antialias)
    height, width = clip.shape[-2:]
    corners = spread_crops(height, width, image_size, num_crops)
    return torch.stack([F.crop(clip, top, left, image_size, image_size) for top, left in corners])


def normalize(
    pixel_values: Tensor, *, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None
) -> Tensor:
    """Scale pixels to 0-1, subtract the mean and divide by the standard deviation of each channel.

    Args:
        pixel_values: (..., C, H, W) uint8.
        mean: one value per channel, in pixels scaled to 0-1.
        std: likewise.
        out: float32 tensor of this shape to write to, such as that of the last batch: on a CPU, to touch fresh memory
            takes longer than the arithmetic.

    Returns:
        The same shape, float32, on the same device; ``out`` where given.
    """
    if pixel_values.dtype != torch.uint8:
        raise ValueError(
            f"normalize takes uint8 pixels, 0 to 255, got {pixel_values.dtype}. Leave out what is normalised already."
        )
    if out is not None and (out.shape, out.dtype) != (pixel_values.shape, torch.float32):
        raise ValueError(
            f"out must be float32 of shape {tuple(pixel_values.shape)}, got {out.dtype} of shape {tuple(out.shape)}. "
            "Leave it out for a batch of another size."
        )
    # Filled where they are: a copy from the host would be waited for.
    shift, scale = (
        torch.stack([pixel_values.new_full((1, 1), value, dtype=torch.float32) for value in values]) * 255
        for values in (mean, std)
    )
    result = torch.empty_like(pixel_values, dtype=torch.float32) if out is None else out
    # On a CPU, a picture that stays in the cache for all three steps takes half the time; a GPU takes all at once.
    is_on_cpu = pixel_values.device.type == "cpu"
    for place in product(*map(range, pixel_values.shape[:-3])) if is_on_cpu else [()]:
        result[place].copy_(pixel_values[place]).sub_(shift).div_(scale)
    return result


# ------------------------------------------------------------------------------------------------- transforms


class MultiScaleCrop(v2.Transform):
    """Cut a crop of one of several sizes at one of 13 fixed places and resize it (TSN; v1's pre-training crop).

    Height and width are drawn from the scales of the short side, at most one scale apart. The places are the corners,
    the middles of the edges, the centre, and the four points half-way between centre and corner.

    Args:
        size: height and width of the result, pixels.
        scales: crop sizes as fractions of the short side, from large to small.
    """

    PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))

    def __init__(self, size: int, *, scales: Sequence[float] = (1, 0.875, 0.75, 0.66)) -> None:
        super().__init__()
        self.size = size
        self.scales = tuple(scales)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Draw a crop for frames of this size, as ``top``, ``left``, ``height`` and ``width``."""
        frame_height, frame_width = flat_inputs[0].shape[-2:]
        short = min(frame_height, frame_width)
        sides = [max(int(short * scale), 1) for scale in self.scales]
        sides = [min(self.size, short) if abs(side - self.size) < 3 else side for side in sides]  # no needless resize
        pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
        height, width = pairs[torch.randint(len(pairs), ())]
        x, y = self.PLACES[torch.randint(len(self.PLACES), ())]
        return {
            "top": y * ((frame_height - height) // 4),
            "left": x * ((frame_width - width) // 4),
            "height": height,
            "width": width,
        }

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """Crop and resize."""
        return F.resized_crop(inpt, **params, size=[self.size, self.size], interpolation=BILINEAR, antialias=True)


class ShrinkShortSide(v2.Transform):
    """Resize frames whose short side is longer than ``short_side`` pixels; leave smaller ones alone."""

    def __init__(self, short_side: int) -> None:
        super().__init__()
        self.short_side = short_side

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize if too large."""
        if min(inpt.shape[-2:]) <= self.short_side:
            return inpt
        return F.resize(inpt, [self.short_side], interpolation=BILINEAR, antialias=True)


class Squeeze(v2.Transform):
    """Resize frames to squares, whatever their shape: nothing at their sides is lost.

    Args:
        side: height and width of the result, pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize frames that have another size."""
        if inpt.shape[-2:] == (self.side, self.side):
            return inpt
        return F.resize(inpt, [self.side, self.side], interpolation=BILINEAR, antialias=True)


class AffineCrop(v2.Transform):
    """Cut a square from about the middle, zoomed, stretched, turned and shifted, in one interpolation.

    With all ranges 0 it is the centre crop of a test. Outside the frame its border is repeated.

    Args:
        size: height and width of the result, pixels.
        zoom: largest logarithm of the number of pixels, in the frame, over ``size``.
        stretch: largest logarithm of the stretch of its width, by which its height shrinks.
        turn: largest angle, degrees.
        shift: largest shift along each axis, as a fraction of the frame's short side.
    """

    def __init__(self, size: int, *, zoom: float, stretch: float, turn: float, shift: float) -> None:
        super().__init__()
        self.size = size
        self.ranges = torch.tensor([zoom, stretch, math.radians(turn), shift, shift])

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw the crop as the matrix (2, 3) of ``affine_grid``, in half sides of the frame."""
        height, width = flat_inputs[0].shape[-2:]
        zoom, stretch, turn, right, down = (self.ranges * (2 * torch.rand(5) - 1)).tolist()
        x, y = self.size * math.exp(zoom + stretch), self.size * math.exp(zoom - stretch)
        short_side = min(height, width)
        square = torch.tensor(
            [
                [x * math.cos(turn), -y * math.sin(turn), 2 * short_side * right],
                [x * math.sin(turn), y * math.cos(turn), 2 * short_side * down],
            ]
        )
        return {"matrix": square / torch.tensor([[width], [height]])}

    def transform(self, inpt: Any, params: dict[str, Tensor]) -> Any:
        """Cut it out."""
        grid = torch.nn.functional.affine_grid(
            params["matrix"][None], [1, 1, self.size, self.size], align_corners=False
        )
        frames = inpt.flatten(0, 1)[None].float()  # (1, T * C, H, W)
        crops = torch.nn.functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)[0]
        return crops.round_().to(inpt.dtype).unflatten(0, inpt.shape[:2])  # (T, C, S, S)


class ClipErasing(v2.RandomErasing):
    """Replace one rectangle, the same in all frames, by fresh normal noise in each ("pixel" mode; v1's "cube").

    For normalised clips, (T, C, H, W) float. torchvision's own class repeats one frame of noise.

    Args:
        p: probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__(p, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle and its noise."""
        params = super().make_params(flat_inputs)
        if params["v"] is not None:
            params["v"] = torch.randn(flat_inputs[0].shape[0], *params["v"].shape)
        return params


def erase(pixel_values: Tensor, *, p: float, seed: int) -> Tensor:
    """Do to some clips of a batch, in place, what `ClipErasing` does to one.

    Args:
        pixel_values: (B, T, C, H, W) float, normalised.
        p: probability.
        seed: of this batch, such as a function of run seed and step; on a GPU the noise is drawn from its generator.

    Returns:
        The same tensor.
    """
    if p == 0:
        return pixel_values
    draw = ClipErasing(p)
    with seeded(seed):
        for clip in pixel_values:
            if torch.rand(()).item() < p:
                place = v2.RandomErasing.make_params(draw, [clip[0]])
                if place["v"] is not None:
                    rows, columns = (slice(place[i], place[i] + place[n]) for i, n in (("i", "h"), ("j", "w")))
                    clip[..., rows, columns].normal_()
    return pixel_values


# ----------------------------------------------------------------------------------------------------- mixing


def mix(
    pixel_values: Tensor, labels: Tensor, *, num_classes: int, settings: FinetuneAugmentation, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix each clip with its predecessor in the batch, by mixup or by cutmix, one draw for the whole batch.

    v1 and V2 mix the first clip with the last, the second with the last but one, and so on. A box of cutmix spans
    height and width in all frames, as in V2; v1 draws it so, and cuts it out of the axes of time and height.

    Args:
        pixel_values: (B, T, C, H, W) float, normalised.
        labels: (B,) class indices.
        num_classes: number of classes.
        settings: what to mix and how strongly: ``mixup``, ``cutmix`` and ``switch``.
        seed: of this batch, such as a function of run seed and step.

    Returns:
        The mixed clips, and (B, num_classes) float32 soft targets whose rows add up to 1: use soft cross-entropy, which
        smooths them where that is wanted (`weighted_cross_entropy`).
    """
    if not pixel_values.is_floating_point() or pixel_values.ndim != 5:
        raise ValueError(
            f"mix takes normalised float clips (B, T, C, H, W), got {pixel_values.dtype} of shape "
            f"{tuple(pixel_values.shape)}. Call `normalize` first."
        )
    targets = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
    with seeded(seed):
        use_cutmix = settings.cutmix > 0 and (settings.mixup == 0 or torch.rand(()).item() < settings.switch)
        if use_cutmix or settings.mixup > 0:
            method = v2.CutMix(alpha=settings.cutmix) if use_cutmix else v2.MixUp(alpha=settings.mixup)
            mixed, targets = method(tv_tensors.Video(pixel_values), targets)
            pixel_values = mixed.as_subclass(Tensor)
    return pixel_values, targets
