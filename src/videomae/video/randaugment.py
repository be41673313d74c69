"""RandAugment on 8-bit clips, of which no more pixels are computed than are kept.

A clip is a (T, C, H, W) uint8 tensor, and a plane one channel of one frame. Operations are carried out as late as can
be: those that change each value by itself are one table of 256 entries together, and only the crop that follows is
computed, with the pixels that it is made of. What comes out is what torchvision's operations give one after the other,
but for roundings and for the edge of what is turned in.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

BILINEAR = v2.InterpolationMode.BILINEAR
GREY = 128
LUMA = (0.2989, 0.587, 0.114)  # torchvision's
_RAMP = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)

Matrix = tuple[float, float, float, float, float, float]  # x, y of the frame = (a x + b y + c, d x + e y + f)
Tables = NDArray[np.uint8]  # (256,), or (T, C, 256) with one for each plane


class Box(NamedTuple):
    """A part of a frame, pixels; it may reach beyond where it is said so."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row behind the last one."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The column behind the last one."""
        return self.left + self.width

    def within(self, outer: "Box") -> "Box":
        """Return what of it lies in another; at least one pixel of that."""
        top = min(max(self.top, outer.top), outer.bottom - 1)
        left = min(max(self.left, outer.left), outer.right - 1)
        bottom, right = (max(min(a, b), c + 1) for a, b, c in (
            (self.bottom, outer.bottom, top), (self.right, outer.right, left),
        ))  # fmt: skip
        return Box(top, left, bottom - top, right - left)


Read = Callable[[Box], Tensor]  # a part of the frames, (T, C, height, width) uint8
Stage = Callable[[Read, Box, Box], Tensor]  # the same of what becomes of them; the first box is the whole frame


class LazyClip:
    """A clip, and what is to be done to it.

    Args:
        frames: (T, C, H, W) uint8.
    """

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self.box = Box(0, 0, *frames.shape[-2:])
        self._stages: list[Stage] = []
        self._tables: Tables | None = None  # come after the stages

    def map(self, tables: Tables) -> None:
        """Replace each value by its entry in a table."""
        before = self._tables
        if before is None:
            self._tables = tables
        elif before.ndim < tables.ndim or before.ndim == 1:
            self._tables = tables[..., before]
        else:
            self._tables = np.take_along_axis(np.broadcast_to(tables, before.shape), before, axis=-1)

    def then(self, stage: Stage) -> None:
        """Do something else to the frames."""
        if self._tables is not None:
            self._stages.append(partial(_look_up, tables=self._tables))
            self._tables = None
        self._stages.append(stage)

    def planes(self) -> NDArray[np.uint8]:
        """Carry all out, and return the values of each plane, (T, C, H * W)."""
        self.frames = self.crop(self.box).contiguous()
        self._stages, self._tables = [], None
        return self.frames.flatten(2).numpy()

    def crop(self, box: Box) -> Tensor:
        """Return a part of the frames as they are when all is carried out, (T, C, height, width) uint8."""
        read: Read = partial(_read, self.frames)
        for stage in self._stages:
            read = partial(stage, read, self.box)
        return read(box) if self._tables is None else _look_up(read, self.box, box, tables=self._tables)


def _read(frames: Tensor, box: Box) -> Tensor:
    return frames[..., box.top : box.bottom, box.left : box.right]


def _look_up(read: Read, whole: Box, box: Box, *, tables: Tables) -> Tensor:
    """Replace each value by its entry in the table of all planes, or of its own."""
    frames = read(box)
    if tables.ndim == 1:
        values = frames.permute(0, 2, 3, 1).contiguous()  # as readers lay frames out
        found = np.frombuffer(bytearray(values.numpy().tobytes().translate(tables.tobytes())), np.uint8)
        return torch.from_numpy(found).view(values.shape).permute(0, 3, 1, 2)
    planes = frames.contiguous().numpy()
    found = np.empty_like(planes)
    for place in np.ndindex(planes.shape[:2]):
        looked_up = planes[place].tobytes().translate(tables[place].tobytes())
        found[place] = np.frombuffer(looked_up, np.uint8).reshape(planes.shape[2:])
    return torch.from_numpy(found)


def _warp(read: Read, whole: Box, box: Box, *, matrix: Matrix) -> Tensor:
    """Take each pixel from elsewhere, outside of the frame grey: bilinear, in pixels from the upper left corner."""
    a, b, c, d, e, f = matrix
    corners = [(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)]
    across, down = ([p * x + q * y + r for x, y in corners] for p, q, r in (matrix[:3], matrix[3:]))
    top, left = math.floor(min(down)) - 1, math.floor(min(across)) - 1
    source = Box(top, left, math.ceil(max(down)) + 1 - top, math.ceil(max(across)) + 1 - left).within(whole)
    frames = read(source)
    x = torch.arange(box.width) + (box.left + 0.5)
    y = (torch.arange(box.height) + (box.top + 0.5))[:, None]
    columns = (a * x + b * y + (c - source.left)) * (2 / source.width) - 1
    rows = (d * x + e * y + (f - source.top)) * (2 / source.height) - 1
    values = frames.flatten(0, 1)[None].float().sub_(GREY)  # (1, T * C, H, W): outside there is 0
    found = torch.nn.functional.grid_sample(values, torch.stack([columns, rows], dim=-1)[None], align_corners=False)
    return found[0].add_(GREY + 0.5).to(torch.uint8).unflatten(0, frames.shape[:2])


def _shift(read: Read, whole: Box, box: Box, *, right: int, down: int) -> Tensor:
    """Shift by whole pixels; what comes in is grey."""
    moved = Box(box.top - down, box.left - right, box.height, box.width)
    source = moved.within(whole)
    frames = read(source)
    part = torch.full((len(frames), box.height, box.width, frames.shape[1]), GREY, dtype=torch.uint8)
    part = part.permute(0, 3, 1, 2)
    top, left = source.top - moved.top, source.left - moved.left
    if 0 <= top < box.height and 0 <= left < box.width:
        part[..., top : top + source.height, left : left + source.width] = frames
    return part


def _saturate(read: Read, whole: Box, box: Box, *, factor: float) -> Tensor:
    """Blend each pixel with its grey."""
    colours = read(box).contiguous().float()
    if colours.shape[1] == 1:
        return colours.to(torch.uint8)
    red, green, blue = colours.unbind(1)
    grey = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).floor_()
    blended = colours.mul_(factor).add_(grey.mul_(1 - factor)[:, None])
    return blended.clamp_(0, 255).to(torch.uint8)


def _sharpen(read: Read, whole: Box, box: Box, *, factor: float) -> Tensor:
    """Blend each pixel with its neighbourhood, but for those at the edge of the frame."""
    source = Box(box.top - 1, box.left - 1, box.height + 2, box.width + 2).within(whole)
    sharpened = F.adjust_sharpness(read(source), factor)
    return sharpened[..., box.top - source.top :, box.left - source.left :][..., : box.height, : box.width]


# ------------------------------------------------------------------------------------------------- operations


def _pointwise(clip: LazyClip, change: Callable[[Tensor], Tensor]) -> None:
    """Do to a clip what torchvision does to each value by itself."""
    clip.map(change(_RAMP).numpy().ravel())


def _auto_contrast(clip: LazyClip) -> None:
    """Stretch the values of each plane over 0 to 255."""
    planes = clip.planes()
    low, high = (torch.from_numpy(values).float()[..., None] for values in (planes.min(axis=2), planes.max(axis=2)))
    is_flat = low == high
    stretched = (_RAMP - low.masked_fill(is_flat, 0)) / ((high - low) / 255).masked_fill(is_flat, 1)
    clip.map(stretched.clamp(0, 255).to(torch.uint8).numpy())


def _equalize(clip: LazyClip) -> None:
    """Let all values of each plane be about as frequent (Pillow's definition)."""
    planes, counts = _histograms(clip)
    last = planes.max(axis=2)[..., None].astype(np.intp)
    step = (planes.shape[2] - np.take_along_axis(counts, last, axis=2)) // 255  # (T, C, 1)
    below = counts.cumsum(axis=2) - counts
    spread = ((below + step // 2) // np.maximum(step, 1)).clip(0, 255)
    clip.map(np.where(step == 0, np.arange(256), spread).astype(np.uint8))


def _contrast(clip: LazyClip, factor: float) -> None:
    """Blend each frame with its mean grey."""
    planes, counts = _histograms(clip)
    means = counts @ np.arange(256) / planes.shape[2]  # (T, C)
    luma = np.array(LUMA if means.shape[1] == 3 else (1.0,))
    grey = (means @ luma - 0.5)[:, None, None]  # torchvision rounds each pixel's grey down
    tables = (np.arange(256) * factor + grey * (1 - factor)).clip(0, 255).astype(np.uint8)  # (T, 1, 256)
    clip.map(np.repeat(tables, means.shape[1], axis=1))


def _histograms(clip: LazyClip) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the planes, and how often each value is in each, (T, C, 256)."""
    planes = clip.planes()
    return planes, np.array([[Image.fromarray(plane[None]).histogram() for plane in frame] for frame in planes])


def _rotate(clip: LazyClip, degrees: float) -> None:
    """Turn clockwise about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = clip.box.width / 2, clip.box.height / 2
    clip.then(partial(_warp, matrix=(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)))


def _shear(clip: LazyClip, across: float, down: float) -> None:
    """Shear from the upper left corner, by slopes."""
    clip.then(partial(_warp, matrix=(1, across, 0, down, 1, 0)))


def _translate(clip: LazyClip, right: float, down: float) -> None:
    """Shift by whole pixels, given as fractions of the frame."""
    clip.then(partial(_shift, right=round(right * clip.box.width), down=round(down * clip.box.height)))


# Each takes the clip, the strength from 0 to 1 and a sign; ranges are those of timm's "increasing" operations.
_STEPS: dict[str, Callable[[LazyClip, float, int], None]] = {
    "AutoContrast": lambda clip, level, sign: _auto_contrast(clip),
    "Equalize": lambda clip, level, sign: _equalize(clip),
    "Invert": lambda clip, level, sign: _pointwise(clip, F.invert),
    "Rotate": lambda clip, level, sign: _rotate(clip, sign * 30 * level),
    "Posterize": lambda clip, level, sign: _pointwise(clip, partial(F.posterize, bits=4 - int(4 * level))),
    "Solarize": lambda clip, level, sign: _pointwise(
        clip, partial(F.solarize, threshold=min(255, 256 - int(256 * level)))
    ),
    "SolarizeAdd": lambda clip, level, sign: _pointwise(
        clip, lambda ramp: torch.where(ramp < 128, ramp + int(110 * level), ramp)
    ),
    "Color": lambda clip, level, sign: clip.then(partial(_saturate, factor=1 + sign * 0.9 * level)),
    "Contrast": lambda clip, level, sign: _contrast(clip, 1 + sign * 0.9 * level),
    "Brightness": lambda clip, level, sign: _pointwise(
        clip, partial(F.adjust_brightness, brightness_factor=1 + sign * 0.9 * level)
    ),
    "Sharpness": lambda clip, level, sign: clip.then(partial(_sharpen, factor=1 + sign * 0.9 * level)),
    "ShearX": lambda clip, level, sign: _shear(clip, sign * 0.3 * level, 0),
    "ShearY": lambda clip, level, sign: _shear(clip, 0, sign * 0.3 * level),
    "TranslateX": lambda clip, level, sign: _translate(clip, sign * 0.45 * level, 0),
    "TranslateY": lambda clip, level, sign: _translate(clip, 0, sign * 0.45 * level),
}


def _on_whole_frames(step: Callable[[LazyClip, float, int], None], frames: Tensor, level: float, sign: int) -> Tensor:
    clip = LazyClip(frames)
    step(clip, level, sign)
    return clip.crop(clip.box)


# Each as a function of a clip, a strength from 0 to 1 and a sign.
OPERATIONS: dict[str, Callable[[Tensor, float, int], Tensor]] = {
    name: partial(_on_whole_frames, step) for name, step in _STEPS.items()
}


class RandAugment(v2.Transform):
    """Apply random operations of random strength: timm's ``rand-m7-n4-mstd0.5-inc1``, which v1 fine-tunes with.

    torchvision's class of this name has 14 operations of one fixed strength. timm's scheme has 15 (Invert and
    SolarizeAdd, no Identity), draws ``num_ops`` of them with replacement, applies each with probability one half, and
    draws each strength from a normal distribution, so that scheme is laid out here over torchvision's operations.
    Turned frames are filled grey and sampled bilinearly (v1: bicubic).

    Args:
        num_ops: operations drawn per clip.
        magnitude: mean strength, 0 to 10.
        std: standard deviation of the strength.
    """

    def __init__(self, *, num_ops: int = 4, magnitude: float = 7.0, std: float = 0.5) -> None:
        super().__init__()
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.std = std

    def make_params(self, flat_inputs: list[Any]) -> dict[str, list[tuple[str, float, int]]]:
        """Draw the operations, each with its strength from 0 to 1 and a sign."""
        names = list(_STEPS)
        chosen = [names[i] for i in torch.randint(len(names), (self.num_ops,))]
        applied = torch.rand(self.num_ops) < 0.5
        levels = (self.magnitude + self.std * torch.randn(self.num_ops)).clamp(0, 10) / 10
        signs = 2 * torch.randint(2, (self.num_ops,)) - 1
        drawn = zip(chosen, applied.tolist(), levels.tolist(), signs.tolist(), strict=True)
        return {"operations": [(name, level, sign) for name, apply, level, sign in drawn if apply]}

    def transform(self, inpt: Any, params: dict[str, list[tuple[str, float, int]]]) -> Any:
        """Apply the drawn operations in their order."""
        clip = self.begin(inpt, params)
        return clip.crop(clip.box)

    def begin(self, frames: Tensor, params: dict[str, list[tuple[str, float, int]]]) -> LazyClip:
        """Apply the drawn operations as far as they cannot wait."""
        clip = LazyClip(frames)
        for name, level, sign in params["operations"]:
            _STEPS[name](clip, level, sign)
        return clip


class RandAugmentedCrop(v2.Transform):
    """`RandAugment` and then torchvision's ``RandomResizedCrop``, whose outside is not computed.

    Args:
        augment: what is done before the crop.
        crop: how the crop is drawn, and to what size it is resized.
    """

    def __init__(self, augment: RandAugment, crop: v2.RandomResizedCrop) -> None:
        super().__init__()
        self.augment, self.crop = augment, crop

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the operations, then the crop."""
        return self.augment.make_params(flat_inputs) | self.crop.make_params(flat_inputs)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Augment and crop."""
        clip = self.augment.begin(inpt, params)
        part = clip.crop(Box(*(params[name] for name in ("top", "left", "height", "width"))))
        part = part.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # so that it is resized three times as fast
        return F.resize(part, list(self.crop.size), interpolation=BILINEAR, antialias=True)
