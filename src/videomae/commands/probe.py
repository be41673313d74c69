"""``videomae probe``: train simple classifiers on features."""

import dataclasses
import json
import sys

from videomae.inference.probe import ProbeResult, ProbeSettings, probe


def main(settings: ProbeSettings) -> int:
    """Print the accuracies; the exit code is 1 if videos could not be read."""
    from rich.console import Console

    result = probe(settings)
    if settings.json:
        content = {name: dataclasses.asdict(v) if isinstance(v, ProbeResult) else v for name, v in result.items()}
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
        return 1 if result["num_unreadable"] else 0
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{result['num_videos']} videos of {len(result['classes'])} classes, {result['protocol']}")
    if result["num_unreadable"]:
        console.print(
            f"{result['num_unreadable']} videos could not be read: those to test on count as wrong, others are left out"
        )
    for name, title in (("knn", f"{settings.k} nearest neighbours"), ("linear", "logistic regression")):
        r = result[name]
        console.print(
            f"{title:24} top-1 {r.top1:.1%} ({r.interval[0]:.1%} to {r.interval[1]:.1%}), mean of classes "
            f"{r.mean_class_accuracy:.1%}"
        )
    return 1 if result["num_unreadable"] else 0
