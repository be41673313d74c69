"""Runs survive: kills, preemption, full disks; and any number of processes learns the same."""

import itertools
import json
import math
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from training_runs import run, start, weights, write_data
from videomae.config import VideoMAEConfig
from videomae.errors import CheckpointError, VideoMAEError
from videomae.models.videomae import MODELS, VideoMAEForPreTraining
from videomae.models.weights import open_checkpoint
from videomae.training.checkpoint import list_steps
from videomae.training.metrics_log import MetricsLog, read_metrics
from videomae.training.settings import FREE_ON_RESUME
from videomae.video.processors import VideoMAEImageProcessor

pytestmark = pytest.mark.usefixtures("one_thread")

# Everything random at once: masks, dropout, mixing, accumulation, and an average of the weights.
PRETRAIN = ("--run.per-device-batch", "2", "--run.save-every", "2", "--optim.ema", "0.5", "--mask.decoder", "random")
FINETUNE = ("--run.per-device-batch", "2", "--run.save-every", "2", "--head.drop-path", "0.5", "--head.dropout", "0.2")


SIZES = [
    "image-size", "num-frames", "patch-size", "hidden-size", "num-hidden-layers", "num-attention-heads",
    "intermediate-size", "decoder-hidden-size", "decoder-num-hidden-layers", "decoder-num-attention-heads",
    "decoder-intermediate-size",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("runs"))


def assert_same_bits(out, other):
    ours, theirs = weights(out), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- kills

KILLS = {
    # In the middle of an epoch of three steps, one step after the last checkpoint.
    "pretrain": "import os; from videomae.training.metrics_log import MetricsLog as C; "
    "C.advance = lambda self, step: step == 5 and os.kill(os.getpid(), 9)",
    # While a checkpoint is being written.
    "finetune": "import os; from videomae.training import checkpoint as C; save = C.save_file; "
    "C.save_file = lambda t, f, **o: (save(t, f, **o), '-00000004/' in str(f) and os.kill(os.getpid(), 9))",
}


MUON = ("--optim.name", "muon", "--optim.layer-decay", "0.5")


@pytest.mark.parametrize(
    ("task", "options"), [("pretrain", PRETRAIN), ("finetune", FINETUNE), ("pretrain", PRETRAIN + MUON)]
)
def test_a_killed_run_ends_with_the_same_bits(data, tmp_path, task, options):
    run(task, data, tmp_path / "whole", *options)
    start(task, data, tmp_path / "killed", *options, line=KILLS[task])
    assert not (tmp_path / "killed" / "model").exists()
    assert list_steps(tmp_path / "killed" / "checkpoints")[-1] in (3, 4)
    run(task, data, tmp_path / "killed", *options)
    assert_same_bits(tmp_path / "killed", tmp_path / "whole")
    steps = [line["step"] for line in read_metrics(tmp_path / "killed") if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_sigterm_saves_and_the_same_command_goes_on(data, tmp_path, monkeypatch):
    run("pretrain", data, tmp_path / "whole", *PRETRAIN)
    clip, steps = Accelerator.clip_grad_norm_, itertools.count()

    def clip_and_be_told(self, parameters, largest):
        if next(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return clip(self, parameters, largest)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", clip_and_be_told)
    result = run("pretrain", data, tmp_path / "told", *PRETRAIN, "--run.save-every", "100")
    assert result.interrupted
    assert result.model is None
    assert result.steps == 4  # told during the third step, all processes know after the fourth
    assert list_steps(tmp_path / "told" / "checkpoints") == [4]
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run("pretrain", data, tmp_path / "told", *PRETRAIN, "--run.save-every", "100")
    assert_same_bits(tmp_path / "told", tmp_path / "whole")


TELL_ALL = (
    "import os; os.setsid(); from videomae.training.metrics_log import MetricsLog as C; "
    "C.advance = lambda self, step: step == 3 and os.killpg(0, 15)"
)


def test_sigterm_to_all_processes_of_a_job_saves_too(data, tmp_path):
    """Schedulers tell the decoding processes as well, which must work on until the checkpoint is written."""
    options = ("--loader.num-workers", "2", "--run.save-every", "100", "--run.epochs", "9")
    with pytest.raises(AssertionError, match="stopped by SIGTERM after step 4; the same command goes on"):
        start("pretrain", data, tmp_path / "run", *options, line=TELL_ALL)
    assert list_steps(tmp_path / "run" / "checkpoints") == [4]


def test_a_finished_run_stays_as_it_is(data, tmp_path):
    first = run("pretrain", data, tmp_path / "run")
    before = weights(tmp_path / "run")
    again = run("pretrain", data, tmp_path / "run")
    assert (first.steps, again.steps) == (6, 6)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path / "run").items())


def test_other_settings_are_refused_and_named(data, tmp_path):
    run("pretrain", data, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"other settings: optim\.lr was 0\.01, is 0\.5\. Name another --out"):
        run("pretrain", data, tmp_path / "run", "--optim.lr", "0.5")
    with pytest.raises(CheckpointError, match="has checkpoints up to step 6: name another --out"):
        run("pretrain", data, tmp_path / "run", "--run.resume", "never")
    run("pretrain", data, tmp_path / "run", "--run.log-every", "3", "--run.per-device-batch", "1")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--optim.clip-grad", "0.1", "optim.clip_grad was None, is 0.1"),
        ("--optim.ema", "0.5", "optim.ema was None, is 0.5"),
        ("--mask.decoder", "random", "mask.decoder was None, is 'random'"),
    ],
)
def test_a_setting_that_was_none_is_refused_too(data, tmp_path, option, value, told):
    """TOML has no word for None, so that the stored settings say nothing of it."""
    run("pretrain", data, tmp_path / "run", "--run.steps", "1")
    with pytest.raises(CheckpointError, match=re.escape(told)):
        run("pretrain", data, tmp_path / "run", "--run.steps", "1", option, value)


def test_a_path_may_be_spelled_differently_and_move_with_the_run(data, tmp_path, monkeypatch):
    copy = shutil.copytree(data.parent, tmp_path / "a" / "copy")
    monkeypatch.chdir(tmp_path / "a")
    run("pretrain", Path("copy/data"), Path("first"), "--run.steps", "1")
    start_from = ("--run.steps", "1", "--init", "first/model", *(f"--model.{name}=None" for name in SIZES))
    run("finetune", Path("copy/data"), Path("second"), *start_from)
    monkeypatch.chdir(tmp_path)
    run("pretrain", copy / "data", Path("a/first"), "--run.steps", "1")
    start_from = (*start_from[:3], str(tmp_path / "a" / "first" / "model"), *start_from[4:])
    run("finetune", Path("a/copy/data"), Path("a/second"), *start_from)
    Path("a").rename("b")
    start_from = (*start_from[:3], "b/first/model", *start_from[4:])
    run("finetune", Path("b/copy/data"), Path("b/second"), *start_from)
    shutil.copytree("b/copy", "other")
    with pytest.raises(
        CheckpointError, match=r"data.path was '.*/a/copy/data', is 'other/data'.*videomae pretrain --recipe"
    ):
        run("pretrain", Path("other/data"), Path("b/first"), "--run.steps", "1")


def test_other_videos_are_refused(data, tmp_path):
    """Their order, the epochs and the meaning of the classifier's outputs would be others."""
    copy = shutil.copytree(data.parent, tmp_path / "copy") / "data"
    run("finetune", copy, tmp_path / "run", "--run.steps", "1")
    (copy / "train" / "moving_up").rename(copy / "train" / "a_new_name")
    (copy / "val" / "moving_up").rename(copy / "val" / "a_new_name")
    with pytest.raises(CheckpointError, match="on other videos: 12 of 6 classes, now 12 of 6"):
        run("finetune", copy, tmp_path / "run", "--run.steps", "1")


def test_the_newest_checkpoints_and_the_best_one_stay(data, tmp_path):
    run("finetune", data, tmp_path / "run", "--run.save-every", "1", "--run.keep-last", "1")
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert set(list_steps(tmp_path / "run" / "checkpoints")) == {6, state["best_step"]}


@pytest.mark.parametrize(("task", "options"), [("pretrain", ()), ("finetune", ("--run.final", "last"))])
def test_a_checkpoint_is_loaded_like_a_model_while_the_run_goes_on(task, options, data, tmp_path):
    run(task, data, tmp_path / "run", *options)
    trained = MODELS[open_checkpoint(tmp_path / "run" / "model").task].from_pretrained(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "model")
    step = tmp_path / "run" / "checkpoints" / "step-00000006"
    loaded = type(trained).from_pretrained(step)
    assert loaded.config.id2label == trained.config.id2label
    assert loaded.config.frame_size == trained.config.frame_size == (16, 16)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in loaded.state_dict().items())
    processor = VideoMAEImageProcessor.from_pretrained(step)
    assert processor.crop_size == {"height": 16, "width": 16}
    assert VideoMAEConfig.from_pretrained(step).num_frames == trained.config.num_frames


def test_a_full_disk_leaves_the_old_checkpoint_intact(data, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="limits the size of files the way POSIX does")
    run("pretrain", data, tmp_path / "whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    advance = MetricsLog.advance

    def fill_disk(self, step):
        if step == 3:  # files may not grow any more: as good as a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        advance(self, step)

    monkeypatch.setattr(MetricsLog, "advance", fill_disk)
    try:
        with pytest.raises(
            CheckpointError, match=r"the checkpoint of step 4 .* That of step 2 is intact\. .* Make room"
        ):
            run("pretrain", data, tmp_path / "full", "--run.save-every", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-00000002"]
    run("pretrain", data, tmp_path / "full", "--run.save-every", "2")
    assert_same_bits(tmp_path / "full", tmp_path / "whole")


def test_a_full_disk_at_the_very_end_is_said(data, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="limits the size of files the way POSIX does")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = VideoMAEForPreTraining.save_pretrained

    def fill_disk(self, place, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        return save(self, place, **options)

    monkeypatch.setattr(VideoMAEForPreTraining, "save_pretrained", fill_disk)
    try:
        with pytest.raises(CheckpointError, match=r"cannot write the model to .*\. Make room"):
            run("pretrain", data, tmp_path / "full", "--run.steps", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "full" / "model").glob("*"))


def test_a_damaged_checkpoint_is_named_and_what_is_moved_aside_is_not_looked_at(data, tmp_path):
    run("pretrain", data, tmp_path / "run", "--run.save-every", "3")
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    (newest / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000006 \(SafetensorError"):
        run("pretrain", data, tmp_path / "run", "--run.save-every", "3")
    newest.rename(newest.with_name("step-00000006.damaged"))
    assert run("pretrain", data, tmp_path / "run", "--run.save-every", "3").steps == 6


def test_another_strategy_is_another_run():
    """DeepSpeed has a format of its own, and the average of the weights is not available everywhere."""
    assert "run.strategy" not in FREE_ON_RESUME


def test_an_unwritable_directory_is_said_at_the_start(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="correct the rights, or name another --out"):
        run("pretrain", data, tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["log-every", "save-every", "validate-every", "patience", "max-bad-steps"])
def test_counts_of_nothing_are_refused(data, tmp_path, name):
    with pytest.raises(ValueError, match=f"run.{name.replace('-', '_')} must be at least 1, got 0"):
        run("finetune", data, tmp_path / "run", f"--run.{name}", "0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--run.patience", "3"), "needs something to validate on"),
        (("--run.validate-every", "3"), "leave out run.validate_every"),
        (("--probe.every", "0"), "probe.every must be at least 1"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(data, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        run("pretrain", data, tmp_path / "run", *options)


# ---- videos that cannot be read


def listed(folder) -> list[str]:
    lines = (folder / "unreadable.csv").read_text().splitlines()
    return [Path(line.split(",")[0]).name for line in lines[1:]]


def test_unreadable_videos_are_said_and_listed_at_once_and_stay_listed(data, tmp_path, capsys):
    copy = shutil.copytree(data.parent, tmp_path / "copy") / "data"
    bad, worse = (copy / split / "moving_up" / "moving_up_000.mp4" for split in ("train", "val"))
    bad.write_bytes(b"")
    worse.write_bytes(b"")
    options = ("--loader.max-unreadable-fraction", "0.2", "--run.save-every", "1")
    (told,) = start("finetune", copy, tmp_path / "run", *options, line=KILLS["pretrain"])
    assert "moving_up_000.mp4', replaced by others: " in told
    assert told.count("moving_up_000.mp4', counted as wrong in validation: ") == 1
    assert len(listed(tmp_path / "run")) == 2
    shutil.copy(copy / "train" / "moving_up" / "moving_up_001.mp4", bad)  # repaired
    run("finetune", copy, tmp_path / "run", *options)
    assert len(listed(tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert "replaced by others" not in told
    assert "counted as wrong in validation" in told


# ---- figures that are not finite


def poison(monkeypatch, calls):
    """Let the loss of these calls of the model be not a number."""
    forward, count = VideoMAEForPreTraining.forward, itertools.count()

    def poisoned(self, *arguments, **options):
        loss, logits = forward(self, *arguments, **options)
        return (loss * math.nan if next(count) in calls else loss, logits)

    monkeypatch.setattr(VideoMAEForPreTraining, "forward", poisoned)


def test_a_step_without_a_finite_loss_is_skipped_and_counted(data, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {1, 3})  # the second micro-batch of the first two steps
    result = run("pretrain", data, tmp_path / "run", "--run.per-device-batch", "2", "--run.steps", "3")
    assert (result.steps, result.bad_steps) == (3, 2)
    lines = read_metrics(tmp_path / "run")
    assert [line["loss"] is None for line in lines] == [True, True, False]
    assert "step 1 is skipped: loss nan" in capsys.readouterr().err
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_too_many_of_them_end_the_run_with_advice(data, tmp_path, monkeypatch):
    poison(monkeypatch, {2, 3, 4})
    options = ("--run.max-bad-steps", "3", "--run.save-every", "2")
    with pytest.raises(VideoMAEError, match=r"for 3 steps in a row \(now step 5\): lower optim\.lr"):
        run("pretrain", data, tmp_path / "run", *options)
    assert list_steps(tmp_path / "run" / "checkpoints") == [2, 4]


def test_a_norm_that_nobody_knows_is_logged_as_none_and_skips_nothing(data, tmp_path, monkeypatch):
    """As under DeepSpeed; 0.0 would look like a gradient that has vanished."""
    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda self, parameters, largest: None)
    result = run("pretrain", data, tmp_path / "run", "--run.steps", "2")
    assert result.bad_steps == 0
    lines = read_metrics(tmp_path / "run")
    assert [line["grad_norm"] for line in lines] == [None, None]
    assert all(line["loss"] is not None for line in lines)


# ---- several processes


@pytest.mark.parametrize(("strategy", "optimiser"), [("auto", "adamw"), ("auto", "muon"), ("fsdp", "adamw")])
def test_two_processes_learn_what_one_learns(data, tmp_path, strategy, optimiser):
    """With the same batch: DDP over gloo, and FSDP, whose sharded weights come together in a loadable model.

    Both are killed on the way, and go on.
    """
    options = ("--run.per-device-batch", "1", "--optim.clip-grad", "0.1", "--optim.name", optimiser)
    options += ("--optim.ema", "0.9")
    run("pretrain", data, tmp_path / "one", *options)
    two = (data, tmp_path / "two", *options, "--run.save-every", "2", "--run.strategy", strategy)
    start("pretrain", *two, line=KILLS["pretrain"], processes=2)
    assert list_steps(tmp_path / "two" / "checkpoints") == [2, 4]
    start("pretrain", *two, processes=2)
    alone, together = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in together] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in together] == pytest.approx([line[name] for line in alone], abs=1e-5)
    model = VideoMAEForPreTraining.from_pretrained(tmp_path / "two" / "model")
    expected = VideoMAEForPreTraining.from_pretrained(tmp_path / "one" / "model").state_dict()
    torch.testing.assert_close(model.state_dict(), expected, atol=1e-4, rtol=0)
