"""From a folder of labelled videos to a trained, measured model and a report.

The steps: check, split, plan (`train_plan`), make small copies, pre-train, fine-tune, evaluate. The plan may leave out
the copies and pre-training.

The run directory ends up with manifest.csv, check/, copies/, pretrain/, finetune/, evaluation/, model/, result.json and
report.html. The same command goes on where a run was stopped.
"""

import dataclasses
import itertools
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from videomae.data.audit.check import CheckReport, check
from videomae.data.manifest import Manifest, read_manifest
from videomae.data.settings import Data, DataSettings
from videomae.data.splits import linked
from videomae.errors import CheckpointError, DataError
from videomae.files import atomic_write, write_json
from videomae.hub import read_json
from videomae.inference.metrics import Evaluation
from videomae.options import Flag, parse_duration
from videomae.pipeline.plan import (
    VIEWS,
    Choice,
    TrainPlan,
    candidate_sizes,
    copying_processes,
    make_plan,
    run_settings,
)
from videomae.plots.check_report import write_check_report
from videomae.settings import flatten, with_required
from videomae.training.finetuning import finetune
from videomae.training.metrics_log import METRICS_NAME
from videomae.training.pretraining import pretrain
from videomae.training.run_directory import TrainingResult, digest
from videomae.training.settings import LoaderSettings

PLAN_NAME, SECONDS_NAME = "plan.json", "seconds.json"
STAGES = ("check", "plan", "copy", "pretrain", "finetune", "evaluate", "report")
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
SHARES_WITHOUT_VAL = {"train": 0.7, "test": 0.3}
FEWEST_TO_VALIDATE = 5  # videos a class; of fewer, less than half a video of each would be left to validate on
COPIES = ("exact-duplicates", "same-frames", "near-duplicates")  # findings of check
LEAST = {
    "image_size": 1, "patch_size": 1, "num_frames": 1, "batch_size": 1, "pretrain_epochs": 0, "finetune_epochs": 1,
    "num_workers": 0, "seed": 0,
}  # fmt: skip


@dataclasses.dataclass
class TrainSettings:
    """From a folder of labelled videos to a trained, measured model and a report, within a budget of time."""

    data: Data

    out: Path
    """Run directory; a run that was stopped goes on there."""

    budget: str = "45m"
    """How long it may take, e.g. 90s, 45m, 8h; models, resolution and epochs are chosen to fit."""

    init: str | None = None
    """Start from a checkpoint (directory, file or id on the Hub) in place of pre-training."""

    pretrain: bool = True
    """Pre-train on the training videos before fine-tuning, where the budget is enough for it to help; not with
    --init."""

    preset: Literal["nano", "tiny", "small", "base"] | None = None
    """Size of the model; None chooses."""

    image_size: int | None = None
    """Height and width of a frame, pixels; None chooses."""

    patch_size: int | None = None
    """Height and width of a tubelet, pixels; None chooses."""

    num_frames: int | None = None
    """Frames of a clip; None chooses."""

    stride: float | None = None
    """Frames from one of a clip to the next; None takes what a checkpoint of --init tells, or else lets a clip span
    most of a short video, and at most 4."""

    batch_size: int | None = None
    """Videos per optimiser step; None takes 32 (nano: 16, in pre-training 4), or fewer so that an epoch has four."""

    pretrain_epochs: int | None = None
    """Passes over the training videos without labels, 0 for no pre-training; None takes what fine-tuning leaves of the
    budget, if that is enough to help."""

    finetune_epochs: int | None = None
    """Passes with labels; None takes what it needs, as far as the budget allows."""

    num_workers: int | None = None
    """Processes that decode videos; None takes the processors there are, up to 8."""

    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one."""

    seed: int = 0
    """Of split, weights, data order and masks."""

    json: Flag = False
    """Print the result as one JSON object."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: directory that ``predict`` and transformers load; None if the run was interrupted.
        report: the page.
        evaluation: on the test split; None if the run was interrupted.
        plan: what was decided.
        seconds: by stage, over all parts of the run.
    """

    model: Path | None
    report: Path | None
    evaluation: Evaluation | None
    plan: TrainPlan
    seconds: dict[str, float]


def train(settings: TrainSettings, *, say: Callable[[str], object] = lambda line: None) -> TrainResult:
    """Check, split, pre-train, fine-tune, evaluate and report; or go on with a run that was stopped.

    Videos that cannot be read are left out and listed in the report. Without a test split the videos are split by
    group, with copies of a video on one side, else by class: 70 % to train, 10 % to validate, 20 % to test.

    Where it saves time, the model learns from small copies of the videos; it is tested on the videos as they are. The
    processes that make them are spawned: a script calls this below ``if __name__ == "__main__":``.

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
    _refuse_what_makes_no_sense(s)
    _claim(s)
    watch = _Stopwatch(s.out)

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        say(f"{stage} ...")
        with watch.time(stage):
            return work()

    source = dataclasses.asdict(s.data)
    began = sum(watch.seconds.values())
    report = timed(
        "check", lambda: check(source.pop("path"), stride=s.stride or 1, clip_frames=s.num_frames or 8, **source)
    )
    _refuse_other_videos(s, report.manifest)
    write_check_report(report, s.out / "check")
    manifest_file = s.out / "manifest.csv"
    choices: list[Choice] = []
    if not (s.out / PLAN_NAME).exists():  # a manifest alone may be of other data: its run ended before it was planned
        split = split_for_training(report, seed=s.seed)
        # Paths that are absolute already stay so in a manifest of this root: the run directory may be moved.
        dataclasses.replace(split, root=s.out.absolute()).to_csv(manifest_file)
    manifest = read_manifest(manifest_file)
    counts = ", ".join(f"{len(manifest.split(name))} {name}" for name in manifest.splits)
    choices.append(Choice("videos", counts, split_reason(report)))
    left = budget - (sum(watch.seconds.values()) - began)
    plan = timed("plan", lambda: _stored_plan(s, report, lambda: make_plan(s, manifest, report, left, choices)))
    for choice in plan.choices:
        say(f"  {choice.what}: {choice.value} ({choice.reason})")
    learnt_from = manifest_file
    if (side := plan.copy_side) is not None:
        learnt_from = timed("copy", lambda: _copy_videos(s, manifest, side, say))
    first, second = run_settings(s, plan, learnt_from)
    if first is not None:
        done: TrainingResult = timed("pretrain", lambda: pretrain(first))
        if done.interrupted:
            return TrainResult(None, None, None, plan, watch.seconds)
    done = timed("finetune", lambda: finetune(second))
    if done.model is None:
        return TrainResult(None, None, None, plan, watch.seconds)
    model = s.out / "model"
    shutil.copytree(done.model, model, dirs_exist_ok=True, copy_function=_copy_whole)
    evaluation = timed("evaluate", lambda: _evaluate(s, plan, manifest_file, model))
    from videomae.plots.train_report import write_report

    page = timed(
        "report", lambda: write_report(s.out, s.data.path.name, command_of(s), plan, report, evaluation, watch.seconds)
    )
    return TrainResult(model, page, evaluation, plan, watch.seconds)


class _Stopwatch:
    """Measures the stages, and adds up all parts of a run in seconds.json.

    A part that was killed, or ended in an error, counts up to the last line of its metrics.

    Attributes:
        seconds: by stage.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / SECONDS_NAME
        stored = read_json(self.file) if self.file.exists() else {"seconds": {}}
        self.seconds: dict[str, float] = {name: stored["seconds"][name] for name in STAGES if name in stored["seconds"]}
        if "stage" in stored and (metrics := folder / stored["stage"] / METRICS_NAME).exists():
            self._add(stored["stage"], max(metrics.stat().st_mtime - stored["began"], 0.0))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        began = time.time()
        write_json(self.file, {"seconds": self.seconds, "stage": stage, "began": began})
        yield
        self._add(stage, time.time() - began)
        write_json(self.file, {"seconds": self.seconds})

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


# ------------------------------------------------------------------------------------------------------ the data


def split_for_training(report: CheckReport, *, seed: int) -> Manifest:
    """Return the readable, labelled videos with splits "train" and "test", and "val" where it was made here.

    Raises:
        DataError: if too little is left to train and to test on.
    """
    manifest = report.manifest
    kept = report.usable
    if unlabelled := [sample.path for sample in kept if sample.label is None]:
        raise DataError(
            f"{len(unlabelled)} videos have no label, such as {unlabelled[0]!r}: put the videos into a folder per "
            "class or add a column 'label'; without labels use `videomae pretrain`"
        )
    if not kept:
        path, reason = next(iter(report.unreadable.items()))
        raise DataError(f"none of the {len(manifest)} videos can be read, such as {path!r}: {reason}")
    if len({sample.label for sample in kept}) < 2:
        raise DataError(
            f"the {len(kept)} readable videos are all of one class: put those of each class into a folder of its own, "
            "or correct the column 'label'"
        )
    # Paths stay relative to where the data lies, whatever folder the manifest is written to.
    samples = tuple(dataclasses.replace(sample, path=str(sample.file.resolve())) for sample in kept)
    if manifest.splits:
        names = set(manifest.splits)
        if not {"train", "test"} <= names:
            raise DataError(
                f"the data has the splits {', '.join(sorted(names))}: it needs 'train' and 'test', or none at all, and "
                "they are made"
            )
        if unassigned := [sample.path for sample in kept if sample.split is None]:
            raise DataError(
                f"{len(unassigned)} videos have no split, such as {unassigned[0]!r}, while others have one: fill the "
                "column 'split', or leave it out"
            )
        return Manifest(samples, manifest.classes, manifest.root)
    groups = groups_with_copies(kept, report)
    samples = tuple(dataclasses.replace(sample, group=group) for sample, group in zip(samples, groups, strict=True))
    whole = Manifest(samples, manifest.classes, manifest.root)
    split = whole.grouped_split if any(sample.group for sample in samples) else whole.stratified_split
    if len(samples) < FEWEST_TO_VALIDATE * len(manifest.classes):
        return split(SHARES_WITHOUT_VAL, seed=seed)
    try:
        return split(SHARES, seed=seed)
    except DataError:  # too few sources to validate on as well
        return split(SHARES_WITHOUT_VAL, seed=seed)


def groups_with_copies(samples: Manifest, report: CheckReport) -> list[str | None]:
    """Return a group for each sample: one for all that copies or a source connect, over however many steps.

    Where that connects several groups, they become one, with the name of the first.
    """
    items = [item for finding in report.findings if finding.kind in COPIES for item in finding.items]
    copies_of = defaultdict(list)
    for number, item in enumerate(items):
        for path in item.videos:
            copies_of[path].append(number)
    names = [[sample.file, *copies_of[sample.path], *filter(None, [sample.group])] for sample in samples]
    sources = linked(names)
    groups: dict[int, str] = {}
    for source, sample in zip(sources, samples, strict=True):
        if sample.group is not None:
            groups.setdefault(source, sample.group)
    sizes = Counter(sources)
    for source, sample in zip(sources, samples, strict=True):
        if sizes[source] > 1:
            groups.setdefault(source, sample.path)
    return [groups.get(source) for source in sources]


def split_reason(report: CheckReport) -> str:
    """Say how the split came about."""
    out = f"; {len(report.unreadable)} unreadable left out" if report.unreadable else ""
    if report.manifest.splits:
        return "the data's own split" + out
    if any(sample.group for sample in report.manifest):
        return "split by source, so that none is on two sides" + out
    return "split at random by class, copies kept on one side" + out


def _stored_plan(settings: TrainSettings, report: CheckReport, make: Callable[[], TrainPlan]) -> TrainPlan:
    file = settings.out / PLAN_NAME
    if not file.exists():
        plan = make()
        data = _data_of(report.manifest)
        write_json(file, {"asked": _asked(settings), "data": data, "plan": dataclasses.asdict(plan)})
        return plan
    return TrainPlan.from_dict(read_json(file)["plan"])


def _asked(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that a run must not change half-way."""
    fields = flatten(settings)
    for free in ("out", "json", "num_workers", "device"):
        del fields[free]
    for name in ("data.path", "data.videos", "init"):
        if fields[name] is not None and (name != "init" or Path(fields[name]).exists()):
            fields[name] = str(Path(fields[name]).resolve())
    return fields


def _data_of(manifest: Manifest) -> dict[str, Any]:
    """Return what tells whether a run goes on with the same videos, labels, splits and groups."""
    labels = [None if video.label is None else manifest.classes[video.label] for video in manifest]
    rows = [(v.path, label, v.split, v.start, v.end, v.group) for v, label in zip(manifest, labels, strict=True)]
    return {"videos": len(manifest), "digest": digest(rows)}


def _refuse_other_videos(settings: TrainSettings, manifest: Manifest) -> None:
    """Raise a CheckpointError if the run was planned for other videos than there are now."""
    file = settings.out / PLAN_NAME
    if not file.exists():
        return
    new = _data_of(manifest)
    old = read_json(file).get("data", new)
    if old != new:
        others = ", with other names, labels, splits or groups" if old["videos"] == new["videos"] else ""
        raise CheckpointError(
            f"{settings.out} holds a run, and the data changed: {new['videos']} videos were {old['videos']}{others}; "
            "name another --out, or bring back the old data"
        )


def _refuse_what_makes_no_sense(settings: TrainSettings) -> None:
    """Raise a ValueError for numbers that make no sense, settings that go nowhere, and for several processes."""
    s = settings
    for name, least in LEAST.items():
        value = getattr(s, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if s.stride is not None and s.stride <= 0:
        raise ValueError(f"--stride must be above 0, got {s.stride:g}")
    sizes = ("preset", "image_size", "patch_size", "num_frames")
    given = [f"--{name.replace('_', '-')}" for name in sizes if getattr(s, name) is not None]
    if s.init is not None and given:
        raise ValueError(
            f"--init {s.init} brings its own size: leave out {', '.join(given)}, or use `videomae finetune`"
        )
    if s.init is None:
        candidate_sizes(s)
    is_list = s.data.videos is not None or s.data.format not in ("auto", "folder")
    if s.data.path.is_dir() and not is_list and s.out.absolute().is_relative_to(s.data.path.absolute()):
        raise ValueError(f"--out {s.out} lies in {s.data.path}, and would be taken for data: name a folder outside")
    if s.pretrain_epochs and (s.init is not None or not s.pretrain):
        raise ValueError("--pretrain-epochs goes with neither --init nor --no-pretrain: leave out one of them")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "`videomae train` plans for the one process that it is: start it without torchrun, or run `videomae "
            "pretrain`, `finetune` and `evaluate` under torchrun"
        )


def _claim(settings: TrainSettings) -> None:
    """Refuse a directory that holds a run with other settings.

    Raises:
        CheckpointError: if it does, or cannot be written.
    """
    file = settings.out / PLAN_NAME
    if file.exists():
        defaults = flatten(with_required(TrainSettings, None))
        old, new = defaults | read_json(file)["asked"], _asked(settings)
        if changed := [f"{name} was {old[name]!r}, is {new[name]!r}" for name in new if old[name] != new[name]]:
            raise CheckpointError(f"{settings.out} holds another run: {'; '.join(changed)}. Name another --out")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {settings.out} ({error}): correct the rights, or name another --out"
        ) from error


def _copy_videos(settings: TrainSettings, manifest: Manifest, side: int, say: Callable[[str], object]) -> Path:
    """Make small copies of the videos to learn from; return a manifest in which they stand in for these.

    A video that cannot be copied whole stays as it is.
    """
    from videomae.data.copies import Encoding, plan, run

    listed, root = settings.out / "training.csv", settings.out.absolute()
    is_learnt = [sample.split in ("train", "val") for sample in manifest]
    learnt = tuple(itertools.compress(manifest, is_learnt))
    dataclasses.replace(manifest, samples=learnt, root=root).to_csv(listed)
    planned = plan(listed, root / "copies", encoding=Encoding(short_side=side), redo=True)
    if refused := run(planned, workers=copying_processes(settings)).unreadable:
        path, reason = next(iter(refused.items()))
        say(f"  {len(refused)} videos are learnt from as they are, such as {path}: {reason}")
    copies = iter(planned.manifest)
    rows = []
    for sample, has_copy in zip(manifest, is_learnt, strict=True):
        copy = next(copies).file if has_copy else None
        if copy is not None and copy.exists():
            sample = dataclasses.replace(sample, path=copy.relative_to(root).as_posix(), file=copy)
        rows.append(sample)
    dataclasses.replace(manifest, samples=tuple(rows), root=root).to_csv(listed)
    return listed


def _copy_whole(source: str, target: str) -> None:
    """Copy a file so that it is there whole or not at all."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _evaluate(settings: TrainSettings, plan: TrainPlan, manifest: Path, model: Path) -> Evaluation:
    from videomae.inference.classifier import VideoClassifier
    from videomae.inference.evaluate import evaluate
    from videomae.inference.protocols import Protocol
    from videomae.plots.evaluation import write_evaluation

    classifier = VideoClassifier.from_pretrained(model, device="cpu" if settings.device == "cpu" else None)
    evaluation = evaluate(
        classifier,
        DataSettings(manifest).read().split("test"),
        protocol=Protocol.of_model(classifier.model.config, views=f"{VIEWS}x1"),
        batch_size=24,
        num_workers=LoaderSettings(num_workers=settings.num_workers).workers(1),
        on_bad="wrong",
        allow_missing_classes=True,
    )
    evaluation.about.update(model=str(model), data=str(manifest), split="test")
    write_evaluation(evaluation, settings.out / "evaluation")
    write_json(settings.out / "result.json", evaluation.to_dict())
    return evaluation


def command_of(settings: TrainSettings) -> str:
    """Return the command that repeats a run."""
    import shlex

    words = ["videomae", "train", str(settings.data.path), "--out", str(settings.out)]
    defaults = flatten(with_required(TrainSettings, None))
    for name, value in flatten(settings).items():
        if name in ("data.path", "out", "json") or value == defaults[name]:
            continue
        option = name.rpartition(".")[2].replace("_", "-")
        words += [f"--no-{option}"] if value is False else [f"--{option}", str(value)]
    return shlex.join(words)
