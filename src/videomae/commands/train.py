"""``videomae train``: from a folder of videos to a trained, measured model and a report."""

import json
import sys

from videomae.pipeline.run import TrainSettings, train


def main(settings: TrainSettings) -> int:
    """Train, and say where everything is."""
    from rich.console import Console

    from videomae.training.loop import EXIT_PREEMPTED

    notes, console = (Console(stderr=error, highlight=False, soft_wrap=True) for error in (True, False))
    result = train(settings, say=lambda line: notes.print(line, markup=False))
    if result.evaluation is None:
        notes.print("stopped by SIGTERM; the same command goes on from there")
        return EXIT_PREEMPTED
    if settings.json:
        sys.stdout.write(json.dumps(result.evaluation.to_dict(), ensure_ascii=False) + "\n")
        return 0
    low, high = result.evaluation.interval
    console.print(
        f"{result.evaluation.top1:.1%} of {result.evaluation.num_videos} test videos are right (95 % interval "
        f"{low:.1%} to {high:.1%}, chance {1 / len(result.evaluation.classes):.1%}).\nreport: {result.report}\nmodel:  "
        f"{result.model}",
        markup=False,
    )
    return 0
