"""One command from videos to a report: what it decides, what it leaves behind, what it refuses."""

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.errors import CheckpointError, DataError
from videomae.tasks import train, train_plan
from videomae.tasks.check import CheckReport, check
from videomae.tasks.train import TrainSettings, command_of, parse_budget, split_for_training
from videomae.tasks.train_plan import Speed, make_plan, run_settings
from videomae.video.findings import Finding, Item
from videomae.video.inspect import VideoFacts
from videomae.video.manifest import Manifest, Sample, read_manifest
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
        videos, out, budget="5s", preset="tiny", pretrain_epochs=2, finetune_epochs=2, device="cpu", **SMALL
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
    lists = {"data": tmp_path, "format": "ucf101", "videos": videos, "out": tmp_path / "run"}
    with pytest.raises(pytest.fail.Exception, match="8"):
        train.train(dataclasses.replace(settings, **lists, fold=2))
    assert command_of(dataclasses.replace(settings, **lists, fold=2)).endswith(
        f"--format ucf101 --videos {shlex.quote(str(videos))} --fold 2 --num-workers 0 --device cpu"
    )


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
    monkeypatch.setattr(train_plan, "measure_speed", lambda device: Speed(1e9, overlaps=False))
    few = write_classes(tmp_path / "few", classes=3, per_class=12)
    report = check(few)
    plan = make_plan(TrainSettings(few, tmp_path), split_for_training(report, seed=0), report, 10, [])
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
    monkeypatch.setattr(train_plan, "measure_loading", lambda videos, settings: 1e-9)
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)

    def plan(*, budget=10.0, speed=1e12, **options):
        monkeypatch.setattr(train_plan, "measure_speed", lambda device: Speed(speed, overlaps=False))
        given = TrainSettings(videos, tmp_path / "run", batch_size=8, **options)
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
    assert reason(plan, "epochs of finetune").startswith("90% of the budget at")


def test_reasons_for_epochs_are_true(quick_plan):
    slow, _ = quick_plan(speed=1e6, preset="tiny")
    assert (slow.pretrain_epochs, slow.finetune_epochs) == (0, 2)
    assert reason(slow, "epochs of pretrain") == (
        "what fine-tuning leaves is enough for 0 clips; fewer than 64,000 do not help"
    )
    assert reason(slow, "epochs of finetune") == "at least 2, whatever the budget"
    fast, _ = quick_plan(speed=1e15, preset="tiny")
    assert (fast.pretrain_epochs, fast.finetune_epochs) == (1600, 200)
    assert "would be enough for" in reason(fast, "epochs of pretrain")
    assert reason(fast, "epochs of finetune") == "at most 200"
    given, _ = quick_plan(preset="tiny", pretrain_epochs=3, finetune_epochs=7, stride=2.0)
    assert {reason(given, what) for what in ("epochs of pretrain", "epochs of finetune", "stride")} == {"given"}


def test_a_given_checkpoint_is_finetuned_as_its_size_asks_for(quick_plan, tmp_path):
    """Base at 5e-4 for 256 videos and a layer decay of 0.75 (v1), on clips as it was trained on."""
    sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 64}
    config = VideoMAEConfig(**sizes, image_size=32, num_frames=4, clip_sampling="uniform", clip_stride=2.0)
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "checkpoint")
    plan, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"))
    assert (second.optim.lr, second.optim.layer_decay) == (5e-4 * 8 / 256, 0.75)
    assert (second.clips.sampling, second.clips.stride, second.clips.stride_jitter) == ("uniform", 2.0, 0.0)
    assert "pre-trained at scale" in reason(plan, "learning rate")
    assert reason(plan, "stride") == "as the checkpoint was trained"
    _, (_, second) = quick_plan(init=str(tmp_path / "checkpoint"), stride=3.0)
    assert (second.clips.sampling, second.clips.stride) == ("dense", 3.0)
    rate, decay, _ = train_plan.finetuning_rate(VideoMAEConfig.preset("tiny"), 16)
    assert (rate, decay) == (5e-4, None)


def test_dollar_signs_in_a_file_name_are_no_formula(tmp_path):
    import torch

    from videomae import VideoMAEConfig, VideoMAEForPreTraining
    from videomae.models.masking import tube_mask
    from videomae.tasks.reconstruct import draw, reconstruct

    model = VideoMAEForPreTraining(VideoMAEConfig.preset("tiny", image_size=16, patch_size=8, num_frames=4)).eval()
    mask = tube_mask(model.config.grid, 0.5, batch_size=1)
    draw(reconstruct(model, torch.zeros(1, 4, 3, 16, 16), mask), title="a$b_$.mp4").savefig(tmp_path / "a.png")


def test_a_larger_budget_buys_a_larger_model(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_speed", lambda device: Speed(1e13, overlaps=False))
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    sizes = []
    for budget in (0.1, 1e7):
        plan = make_plan(TrainSettings(videos, tmp_path, batch_size=8), manifest, report, budget, [])
        sizes.append((plan.model["preset"], plan.model["image_size"]))
    assert sizes == [("nano", 24), ("base", 224)]


def test_slow_decoding_leaves_fewer_epochs(videos, tmp_path, monkeypatch):
    """A model that trains 1,000 clips a second does not help where a second of decoding comes before each."""
    monkeypatch.setattr(train_plan, "measure_speed", lambda device: Speed(1e15, overlaps=False))
    monkeypatch.setattr(train_plan, "measure_copies", lambda videos, side, settings: None)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    epochs = []
    for seconds in (1e-6, 1.0):
        monkeypatch.setattr(train_plan, "measure_loading", lambda videos, settings, seconds=seconds: seconds)
        plan = make_plan(TrainSettings(videos, tmp_path, preset="tiny", batch_size=8), manifest, report, 1000, [])
        epochs.append((plan.pretrain_epochs, plan.finetune_epochs))
    assert epochs[0] == (1600, 200)
    assert epochs[1] == (0, pytest.approx(900 / len(manifest.split("train")), abs=1))


def test_a_gpu_trains_while_videos_are_decoded():
    assert Speed(1e9, overlaps=False).seconds(1e9, 0.5) == 1.5
    assert Speed(1e9, overlaps=True).seconds(1e9, 0.5) == 1.0


def test_small_copies_are_made_where_they_save_time(quick_plan, monkeypatch):
    made = []
    monkeypatch.setattr(train_plan, "measure_copies", lambda videos, side, settings: made.append(side) or (1e-3, 1e-3))
    for reading, side in ((1e-9, None), (1.1e-3, None), (0.1, 48)):
        monkeypatch.setattr(train_plan, "measure_loading", lambda videos, settings, reading=reading: reading)
        plan, _ = quick_plan(preset="nano", budget=1000)
        assert plan.copy_side == side
        assert [choice.what for choice in plan.choices].count("small copies") == (side is not None)
    assert made == [48, 48]


def test_copies_are_measured_on_videos_of_the_data(videos, tmp_path):
    manifest = split_for_training(check(videos, near_duplicates=False), seed=0).split("train")
    seconds_a_frame, reading = train_plan.measure_copies(manifest, 16, TrainSettings(videos, tmp_path, num_workers=0))
    assert 0 < seconds_a_frame < 1
    assert 0 < reading < 1


def test_pretraining_gets_what_finetuning_leaves_if_that_is_enough(quick_plan):
    plans = [quick_plan(budget=budget, preset="nano", speed=1e11)[0] for budget in (10, 100, 300, 10_000)]
    assert [plan.pretrain_epochs > 0 for plan in plans] == [False, False, False, True]
    assert [plan.finetune_epochs for plan in plans] == sorted(plan.finetune_epochs for plan in plans)
    assert plans[2].finetune_epochs == plans[3].finetune_epochs == 200


def test_nano_is_trained_as_its_recipes_say(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_speed", lambda device: Speed(1e13, overlaps=False))
    report = check(videos, near_duplicates=False)
    manifest = split_for_training(report, seed=0)
    given = TrainSettings(videos, tmp_path / "run", preset="nano", pretrain_epochs=4000, finetune_epochs=4000)
    plan = make_plan(given, manifest, report, 1000, [])
    manifest.to_csv(tmp_path / "manifest.csv")
    first, second = run_settings(given, plan, tmp_path / "manifest.csv")
    assert (first.mask.name, first.mask.ratio, first.model.norm_pix_loss) == ("random", 0.5, False)
    assert (first.run.batch_size, first.optim.lr, first.run.epochs, first.run.steps) == (4, 2e-3, 2000, None)
    assert first.clips.augmentations_per_clip == 2
    assert first.augment.mean == second.augment.mean == plan.mean
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


def test_the_model_learns_from_copies_and_is_tested_on_the_videos(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train_plan, "measure_loading", lambda videos, settings: 10.0)
    monkeypatch.setattr(train_plan, "measure_copies", lambda videos, side, settings: (1e-6, 1e-6))
    options = {"preset": "nano", "pretrain_epochs": 2, "finetune_epochs": 1, "device": "cpu", "num_workers": 0}
    settings = TrainSettings(videos, tmp_path / "run", budget="60s", **options)
    result = train.train(settings)
    assert result.plan.copy_side == 48
    assert "copy" in result.seconds
    manifest = read_manifest(tmp_path / "run" / "manifest.csv")
    learnt_from = read_manifest(tmp_path / "run" / "copies" / "manifest.csv")
    assert set(learnt_from.splits) == {"train", "val"}
    assert len(learnt_from.split("train")) == len(manifest.split("train"))
    tested = {row.path for row in manifest.split("test")}
    assert all(str(videos) in path for path in tested)
    assert result.evaluation.num_videos == len(tested)
    settings_of_run = (tmp_path / "run" / "finetune" / "settings.toml").read_text()
    assert "copies/manifest.csv" in settings_of_run


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("1.5h", 5400)])
def test_a_budget_is_read(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["45", "0m", "an hour", "-3h"])
def test_a_budget_without_sense_is_refused(text):
    with pytest.raises(ValueError, match="45m"):
        parse_budget(text)


def test_the_command_names_what_was_asked_for(tmp_path):
    command = command_of(TrainSettings(tmp_path / "a b", tmp_path / "run", budget="8h", pretrain=False))
    assert "'" in command
    assert command.endswith("--budget 8h --no-pretrain")


def test_measured_speed_is_a_rate():
    assert 1e6 < train_plan.measure_speed("cpu").flops < np.inf
    assert not train_plan.measure_speed("cpu").overlaps
