"""``videomae quickstart``: see it work, offline."""

from videomae.pipeline.quickstart import QuickstartSettings, quickstart
from videomae.video.synthetic import MOTIONS


def main(settings: QuickstartSettings) -> int:
    """Run, and end with the report, a prediction, and what to type next."""
    from rich.console import Console

    from videomae.commands import predict
    from videomae.training.loop import EXIT_PREEMPTED

    notes, console = (Console(stderr=error, highlight=False, soft_wrap=True) for error in (True, False))
    result = quickstart(settings, say=lambda line: notes.print(line, markup=False))
    if result.evaluation is None:
        notes.print("stopped by SIGTERM; the same command goes on from there")
        return EXIT_PREEMPTED
    console.print(
        f"{result.evaluation.top1:.1%} of {result.evaluation.num_videos} test videos are right (chance: "
        f"{1 / len(MOTIONS):.1%}), after {sum(result.seconds.values()):.0f} s.\nreport: {result.report}\n",
        markup=False,
    )
    example = next((settings.out / "videos" / "test").rglob("*.mp4"))
    command = f"videomae predict {example} --model {result.model} --top-k 3"
    console.print(f"$ {command}", markup=False)
    asked = predict.PredictSettings(files=(str(example),), model=str(result.model), top_k=3)
    return predict.main(asked)
