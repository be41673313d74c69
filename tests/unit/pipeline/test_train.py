"""One command from videos to a report: what it decides, what it leaves behind, what it refuses."""

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.data.audit.check import CheckReport, check
from videomae.data.audit.findings import Finding, Item
from videomae.data.audit.inspect import VideoFacts
from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.data.settings import DataSettings
from videomae.errors import CheckpointError, DataError, VideoError
from videomae.options import parse_duration
from videomae.pipeline import plan as train_plan
from videomae.pipeline import run as train
from videomae.pipeline.plan import make_plan, run_settings
from videomae.pipeline.run import TrainSettings, command_of, split_for_training
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader
from videomae.video.synthetic import write_motion_videos

SMALL = {"image_size": 32, "patch_size": 16, "num_frames": 4, "stride": 4.0, "batch_size": 8, "num_workers": 0}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "my videos"
    write_motion_videos(folder, per_class=6, num_frames=16, size=32)
    shutil.copy(folder / "moving_up" / "moving_up_000.mp4", folder / "moving_up" / "a copy.mp4")
    (folder / "moving_up" / "broken.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def settings(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    return TrainSettings(
        DataSettings(videos),
        out,
        budget="5s",
        preset="tiny",
        pretrain_epochs=2,
        finetune_epochs=2,
        device="cpu",
        **SMALL,
    )


@pytest.fixture(scope="module")
def result(settings):
    return train.train(settings)


def test_the_run_directory_holds_result_model_and_report(settings, result):
    stored = json.loads((settings.out / "result.json").read_text())
    assert {"top1", "top5", "mean_class_accuracy", "num_videos", "interval"} <= stored.keys()
    assert stored["num_videos"] == len(read_manifest(settings.out / "manifest.csv").split("test"))
    assert VideoMAEForVideoClassification.from_pretrained(result.model).config.num_labels == 6
    page = result.report.read_text()
    for part in ("Worst mistakes", "What pre-training learnt", "Faults of the data", "videomae train"):
        assert part in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_batch_that_does_not_fit_into_memory_is_taken_in_parts(monkeypatch):
    config = VideoMAEConfig.preset("tiny", image_size=64, num_frames=8)
    parts = []
    for free in (1.0, 2e8, 4e8, 1e15):
        monkeypatch.setattr(train_plan, "free_memory", lambda device, free=free: free)
        parts.append(train_plan.fitting_batch(config, 24, "cpu"))
    assert parts[0] == 1
    assert parts[-1] == 24
    assert parts == sorted(parts)
    assert len(set(parts)) > 2


def test_every_choice_has_a_reason(result):
    assert {choice.what for choice in result.plan.choices} >= {"videos", "model", "stride", "epochs of pretrain"}
    assert all(choice.reason for choice in result.plan.choices)


def test_the_same_command_repeats_nothing(settings, result):
    before = (settings.out / "finetune" / "metrics.jsonl").read_text()
    again = train.train(settings)
    assert again.evaluation.top1 == result.evaluation.top1
    assert (settings.out / "finetune" / "metrics.jsonl").read_text() == before


def test_a_directory_of_another_run_is_refused(settings, result):
    with pytest.raises(CheckpointError, match="seed was 0, is 1"):
        train.train(dataclasses.replace(settings, seed=1))


def test_data_that_changed_are_refused(videos, settings, result):
    before = (settings.out / "manifest.csv").read_text()
    added = shutil.copy(videos / "moving_up" / "moving_up_001.mp4", videos / "moving_up" / "new.mp4")
    with pytest.raises(CheckpointError, match="the data changed: 39 videos were 38; name another --out"):
        train.train(settings)
    (videos / "moving_up" / "broken.mp4").rename(videos / "broken.mp4.aside")
    try:
        with pytest.raises(CheckpointError, match="38 videos were 38, with other names, labels, splits or groups"):
            train.train(settings)
    finally:
        (videos / "broken.mp4.aside").rename(videos / "moving_up" / "broken.mp4")
        Path(added).unlink()
    assert (settings.out / "manifest.csv").read_text() == before


def test_a_run_directory_may_be_moved_and_spelled_differently(settings, result, tmp_path, monkeypatch):
    shutil.copytree(settings.out, tmp_path / "some" / "moved")
    before = (settings.out / "finetune" / "metrics.jsonl").read_text()
    monkeypatch.chdir(tmp_path / "some")
    again = train.train(dataclasses.replace(settings, out=Path("moved")))
    assert again.evaluation.top1 == result.evaluation.top1
    assert Path("moved/finetune/metrics.jsonl").read_text() == before


def test_seconds_add_up_over_all_parts_of_a_run(tmp_path):
    first = train._Stopwatch(tmp_path)
    with first.time("check"):
        time.sleep(0.02)
    with contextlib.suppress(KeyboardInterrupt), first.time("pretrain"):
        (tmp_path / "pretrain").mkdir()
        (tmp_path / "pretrain" / "metrics.jsonl").write_text("")
        began = time.time()
        os.utime(tmp_path / "pretrain" / "metrics.jsonl", (began + 3600, began + 3600))  # killed after an hour
        raise KeyboardInterrupt
    second = train._Stopwatch(tmp_path)
    with second.time("check"):
        time.sleep(0.02)
    assert second.seconds["check"] >= 0.04
    with second.time("pretrain"):
        pass
    assert second.seconds["pretrain"] == pytest.approx(3600, abs=1)
    assert train._Stopwatch(tmp_path).seconds == second.seconds
    assert list(second.seconds) == ["check", "pretrain"]


def test_official_lists_are_read_as_asked(videos, settings, tmp_path, monkeypatch):
    classes = ["moving_down", "moving_up"]
    (tmp_path / "classInd.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(classes)))
    for fold in (1, 2):
        for split, numbers in (("train", range(2 * fold)), ("test", range(4, 6))):
            rows = [f"{name}/{name}_{i:03}.mp4 {classes.index(name) + 1}\n" for name in classes for i in numbers]
            (tmp_path / f"{split}list0{fold}.txt").write_text("".join(rows))
    monkeypatch.setattr(train, "make_plan", lambda *given: pytest.fail(str(len(given[1].split("train")))))
    data = DataSettings(tmp_path, format="ucf101", videos=videos, fold=2)
    second = dataclasses.replace(settings, data=data, out=tmp_path / "run")
    with pytest.raises(pytest.fail.Exception, match="8"):
        train.train(second)
    assert f" --format ucf101 --videos {shlex.quote(str(videos))} --fold 2 " in command_of(second)
    assert command_of(second).endswith(" --num-workers 0 --device cpu")


def test_unreadable_videos_are_left_out_and_copies_stay_on_one_side(videos):
    for seed in range(5):
        manifest = split_for_training(check(videos), seed=seed)
        names = {sample.file.name: sample.split for sample in manifest}
        assert "broken.mp4" not in names
        assert names["a copy.mp4"] == names["moving_up_000.mp4"]
        assert set(manifest.splits) == {"train", "val", "test"}


def report_of(groups, *copies):
    """What `check` would say of one video per letter: its group, and which are copies of each other."""
    rows = [Sample(f"{name}.mp4", Path(f"{name}.mp4"), i % 2, group=group) for i, (name, group) in enumerate(groups)]
    items = tuple(Item(tuple(f"{name}.mp4" for name in names), "") for names in copies)
    findings = (Finding("near-duplicates", "warning", "", "", items),)
    facts = defaultdict(lambda: VideoFacts(Path(), num_frames=10))
    return CheckReport("", Manifest(tuple(rows), ("x", "y"), Path()), facts, findings)


@pytest.mark.parametrize(
    ("groups", "copies", "together"),
    [
        (dict.fromkeys("abcdefghijklmnopqrst"), ["ab", "cd", "bc"], ["abcd"]),
        (dict.fromkeys("abcdefghijklmnopqrst") | {"a": "one", "b": "two", "c": "two", "d": "one"}, ["ab"], ["abcd"]),
        (dict.fromkeys("abcdefghijklmnopqrst") | {"a": "one", "d": "one"}, ["ab", "de"], ["abde"]),
    ],
)
def test_whatever_copies_and_sources_connect_stays_on_one_side(groups, copies, together):
    for seed in range(8):
        manifest = split_for_training(report_of(groups.items(), *copies), seed=seed)
        side = {Path(sample.path).stem: sample.split for sample in manifest}
        for names in together:
            assert len({side[name] for name in names}) == 1
            assert len({sample.group for sample in manifest if Path(sample.path).stem in names}) == 1
        assert len(set(side.values())) == 3


def test_a_split_without_test_videos_is_refused(videos, tmp_path):
    rows = [f"{file},{file.parent.name},train" for file in videos.rglob("moving_*_000.mp4")]
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(DataError, match="needs 'train' and 'test'"):
        split_for_training(check(tmp_path / "data.csv"), seed=0)


def write_classes(folder, *, classes, per_class):
    names = [f"class_{i}" for i in range(classes)]
    for i, file in enumerate(
        write_motion_videos(folder, per_class=-(-classes * per_class // 6), num_frames=8, size=16)
    ):
        if i < classes * per_class:
            (folder / names[i % classes]).mkdir(exist_ok=True)
            file.rename(folder / names[i % classes] / f"{i}.mp4")
        else:
            file.unlink()
    return folder


@pytest.mark.parametrize(("classes", "per_class"), [(2, 3), (2, 4), (10, 3), (3, 2)])
def test_a_few_videos_a_class_are_split_without_validation(tmp_path, classes, per_class):
    manifest = split_for_training(check(write_classes(tmp_path / "few", classes=classes, per_class=per_class)), seed=0)
    assert set(manifest.splits) == {"train", "test"}
    assert {sample.label for sample in manifest.split("train")} == set(range(classes))


def test_one_class_is_refused_at_the_start(tmp_path):
    with pytest.raises(DataError, match="all of one class"):
        split_for_training(check(write_classes(tmp_path / "one", classes=1, per_class=6)), seed=0)


def test_data_of_which_nothing_can_be_read_is_refused_at_the_start(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"none of the 1 videos can be read, such as 'a/x.mp4': .*must be a video file"):
        split_for_training(check(tmp_path), seed=0)


def test_videos_without_a_split_beside_others_are_refused(videos, tmp_path):
    files = sorted(videos.rglob("moving_*_00?.mp4"))
    rows = [f"{file},{file.parent.name},{('train', 'test', '')[i % 3]}" for i, file in enumerate(files)]
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(DataError, match="videos have no split"):
        split_for_training(check(tmp_path / "data.csv"), seed=0)


def test_the_batch_fits_the_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_speed", lambda config, device: 1e9)
    few = write_classes(tmp_path / "few", classes=3, per_class=12)
    report = check(few)
    plan = make_plan(TrainSettings(DataSettings(few), tmp_path), split_for_training(report, seed=0), report, 10, [])
    assert plan.batch_size == 25 // 4


def test_the_split_of_a_run_that_was_never_planned_is_made_anew(videos, settings, result, tmp_path, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    (out / "manifest.csv").write_text(f"path,label,split\n{videos}/x.mp4,other,train\n{videos}/y.mp4,data,test\n")
    monkeypatch.setattr(train, "make_plan", lambda *given: pytest.fail(",".join(given[1].classes)))
    with pytest.raises(pytest.fail.Exception, match="moving_up"):
        train.train(dataclasses.replace(settings, out=out))


def test_what_would_be_ignored_is_refused(settings, tmp_path, monkeypatch):
    own = dataclasses.replace(settings, out=tmp_path / "run")
    with pytest.raises(ValueError, match="leave out --preset, --image-size"):
        train.train(dataclasses.replace(own, init="somewhere"))
    with pytest.raises(ValueError, match="--pretrain-epochs goes with neither"):
        train.train(dataclasses.replace(own, pretrain=False))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        train.train(own)
    assert not own.out.exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"finetune_epochs": 0}, "--finetune-epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"pretrain_epochs": -1}, "--pretrain-epochs must be at least 0, got -1"),
        ({"stride": 0.0}, "--stride must be above 0, got 0"),
        ({"num_workers": -2}, "--num-workers must be at least 0, got -2"),
    ],
)
def test_numbers_without_sense_are_refused_before_anything_is_written(settings, tmp_path, option, told):
    with pytest.raises(ValueError, match=told):
        train.train(dataclasses.replace(settings, out=tmp_path / "run", **option))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def quick_plan(videos, tmp_path, monkeypatch):
    """Plans for the videos, on a machine of a given speed."""
    monkeypatch.setattr(train_plan, "measure_reading", lambda videos, settings, config: 1e-9)
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)

    def plan(*, budget=10.0, speed=1e12, **options):
        monkeypatch.setattr(train_plan, "measure_speed", lambda config, device: speed)
        given = TrainSettings(DataSettings(videos), tmp_path / "run", batch_size=8, **options)
        made = make_plan(given, manifest, report, budget, [])
        manifest.to_csv(tmp_path / "manifest.csv")
        return made, run_settings(given, made, tmp_path / "manifest.csv")

    return plan


def reason(plan, what):
    return next(choice.reason for choice in plan.choices if choice.what == what)


def test_no_epochs_of_pretraining_means_none(quick_plan):
    plan, (first, second) = quick_plan(pretrain_epochs=0, preset="tiny")
    assert plan.pretrain_epochs == 0
    assert first is None
    assert second.model.preset == "tiny"
    assert reason(plan, "epochs of finetune").startswith("what the budget is enough for")


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


def test_a_given_checkpoint_is_finetuned_as_its_size_asks_for(quick_plan, tmp_path):
    """Base at 5e-4 for 256 videos and a layer decay of 0.75 (v1), on clips as it was trained on."""
    sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 64}
    config = VideoMAEConfig(**sizes, image_size=32, num_frames=4, clip_sampling="uniform", clip_stride=2.0)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "checkpoint")
    plan, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"))
    assert (second.optim.lr, second.optim.layer_decay) == (5e-4 * 8 / 256, 0.75)
    assert (second.clips.method, second.clips.stride, second.clips.jitter) == ("uniform", 2.0, 0.0)
    assert "pre-trained at scale" in reason(plan, "learning rate")
    assert reason(plan, "stride") == "as the checkpoint was trained"
    _, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"), stride=3.0)
    assert (second.clips.method, second.clips.stride) == ("dense", 3.0)
    rate, decay, _ = train_plan.finetuning_rate(VideoMAEConfig.preset("tiny"), 16)
    assert (rate, decay) == (5e-4, None)


def test_dollar_signs_in_a_file_name_are_no_formula(tmp_path):
    import torch

    from videomae import VideoMAEConfig, VideoMAEForPreTraining
    from videomae.inference.reconstruct import reconstruct
    from videomae.models.masking import tube_mask
    from videomae.plots.reconstruction import draw

    model = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", image_size=16, patch_size=8, num_frames=4)).eval()
    mask = tube_mask(model.config.grid, 0.5, batch_size=1)
    draw(reconstruct(model, torch.zeros(1, 4, 3, 16, 16), mask), title="a$b_$.mp4").savefig(tmp_path / "a.png")


def test_a_larger_budget_buys_a_larger_model(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_speed", lambda config, device: 1e13)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    sizes = []
    for budget in (0.1, 1e7):
        plan = make_plan(TrainSettings(DataSettings(videos), tmp_path, batch_size=8), manifest, report, budget, [])
        sizes.append((plan.model["preset"], plan.model["image_size"]))
    assert sizes == [("nano", 48), ("base", 224)]


def test_slow_decoding_leaves_fewer_epochs(videos, tmp_path, monkeypatch):
    """A model that trains 1,000 clips a second does not help where a second of decoding comes before each."""
    monkeypatch.setattr(train_plan, "measure_speed", lambda config, device: 1e15)
    monkeypatch.setattr(train_plan, "measure_copies", lambda videos, side, folder: None)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    epochs = []
    for seconds in (1e-6, 1.0):
        monkeypatch.setattr(train_plan, "measure_reading", lambda *given, seconds=seconds: seconds)
        plan = make_plan(
            TrainSettings(DataSettings(videos), tmp_path, preset="tiny", batch_size=8), manifest, report, 1000, []
        )
        epochs.append((plan.pretrain_epochs, plan.finetune_epochs))
    assert epochs[0] == (1600, 200)
    assert epochs[1] == (0, pytest.approx(900 / len(manifest.split("train")), abs=1))


def read_slowly(videos, settings, config):
    """Take long for videos as they are, and little for copies."""
    return 1e-3 if str(videos.samples[0].file).startswith(tempfile.gettempdir() + "/tmp") else 0.1


def test_a_gpu_trains_while_videos_are_decoded(quick_plan, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_reading", lambda *given: 0.5)
    options = {"preset": "nano", "speed": 1e8, "finetune_epochs": 1, "pretrain": False}
    told = []
    for beside in (False, True):
        monkeypatch.setattr(train_plan, "decodes_beside", lambda settings, beside=beside: beside)
        plan, _ = quick_plan(**options)
        told.append(next(choice.value for choice in plan.choices if choice.what == "fine-tuning"))
    flops = train_plan._flops(VideoMAEConfig.preset("nano", image_size=24, num_frames=16, tubelet_size=4))[1]
    assert [float(text.split()[0]) for text in told] == [
        pytest.approx(1 / (flops / 1e8 + 0.5), rel=0.01), pytest.approx(1 / (flops / 1e8), rel=0.01),
    ]  # fmt: skip


def test_small_copies_are_made_where_they_save_time(quick_plan, monkeypatch):
    tried = []

    def copies(videos, side, folder):
        tried.append(side)
        return 1e-3, videos.split("train")

    monkeypatch.setattr(train_plan, "measure_copies", copies)
    for of_videos, of_copies, side in ((1e-9, 1e-9, None), (4e-3, 3.5e-3, None), (0.1, 1e-3, 72)):
        readings = iter((of_videos, of_copies))
        monkeypatch.setattr(train_plan, "measure_reading", lambda *given, readings=readings: next(readings))
        plan, _ = quick_plan(preset="nano", budget=1000)
        assert plan.copy_side == side
        assert [choice.what for choice in plan.choices].count("small copies") == (side is not None)
    assert tried == [72, 72]


def test_copies_of_some_frames_tell_what_copying_takes(videos, tmp_path):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0).split("train")
    seconds_a_frame, copies = train_plan.measure_copies(manifest, 16, tmp_path)
    assert len(copies) == train_plan.COPIED_VIDEOS
    with VideoReader(copies.samples[0].file) as reader:
        assert (reader.height, len(reader)) == (16, 16)
    assert seconds_a_frame < 1
    config = VideoMAEConfig.preset("nano", image_size=24, num_frames=4, tubelet_size=4)
    one, four = (
        train_plan.measure_reading(copies, TrainSettings(DataSettings(videos), tmp_path, num_workers=workers), config)
        for workers in (1, 40)
    )
    assert one > 4 * four  # forty processes share the work


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"finetune_epochs": 300},
        {"finetune_epochs": 300, "pretrain": False},
        {"pretrain_epochs": 300},
        {"pretrain_epochs": 3, "finetune_epochs": 3},
        {"preset": "nano"},
        {"preset": "tiny", "pretrain": False},
        {"patch_size": 16},
        {"num_frames": 10},
        {"image_size": 112},
    ],
)
@pytest.mark.parametrize("budget", [1.0, 60.0, 3600.0])
def test_what_is_planned_fits_the_budget_or_says_otherwise(quick_plan, monkeypatch, options, budget):
    spent = []
    spend = train_plan._Account.spend
    monkeypatch.setattr(
        train_plan._Account, "spend", lambda account, config: spent.append(spend(account, config)) or spent[-1]
    )
    plan, _ = quick_plan(budget=budget, speed=1e11, **options)
    chosen = next(
        each for each in spent if (each.finetune, each.pretrain) == (plan.finetune_epochs, plan.pretrain_epochs)
    )
    if chosen.left < 0:
        assert reason(plan, "epochs of finetune") in ("given", "at least 2, whatever the budget")
        assert "the largest" not in reason(plan, "model")
    for name in ("finetune_epochs", "pretrain_epochs"):
        assert getattr(plan, name) == options.get(name, getattr(plan, name))


def test_given_epochs_are_taken_from_the_budget(quick_plan):
    alone, _ = quick_plan(budget=100, preset="nano", speed=1e11, pretrain=False)
    beside, _ = quick_plan(budget=100, preset="nano", speed=1e11, pretrain_epochs=400)
    assert beside.finetune_epochs < alone.finetune_epochs == 200


@pytest.mark.parametrize("options", [{"image_size": 53}, {"patch_size": 23}, {"num_frames": 15}])
def test_sizes_that_do_not_go_together_are_refused_before_anything_is_written(videos, tmp_path, options):
    with pytest.raises(ValueError, match="divisible"):
        train.train(TrainSettings(DataSettings(videos), tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_frame_size_of_its_own_keeps_the_rest_of_its_preset(videos, tmp_path):
    for side, patch in ((24, 4), (32, 4), (48, 8), (60, 10)):
        settings = TrainSettings(DataSettings(videos), tmp_path, preset="nano", image_size=side)
        assert train_plan.candidate_sizes(settings) == [("nano", side, patch, 16, 4)]
    sizes = train_plan.candidate_sizes(TrainSettings(DataSettings(videos), tmp_path, num_frames=10))
    assert {preset for preset, *_ in sizes} == {"tiny", "small", "base"}


def test_a_run_directory_inside_the_data_is_refused(videos):
    with pytest.raises(ValueError, match="name a folder outside"):
        train.train(TrainSettings(DataSettings(videos), videos / "run"))
    assert not (videos / "run").exists()


def test_the_stride_is_that_of_the_stretches(quick_plan, videos, tmp_path):
    file = next(videos.rglob("moving_up_001.mp4"))
    rows = [f"{file},{'ab'[start % 2]},{start / 100:.2f},{start / 100 + 0.2:.2f}" for start in range(20, 60, 5)]
    (tmp_path / "parts.csv").write_text("path,label,start,end\n" + "\n".join(rows))
    report = check(tmp_path / "parts.csv", near_duplicates=False)
    lengths = train_plan._lengths(report.manifest, report)
    with VideoReader(file) as reader:
        assert len(reader) == 16
    assert len(lengths) == len(rows)
    assert set(lengths) == {3, 4}  # of a fifth of a second at 16 frames per second


def test_a_constant_channel_is_not_blown_up(tmp_path):
    write_video(tmp_path / "grey.mp4", np.full((8, 32, 32, 3), 77, np.uint8))
    _, std = train_plan.measure_pixels(read_manifest(tmp_path))
    assert std == (train_plan.SMALLEST_DEVIATION,) * 3


def test_pretraining_gets_what_finetuning_leaves_if_that_is_enough(quick_plan):
    plans = [quick_plan(budget=budget, preset="nano", speed=1e11)[0] for budget in (10, 100, 300, 10_000)]
    assert [plan.pretrain_epochs > 0 for plan in plans] == [False, False, False, True]
    assert [plan.finetune_epochs for plan in plans] == sorted(plan.finetune_epochs for plan in plans)
    assert plans[2].finetune_epochs == plans[3].finetune_epochs == 200


def test_nano_is_trained_as_its_recipes_say(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_speed", lambda config, device: 1e13)
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)
    given = TrainSettings(
        DataSettings(videos), tmp_path / "run", preset="nano", pretrain_epochs=4000, finetune_epochs=4000
    )
    plan = make_plan(given, manifest, report, 1000, [])
    manifest.to_csv(tmp_path / "manifest.csv")
    first, second = run_settings(given, plan, tmp_path / "manifest.csv")
    assert (first.mask.name, first.mask.ratio, first.model.norm_pix_loss) == ("random", 0.5, False)
    assert (first.run.batch_size, first.optim.lr, first.run.epochs, first.run.steps) == (4, 2e-3, 2000, None)
    assert first.loader.augmentations_per_clip == 2
    assert first.augment.mean == second.augment.mean == plan.mean
    assert plan.mean == train_plan.measure_pixels(manifest.split("train"))[0]
    assert second.augment.area == (0.64, 1.0)
    assert second.run.batch_size == len(manifest.split("train")) // 4
    assert second.optim.lr == pytest.approx(1e-3 * (second.run.batch_size / 16) ** 0.5)


def test_the_input_is_normalised_by_the_videos_own_pixels(videos):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0).split("train")
    mean, std = train_plan.measure_pixels(manifest)
    frames = []
    for sample in manifest:
        with VideoReader(sample.file) as reader:
            frames.append(reader.frames_at(range(len(reader))) / 255)
    whole = np.concatenate(frames)
    assert mean == pytest.approx(whole.mean(axis=(0, 1, 2)), abs=0.02)
    assert std == pytest.approx(whole.std(axis=(0, 1, 2)), abs=0.02)


@pytest.fixture
def slow_videos(monkeypatch):
    """Videos that are worth to be copied."""
    monkeypatch.setattr(train_plan, "measure_reading", read_slowly)
    monkeypatch.setattr(train_plan, "COPY_START", 0.0)


def test_the_model_learns_from_copies_and_is_tested_on_the_videos(videos, tmp_path, slow_videos):
    options = {"preset": "nano", "pretrain_epochs": 2, "finetune_epochs": 1, "device": "cpu", "num_workers": 0}
    settings = TrainSettings(DataSettings(videos), tmp_path / "run", budget="60s", **options)
    result = train.train(settings)
    assert result.plan.copy_side == 72
    assert "copy" in result.seconds
    manifest = read_manifest(tmp_path / "run" / "manifest.csv")
    learnt_from = read_manifest(tmp_path / "run" / "training.csv")
    assert learnt_from.classes == manifest.classes
    for video, copy in zip(manifest, learnt_from, strict=True):
        assert (copy.label, copy.split) == (video.label, video.split)
        is_copy = copy.file.is_relative_to(tmp_path / "run" / "copies")
        assert is_copy == (video.split != "test")
        assert video.file.is_relative_to(videos.resolve())
    assert result.evaluation.num_videos == len(manifest.split("test"))
    assert "training.csv" in (tmp_path / "run" / "finetune" / "settings.toml").read_text()
    some = learnt_from.split("train").samples[0].file
    some.unlink()  # as if it had been killed before
    (tmp_path / "run" / "copies" / "moving_up").mkdir(exist_ok=True)
    train.train(settings)
    assert some.exists()


def test_what_cannot_be_copied_is_learnt_from_as_it_is(videos, tmp_path, monkeypatch, slow_videos):
    from videomae.data import copies as prepare

    encode = prepare._encode
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)
    refused = manifest.split("train").samples[0]
    monkeypatch.setattr(prepare, "_pool", lambda workers: contextlib.nullcontext(ThreadPoolExecutor(1)))

    def encode_others(job, file, **options):
        if job.source == refused.file:
            raise VideoError("is damaged at frame 3")
        return encode(job, file, **options)

    monkeypatch.setattr(prepare, "_encode", encode_others)
    told = []
    settings = TrainSettings(DataSettings(videos), tmp_path)
    listed = train._copy_videos(settings, dataclasses.replace(manifest, root=tmp_path), 16, told.append)
    learnt_from = read_manifest(listed)
    assert [a.file for a in learnt_from.split("train") if not a.file.is_relative_to(tmp_path)] == [refused.file]
    assert "damaged at frame 3" in told[0]


def test_a_class_that_only_the_test_videos_have_is_kept_with_copies(videos, tmp_path, slow_videos):
    files = sorted(videos.rglob("moving_*_00?.mp4"))
    rows = [f"{file},{file.parent.name},{'test' if 'left' in file.name else 'train'}" for file in files]
    rows.append(f"{videos}/moving_up/a copy.mp4,moving_up,test")
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    manifest = split_for_training(check(tmp_path / "data.csv", near_duplicates=False), seed=0)
    listed = train._copy_videos(TrainSettings(DataSettings(videos), tmp_path), manifest, 16, print)
    assert read_manifest(listed).classes == manifest.classes
    assert "moving_left" not in {video.file.parent.name for video in read_manifest(listed).split("train")}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert parse_duration(text, name="--budget") == seconds


@pytest.mark.parametrize("text", ["45", "0m", "an hour", "-3h"])
def test_a_budget_without_sense_is_refused(text):
    with pytest.raises(ValueError, match="45m"):
        parse_duration(text, name="--budget")


def test_the_command_names_what_was_asked_for(tmp_path):
    command = command_of(TrainSettings(DataSettings(tmp_path / "a b"), tmp_path / "run", budget="8h", pretrain=False))
    assert "'" in command
    assert command.endswith("--budget 8h --no-pretrain")


def test_measured_speed_is_a_rate():
    config = VideoMAEConfig.preset("nano", image_size=24, num_frames=16, tubelet_size=4)
    assert 1e8 < train_plan.measure_speed(config, "cpu") < 1e13
