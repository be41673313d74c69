"""``videomae finetune``: train a classifier, from a checkpoint or from random weights."""

from videomae.training.finetuning import FinetuneSettings, Finetuning
from videomae.training.launch import launch


def main(settings: FinetuneSettings) -> int:
    """Train, or print what would be done."""
    return launch(settings, Finetuning)
