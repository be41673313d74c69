"""``videomae distill``: train a small classifier on a few hundred videos, from random weights."""

from videomae.training.distillation import Distillation, DistillSettings
from videomae.training.launch import launch


def main(settings: DistillSettings) -> int:
    """Train, or print what would be done."""
    return launch(settings, Distillation)
