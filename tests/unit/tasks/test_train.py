"""One command from videos to a report: what it decides, what it leaves behind, what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from videomae import VideoMAEForVideoClassification
from videomae.errors import CheckpointError, DataError
from videomae.tasks import train
from videomae.tasks.check import check
from videomae.tasks.train import TrainSettings, command_of, parse_budget, split_for_training
from videomae.video.manifest import read_manifest
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


def test_unreadable_videos_are_left_out_and_copies_stay_on_one_side(videos):
    for seed in range(5):
        manifest = split_for_training(check(videos), seed=seed)
        names = {sample.file.name: sample.split for sample in manifest}
        assert "broken.mp4" not in names
        assert names["a copy.mp4"] == names["moving_up_000.mp4"]
        assert set(manifest.splits) == {"train", "val", "test"}


def test_a_split_without_test_videos_is_refused(videos, tmp_path):
    rows = [f"{file},moving_up,train" for file in videos.rglob("moving_up_*.mp4")]
    (tmp_path / "data.csv").write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(DataError, match="needs 'train' and 'test'"):
        split_for_training(check(tmp_path / "data.csv"), seed=0)


def test_a_larger_budget_buys_a_larger_model(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "measure_speed", lambda device: 1e13)
    report = check(videos)
    manifest = split_for_training(report, seed=0)
    sizes = []
    for budget in (0.1, 1e7):
        plan = train.make_plan(TrainSettings(videos, tmp_path, batch_size=8), manifest, report, budget, [])
        sizes.append((plan.model["preset"], plan.model["image_size"]))
    assert sizes == [("tiny", 64), ("base", 224)]


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
    assert np.isfinite(train.measure_speed("cpu"))
    assert train.measure_speed("cpu") > 1e6
