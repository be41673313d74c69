"""``videomae quickstart``: see it work, offline."""

from videomae.console import output, say
from videomae.pipeline.quickstart import QuickstartSettings, quickstart
from videomae.pipeline.run import show_end

TOP_K = 3


def main(settings: QuickstartSettings) -> int:
    """Run, and end with the report, and with what to type next and what that gives."""
    from rich.markup import escape
    from rich.table import Column, Table

    from videomae.inference.classifier import VideoClassifier

    result = quickstart(settings, say=lambda line: say([line]))
    exit_code = show_end(result)
    if result.model is None:
        return exit_code
    example = next((settings.out / "videos" / "test").rglob("*.mp4"))
    output().print(f"\n$ videomae predict {example} --model {result.model} --top-k {TOP_K}", markup=False)
    table = Table(Column("video", overflow="fold"), "label", "score")
    for i, best in enumerate(VideoClassifier.from_pretrained(result.model)(example, top_k=TOP_K)):
        table.add_row("" if i else escape(str(example)), escape(best.label), f"{best.score:.4f}")
    output().print(table)
    return exit_code
