"""Few and short videos are learnt with a teacher, within the budget, and beside simple means."""

import dataclasses
import json

import pytest

from trained import reason
from videomae.data.audit.check import check
from videomae.data.settings import DataSettings
from videomae.inference.baselines import Baseline
from videomae.pipeline import measure, small_data
from videomae.pipeline.comparison import Comparison
from videomae.pipeline.plan import make_plan
from videomae.pipeline.run import train
from videomae.pipeline.settings import TrainSettings
from videomae.pipeline.small_data import distillation_settings, why_to_distill
from videomae.pipeline.split import split_for_training
from videomae.video.checkpoint_processor import load_processor


def asked(tmp_path, **options):
    return TrainSettings(DataSettings(tmp_path / "videos"), tmp_path / "run", **options)


@pytest.mark.parametrize(
    ("options", "videos", "frames", "distils"),
    [
        ({}, 300, 100, True),
        ({}, 6000, 100, False),
        ({}, 300, 5000, False),
        ({"method": "distill"}, 6000, 5000, True),
        ({"method": "pretrain"}, 300, 100, False),
        ({"init": "x"}, 300, 100, False),
        ({"preset": "tiny"}, 300, 100, False),
        ({"image_size": 112}, 300, 100, False),
        ({"stride": 2.0}, 300, 100, False),
        ({"finetune_epochs": 3}, 300, 100, False),
        ({"batch_size": 8}, 300, 100, True),
    ],
)
def test_when_a_teacher_is_used(tmp_path, options, videos, frames, distils):
    assert (why_to_distill(asked(tmp_path, **options), videos, [frames] * videos) is not None) == distils


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "distill", "preset": "tiny"}, "leave out sizes"),
        ({"method": "finetune", "init": "x"}, "leave out --method finetune"),
        ({"method": "distill", "pretrain_epochs": 3}, "--pretrain-epochs goes with neither"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        asked(tmp_path, **options).check()


def test_the_time_is_what_reading_leaves(videos, tmp_path, monkeypatch):
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)
    given = []
    for seconds in (0.0, 1.0):
        monkeypatch.setattr(measure, "whole_video_seconds", lambda *videos, side, seconds=seconds: seconds)
        plan = make_plan(asked(tmp_path), manifest, report, 1000)
        given.append(plan.seconds["distill"])
        assert reason(plan, "method").startswith(f"{len(manifest.split('train'))} videos")
    assert given[0] == pytest.approx(950)
    assert given[1] == pytest.approx(950 - 0.95 * small_data.READINGS * len(manifest))
    manifest.to_csv(tmp_path / "manifest.csv")
    chosen = distillation_settings(asked(tmp_path, seed=3), plan, tmp_path / "manifest.csv")
    assert (chosen.run.seed, chosen.run.budget) == (3, f"{given[1]:.1f}s")
    assert chosen.optim.warmup_epochs / chosen.run.epochs == pytest.approx(5 / 103)


def test_a_run_keeps_its_budget_and_says_whether_learning_paid(videos, tmp_path):
    settings = TrainSettings(DataSettings(videos), tmp_path / "run", budget="20s", device="cpu", num_workers=0)
    result = train(settings)
    assert all((tmp_path / "run" / "distill" / name).exists() for name in ("pace.jsonl", "teacher/pace.jsonl"))
    assert load_processor(result.model, None).size == {"height": 72, "width": 72}
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(stored["comparison"]["baselines"]) == 3
    assert 0 <= stored["comparison"]["training_top1"] <= 1
    page = result.report.read_text()
    for part in ("Did learning pay?", "most frequent class", "curves of distill/teacher", "curves of distill"):
        assert part in page
    again = train(settings)
    assert again.evaluation.top1 == result.evaluation.top1


def test_the_verdict_is_that_of_the_figures():
    some = Comparison(0.99, [Baseline("a", 0.2), Baseline("b", 0.5)])
    assert "b does as well" in some.verdict(0.5)
    assert "by heart" in some.verdict(0.7)
    assert "about what it does" in some.verdict(0.9)
    assert some.pretraining_verdict() == ""
    little, much = (dataclasses.replace(some, pretraining_error=error) for error in (0.998, 0.4))
    assert "left 99.8% of the error" in little.describe()
    assert "hardly begun" in little.describe()
    assert much.describe().endswith("left 40.0% of the error of each hidden patch's mean colour")
