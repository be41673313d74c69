"""From a folder of labelled videos to a trained, measured model and a report.

The stages: check, split, plan, then distil; or make small copies, pre-train, fine-tune; at last evaluate, compare,
report. The plan may leave out the copies and pre-training.

The run directory ends up with manifest.csv, check/, distill/ (or copies/, pretrain/, finetune/), evaluation/, model/,
result.json and report.html. The same command goes on where a run was stopped.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videomae.console import output, progress_bar
from videomae.console import say as say_lines
from videomae.data.audit.check import CheckReport, check
from videomae.data.manifest import Manifest, read_manifest
from videomae.files import atomic_write, write_json
from videomae.inference.metrics import Evaluation
from videomae.options import parse_duration
from videomae.pipeline.budget import copying_processes
from videomae.pipeline.comparison import Comparison, compare, measure_model
from videomae.pipeline.copies import copy_videos
from videomae.pipeline.decisions import TrainPlan
from videomae.pipeline.plan import make_plan
from videomae.pipeline.report import report_run
from videomae.pipeline.run_directory import (
    Stopwatch,
    is_planned,
    keep_plan,
    open_run_directory,
    refuse_other_videos,
)
from videomae.pipeline.settings import TrainSettings
from videomae.pipeline.small_data import distillation_settings
from videomae.pipeline.split import split_for_training
from videomae.pipeline.stages import stage_settings
from videomae.plots.check_report import write_check_report
from videomae.processes import working_in
from videomae.training.distillation import distill
from videomae.training.finetuning import finetune
from videomae.training.pretraining import pretrain

if TYPE_CHECKING:
    from videomae.inference.classifier import VideoClassifier

MANIFEST_NAME = "manifest.csv"
Timed = Callable[[str, Callable[[], Any]], Any]  # runs the work of a stage by that name


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: directory that ``predict`` and transformers load; None if the run was interrupted.
        report: the page.
        evaluation: on the test split; None if the run was interrupted.
        comparison: with what the model makes of its training videos, and with simple means; likewise.
        plan: what was decided.
        seconds: by stage, over all parts of the run.
    """

    model: Path | None
    report: Path | None
    evaluation: Evaluation | None
    comparison: Comparison | None
    plan: TrainPlan
    seconds: dict[str, float]


def train(settings: TrainSettings, *, say: Callable[[str], object] = lambda line: None) -> TrainResult:
    """Check, split, pre-train, fine-tune, evaluate and report; or go on with a run that was stopped.

    Videos that cannot be read are left out and listed in the report. Without a test split the videos are split by
    group, with copies of a video on one side, else by class: 70 % to train, 10 % to validate, 20 % to test.

    Where it saves time, the model learns from small copies of the videos; it is tested on the videos as they are. The
    processes that make them are spawned: a script calls this below ``if __name__ == "__main__":``.

        >>> from pathlib import Path
        >>> from videomae.data.settings import DataSettings
        >>> settings = TrainSettings(DataSettings(Path("motions")), out=Path("trained"), budget="5s", num_workers=0)
        >>> settings.preset, settings.image_size, settings.num_frames = "nano", 48, 8
        >>> settings.pretrain_epochs, settings.finetune_epochs, settings.batch_size = 0, 1, 4
        >>> result = train(settings)
        >>> result.evaluation.num_videos, result.report.name
        (4, 'report.html')

    Args:
        settings: what to learn from, and how long.
        say: called with lines that tell what is going on.

    Raises:
        DataError: if the videos cannot be used.
        CheckpointError: if the directory holds another run or one on other videos, or cannot be written.
        ValueError: for settings that make no sense, or do not go together.
    """
    s = settings
    budget = parse_duration(s.budget, name="--budget")
    s.check()
    open_run_directory(s)
    with working_in(s.out):
        return _train(s, budget, say)


def _train(settings: TrainSettings, budget: float, say: Callable[[str], object]) -> TrainResult:
    s = settings
    watch = Stopwatch(s.out)

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        say(f"{stage} ...")
        with watch.time(stage):
            return work()

    began = watch.total
    report = timed("check", lambda: _check(s))
    refuse_other_videos(s.out, report.manifest)
    write_check_report(report, s.out / "check")
    listed = s.out / MANIFEST_NAME
    if not is_planned(s.out):  # a manifest alone may be of other data: its run ended before it was planned
        split = split_for_training(report, seed=s.seed)
        # Paths that are absolute already stay so in a manifest of this root: the run directory may be moved.
        dataclasses.replace(split, root=s.out.absolute()).to_csv(listed)
    manifest, left = read_manifest(listed), budget - (watch.total - began)
    plan = timed("plan", lambda: keep_plan(s, report.manifest, lambda: make_plan(s, manifest, report, left)))
    for choice in plan.choices:
        say(f"  {choice.what}: {choice.value} ({choice.reason})")
    learnt_from, side, workers = listed, plan.copy_side, copying_processes(s.num_workers)
    if side is not None:
        learnt_from = timed("copy", lambda: copy_videos(manifest, s.out, side=side, workers=workers, say=say))
    trained = _learn(s, plan, learnt_from, timed)
    if trained is None:
        return TrainResult(None, None, None, None, plan, watch.seconds)
    model, test = s.out / "model", manifest.split("test")
    shutil.copytree(trained, model, dirs_exist_ok=True, copy_function=_copy_whole)
    classifier, evaluation = timed("evaluate", lambda: _evaluate(s, model, test))
    comparison = timed("compare", lambda: compare(s, classifier, manifest))
    write_json(s.out / "result.json", evaluation.to_dict() | {"comparison": dataclasses.asdict(comparison)})
    page = timed("report", lambda: report_run(s, plan, report, test, evaluation, comparison, watch.seconds))
    return TrainResult(model, page, evaluation, comparison, plan, watch.seconds)


def _check(settings: TrainSettings) -> CheckReport:
    """Look at the videos."""
    with progress_bar("looking at the videos") as progress:
        return check(
            settings.data,
            stride=settings.stride or 1,
            clip_frames=settings.num_frames or 8,
            near_duplicates=settings.near_duplicates,
            progress=progress,
        )


def _learn(settings: TrainSettings, plan: TrainPlan, manifest: Path, timed: Timed) -> Path | None:
    """Train as planned, and return the model; None if SIGTERM ended it early."""
    if plan.distill_epochs:
        distilled = distillation_settings(settings, plan, manifest)
        return timed("distill", lambda: distill(distilled)).model
    first, second = stage_settings(settings, plan, manifest)
    if first is not None and timed("pretrain", lambda: pretrain(first)).interrupted:
        return None
    return timed("finetune", lambda: finetune(second)).model


def show_end(result: TrainResult) -> int:
    """Show how a run ended, and return the exit code of its command."""
    from videomae.training.loop import EXIT_PREEMPTED

    if result.evaluation is None or result.comparison is None:
        say_lines(["stopped by SIGTERM; the same command goes on from there"])
        return EXIT_PREEMPTED
    evaluation, comparison, (low, high) = result.evaluation, result.comparison, result.evaluation.interval
    output().print(
        f"{evaluation.top1:.1%} of {evaluation.num_videos} test videos are right (95 % interval {low:.1%} to "
        f"{high:.1%}, chance {1 / len(evaluation.classes):.1%}), after {sum(result.seconds.values()):.0f} s.\n"
        f"{comparison.describe()}\n"
        f"report: {result.report}\nmodel:  {result.model}",
        markup=False,
    )
    return 0


def _evaluate(settings: TrainSettings, model: Path, test: Manifest) -> "tuple[VideoClassifier, Evaluation]":
    """Open the model, measure it, and write the figures."""
    from videomae.inference.classifier import VideoClassifier
    from videomae.plots.evaluation import write_evaluation

    classifier = VideoClassifier.from_pretrained(model, device="cpu" if settings.device == "cpu" else None)
    evaluation = measure_model(settings, classifier, test)
    evaluation.about.update(model=str(model), data=str(settings.out / MANIFEST_NAME), split="test")
    write_evaluation(evaluation, settings.out / "evaluation")
    return classifier, evaluation


def _copy_whole(source: str, target: str) -> None:
    """Copy a file so that it is there whole or not at all."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
