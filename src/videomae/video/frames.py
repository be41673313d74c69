"""One frame: from any common form to a tensor, resized and cropped, with the pixels that torchvision gives.

C channels · H height and W width in pixels
"""

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the height and width that keep the aspect ratio, the long side rounded down."""
    if width <= height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)


def resize(frame: "Tensor", size: tuple[int, int], interpolation: str) -> "Tensor":
    """Resize (C, H, W) as torchvision does, which stays in 8 bits where that is fast."""
    import torch

    if tuple(frame.shape[-2:]) == size:
        return frame
    smooth = interpolation != "nearest-exact"
    in_8_bits = frame.dtype == torch.uint8 and _resizes_in_8_bits(interpolation, frame.device.type)
    if not in_8_bits:
        pixels = frame[None].to(torch.float32 if frame.dtype == torch.uint8 else frame.dtype).contiguous()
    elif frame.permute(1, 2, 0).is_contiguous():
        # A batch of one counts as channels-last only with this stride; interpolating in that order is twice as fast.
        pixels = frame.as_strided((1, *frame.shape), (frame.numel(), *frame.stride()))
    else:
        pixels = frame[None]
    align = False if smooth else None
    pixels = torch.nn.functional.interpolate(pixels, size, mode=interpolation, align_corners=align, antialias=smooth)
    if frame.dtype == torch.uint8 and not in_8_bits:
        pixels = pixels.clamp_(0, 255).round_().to(torch.uint8)
    return pixels[0]


def _resizes_in_8_bits(interpolation: str, device: str) -> bool:
    """Say whether torchvision keeps 8-bit frames in 8 bits: not on a GPU, nor bilinearly on an old processor."""
    import torch

    if interpolation == "nearest-exact":
        return True
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    return device == "cpu" and (fast or interpolation != "bilinear")


def center_crop(frame: "Tensor", height: int, width: int) -> "Tensor":
    """Cut the middle out of (C, H, W); where the frame is smaller, put a margin of zeros around it first."""
    import torch

    rows, columns = max(height - frame.shape[-2], 0), max(width - frame.shape[-1], 0)
    if rows or columns:
        margins = (columns // 2, (columns + 1) // 2, rows // 2, (rows + 1) // 2)
        frame = torch.nn.functional.pad(frame, margins)
    top, left = (frame.shape[-2] - height) // 2, (frame.shape[-1] - width) // 2
    return frame[:, top : top + height, left : left + width]


def is_array(value: Any) -> bool:
    """Tell an array or tensor by what it has, for neither library need be imported."""
    return hasattr(value, "ndim") and hasattr(value, "shape")


def is_pil(value: Any) -> bool:
    """Tell a PIL image, likewise."""
    return hasattr(value, "getbands")


def as_tensor(frame: Any) -> "Tensor":
    """Return an array or tensor as a tensor, without a copy where possible, or say why it is no frame."""
    import torch

    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8 and frame.dtype.kind != "f":
            raise ValueError(_WRONG_TYPE.format(frame.dtype))
        # A tensor cannot be read-only, nor run backwards as a frame[:, ::-1] does.
        backwards = any(stride < 0 for stride in frame.strides)
        pixels = torch.from_numpy(frame.copy() if backwards or not frame.flags.writeable else frame)
    elif isinstance(frame, torch.Tensor):
        pixels = frame.detach()
    else:
        raise TypeError(f"a frame is a PIL image, an array or a tensor, got {type(frame).__name__}.")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ValueError(_WRONG_TYPE.format(pixels.dtype))
    if pixels.numel() == 0:
        raise ValueError(f"a frame of shape {tuple(pixels.shape)} has no pixels. Look at how it was read.")
    return pixels.float() if pixels.dtype in (torch.float16, torch.bfloat16) else pixels


_WRONG_TYPE = "frames must be uint8 in 0-255, or float in 0-255 or 0-1, got {}. Convert them to one of these."


def from_pil(image: Any, convert: bool) -> np.ndarray:
    """Return a PIL image as (H, W, C) or, if it is grey, (H, W), in 8 bits."""
    transparent = "A" in image.getbands() or "transparency" in image.info
    if image.mode in ("RGB", "L", "RGBA") and not (convert and transparent):
        return np.array(image)
    if image.mode[0] in "IF" or not convert:
        reason = "has more than 8 bits" if image.mode[0] in "IF" else "has to be converted, which is switched off"
        raise ValueError(f"a PIL image of mode {image.mode!r} {reason}. Convert it to RGB or L (8 bits) first.")
    if not transparent:
        return np.array(image.convert("RGB"))
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def on_white(pixels: "Tensor") -> "Tensor":
    """Lay (4, H, W), whose last channel is opacity, on white."""
    import torch

    white = 255.0 if pixels.dtype == torch.uint8 or pixels.max() > 1 else 1.0
    opacity = pixels[3:] / white
    colours = pixels[:3] * opacity + white * (1 - opacity)
    return colours.round_().to(torch.uint8) if pixels.dtype == torch.uint8 else colours
