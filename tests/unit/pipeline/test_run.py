"""One command from videos to a report: what it leaves behind."""

import dataclasses
import json
import shlex

import pytest

from videomae import VideoMAEForVideoClassification
from videomae.data.manifest import read_manifest
from videomae.data.settings import DataSettings
from videomae.pipeline import run
from videomae.pipeline.run import train
from videomae.pipeline.settings import TrainSettings, command_of


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


def test_official_lists_are_read_as_asked(videos, settings, tmp_path, monkeypatch):
    classes = ["moving_down", "moving_up"]
    (tmp_path / "classInd.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(classes)))
    for fold in (1, 2):
        for split, numbers in (("train", range(2 * fold)), ("test", range(4, 6))):
            rows = [f"{name}/{name}_{i:03}.mp4 {classes.index(name) + 1}\n" for name in classes for i in numbers]
            (tmp_path / f"{split}list0{fold}.txt").write_text("".join(rows))
    monkeypatch.setattr(run, "make_plan", lambda *given: pytest.fail(str(len(given[1].split("train")))))
    data = DataSettings(tmp_path, format="ucf101", videos=videos, fold=2)
    second = dataclasses.replace(settings, data=data, out=tmp_path / "run")
    with pytest.raises(pytest.fail.Exception, match="8"):
        train(second)
    assert f" --format ucf101 --videos {shlex.quote(str(videos))} --fold 2 " in command_of(second)
    assert command_of(second).endswith(" --num-workers 0 --device cpu")


def test_the_model_learns_from_copies_and_is_tested_on_the_videos(videos, tmp_path, slow_videos):
    options = {"preset": "nano", "pretrain_epochs": 2, "finetune_epochs": 1, "device": "cpu", "num_workers": 0}
    settings = TrainSettings(DataSettings(videos), tmp_path / "run", budget="60s", **options)
    result = train(settings)
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
    train(settings)
    assert some.exists()
