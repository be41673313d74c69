"""``videomae pretrain``: learn from unlabelled videos by reconstructing what is hidden."""

from videomae.training.launch import launch
from videomae.training.pretraining import Pretraining, PretrainSettings


def main(settings: PretrainSettings) -> int:
    """Train, or print what would be done."""
    return launch(settings, Pretraining)
