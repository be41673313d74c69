"""``videomae train``: from a folder of videos to a trained, measured model and a report."""

from videomae.console import print_json, say
from videomae.pipeline.run import show_end, train
from videomae.pipeline.settings import TrainSettings


def main(settings: TrainSettings) -> int:
    """Train, and say where everything is."""
    result = train(settings, say=lambda line: say([line]))
    if settings.json and result.evaluation is not None:
        print_json(result.evaluation.to_dict())
        return 0
    return show_end(result)
