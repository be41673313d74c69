"""Plans fit the budget and the videos, and give their reasons."""

import pytest

from trained import reason, write_classes
from videomae.data.audit.check import check
from videomae.data.settings import DataSettings
from videomae.pipeline import measure
from videomae.pipeline.budget import BudgetPlanner
from videomae.pipeline.plan import frame_counts, make_plan
from videomae.pipeline.settings import TrainSettings
from videomae.pipeline.sizes import candidate_sizes
from videomae.pipeline.split import split_for_training
from videomae.video.reader import VideoReader


def test_the_batch_fits_the_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: 1e9)
    few = write_classes(tmp_path / "few", classes=3, per_class=12)
    report = check(few)
    plan = make_plan(
        TrainSettings(DataSettings(few), tmp_path, method="pretrain"), split_for_training(report, seed=0), report, 10
    )
    assert plan.batch_size == 25 // 4


def test_reasons_for_epochs_are_true(quick_plan):
    slow, _ = quick_plan(speed=1e6, preset="tiny")
    assert (slow.pretrain_epochs, slow.finetune_epochs) == (0, 2)
    assert reason(slow, "epochs of pretrain") == (
        "what fine-tuning leaves is enough for 0; fewer than 1600 do not help"
    )
    assert reason(slow, "epochs of finetune") == "at least 2, whatever the budget"
    fast, _ = quick_plan(speed=1e15, preset="tiny")
    assert (fast.pretrain_epochs, fast.finetune_epochs) == (1600, 200)
    assert "would be enough for" in reason(fast, "epochs of pretrain")
    assert reason(fast, "epochs of finetune").startswith("for ")
    given, _ = quick_plan(preset="tiny", pretrain_epochs=3, finetune_epochs=7, stride=2.0)
    assert {reason(given, what) for what in ("epochs of pretrain", "epochs of finetune", "stride")} == {"given"}


def test_a_larger_budget_buys_a_larger_model(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: 1e13)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    sizes = []
    for budget in (0.1, 1e7):
        plan = make_plan(
            TrainSettings(DataSettings(videos), tmp_path, batch_size=8, method="pretrain"), manifest, report, budget
        )
        sizes.append((plan.model["preset"], plan.model["image_size"]))
    assert sizes == [("nano", 48), ("base", 224)]


def test_slow_decoding_leaves_fewer_epochs(videos, tmp_path, monkeypatch):
    """A model that trains 1,000 clips a second does not help where a second of decoding comes before each."""
    monkeypatch.setattr(measure, "training_speed", lambda config, cost, device: 1e15)
    monkeypatch.setattr(measure, "small_copies", lambda videos, side, folder: None)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    epochs = []
    for seconds in (1e-6, 1.0):
        monkeypatch.setattr(measure, "reading_seconds", lambda *given, seconds=seconds: seconds)
        plan = make_plan(
            TrainSettings(DataSettings(videos), tmp_path, preset="tiny", batch_size=8), manifest, report, 1000
        )
        epochs.append((plan.pretrain_epochs, plan.finetune_epochs))
    assert epochs[0] == (1600, 200)
    assert epochs[1] == (0, pytest.approx(900 / len(manifest.split("train")), abs=1))


def test_a_gpu_trains_while_videos_are_decoded(quick_plan, monkeypatch):
    monkeypatch.setattr(measure, "reading_seconds", lambda *given: 0.5)
    options = {"preset": "nano", "speed": 1e8, "finetune_epochs": 1, "method": "finetune"}
    told = []
    for beside in (False, True):
        monkeypatch.setattr(measure, "decodes_beside", lambda device, workers, beside=beside: beside)
        plan, _ = quick_plan(**options)
        told.append(next(choice.value for choice in plan.choices if choice.what == "fine-tuning"))
    (size,) = candidate_sizes(preset="nano")
    flops = measure.finetuning_cost(size.config).training_flops
    assert [float(text.split()[0]) for text in told] == [
        pytest.approx(1 / (flops / 1e8 + 0.5), rel=0.01), pytest.approx(1 / (flops / 1e8), rel=0.01),
    ]  # fmt: skip


def test_small_copies_are_made_where_they_save_time(quick_plan, monkeypatch):
    tried = []

    def copies(videos, side, folder):
        tried.append(side)
        return 1e-3, videos.split("train")

    monkeypatch.setattr(measure, "small_copies", copies)
    for of_videos, of_copies, side in ((1e-9, 1e-9, None), (4e-3, 3.5e-3, None), (0.1, 1e-3, 72)):
        readings = iter((of_videos, of_copies))
        monkeypatch.setattr(measure, "reading_seconds", lambda *given, readings=readings: next(readings))
        plan, _ = quick_plan(preset="nano", budget=1000)
        assert plan.copy_side == side
        assert [choice.what for choice in plan.choices].count("small copies") == (side is not None)
    assert tried == [72, 72]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "pretrain"},
        {"finetune_epochs": 300},
        {"finetune_epochs": 300, "method": "finetune"},
        {"pretrain_epochs": 300},
        {"pretrain_epochs": 3, "finetune_epochs": 3},
        {"preset": "nano"},
        {"preset": "tiny", "method": "finetune"},
        {"patch_size": 16},
        {"num_frames": 10},
        {"image_size": 112},
    ],
)
@pytest.mark.parametrize("budget", [1.0, 60.0, 3600.0])
def test_what_is_planned_fits_the_budget_or_says_otherwise(quick_plan, monkeypatch, options, budget):
    allocated, allocate = [], BudgetPlanner.allocate

    def noted(planner, config, recipes):
        allocated.append(allocate(planner, config, recipes))
        return allocated[-1]

    monkeypatch.setattr(BudgetPlanner, "allocate", noted)
    plan, _ = quick_plan(budget=budget, speed=1e11, **options)
    chosen = next(
        each for each in allocated if (each.finetune, each.pretrain) == (plan.finetune_epochs, plan.pretrain_epochs)
    )
    if chosen.left < 0:
        assert reason(plan, "epochs of finetune") in ("given", "at least 2, whatever the budget")
        assert "the largest" not in reason(plan, "model")
    for name in ("finetune_epochs", "pretrain_epochs"):
        assert getattr(plan, name) == options.get(name, getattr(plan, name))


def test_given_epochs_are_taken_from_the_budget(quick_plan):
    alone, _ = quick_plan(budget=100, preset="nano", speed=1e11, method="finetune")
    beside, _ = quick_plan(budget=100, preset="nano", speed=1e11, pretrain_epochs=400)
    assert beside.finetune_epochs < alone.finetune_epochs == 200


def test_the_stride_is_that_of_the_stretches(quick_plan, videos, tmp_path):
    file = next(videos.rglob("moving_up_001.mp4"))
    rows = [f"{file},{'ab'[start % 2]},{start / 100:.2f},{start / 100 + 0.2:.2f}" for start in range(20, 60, 5)]
    (tmp_path / "parts.csv").write_text("path,label,start,end\n" + "\n".join(rows))
    report = check(tmp_path / "parts.csv", near_duplicates=False)
    lengths = frame_counts(report.manifest, report)
    with VideoReader(file) as reader:
        assert len(reader) == 16
    assert len(lengths) == len(rows)
    assert set(lengths) == {3, 4}  # of a fifth of a second at 16 frames per second


def test_pretraining_gets_what_finetuning_leaves_if_that_is_enough(quick_plan):
    plans = [quick_plan(budget=budget, preset="nano", speed=1e11)[0] for budget in (10, 100, 300, 10_000)]
    assert [plan.pretrain_epochs > 0 for plan in plans] == [False, False, False, True]
    assert [plan.finetune_epochs for plan in plans] == sorted(plan.finetune_epochs for plan in plans)
    assert plans[2].finetune_epochs == plans[3].finetune_epochs == 200
