"""RandAugment's operations as torchvision computes them, one by one on whole frames: what ours are compared with."""

import math

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

GREY = 128


def affine(clip, *, angle=0.0, shift=(0, 0), shear=(0, 0)):
    """Turn by degrees about the centre, shift by fractions of the frame, or shear by slopes from the corner."""
    height, width = clip.shape[-2:]
    return F.affine(
        clip,
        angle=angle,
        translate=[round(shift[0] * width), round(shift[1] * height)],
        scale=1.0,
        shear=[math.degrees(math.atan(slope)) for slope in shear],
        center=[0, 0] if any(shear) else None,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=GREY,
    )


REFERENCE = {
    "AutoContrast": lambda clip, level, sign: F.autocontrast(clip),
    "Equalize": lambda clip, level, sign: F.equalize(clip),
    "Invert": lambda clip, level, sign: F.invert(clip),
    "Rotate": lambda clip, level, sign: affine(clip, angle=sign * 30 * level),
    "Posterize": lambda clip, level, sign: F.posterize(clip, bits=4 - int(4 * level)),
    "Solarize": lambda clip, level, sign: F.solarize(clip, threshold=min(255, 256 - int(256 * level))),
    "SolarizeAdd": lambda clip, level, sign: torch.where(clip < 128, clip + int(110 * level), clip),
    "Color": lambda clip, level, sign: F.adjust_saturation(clip, 1 + sign * 0.9 * level),
    "Contrast": lambda clip, level, sign: F.adjust_contrast(clip, 1 + sign * 0.9 * level),
    "Brightness": lambda clip, level, sign: F.adjust_brightness(clip, 1 + sign * 0.9 * level),
    "Sharpness": lambda clip, level, sign: F.adjust_sharpness(clip, 1 + sign * 0.9 * level),
    "ShearX": lambda clip, level, sign: affine(clip, shear=(sign * 0.3 * level, 0)),
    "ShearY": lambda clip, level, sign: affine(clip, shear=(0, sign * 0.3 * level)),
    "TranslateX": lambda clip, level, sign: affine(clip, shift=(sign * 0.45 * level, 0)),
    "TranslateY": lambda clip, level, sign: affine(clip, shift=(0, sign * 0.45 * level)),
}
