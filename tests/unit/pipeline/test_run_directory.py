"""A run that was stopped goes on as it began, or is refused."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from videomae.data.audit.check import check
from videomae.errors import CheckpointError
from videomae.pipeline import run
from videomae.pipeline.run import train
from videomae.pipeline.run_directory import Stopwatch, keep_plan, open_run_directory


def test_the_same_command_repeats_nothing(settings, result):
    before = (settings.out / "finetune" / "metrics.jsonl").read_text()
    again = train(settings)
    assert again.evaluation.top1 == result.evaluation.top1
    assert (settings.out / "finetune" / "metrics.jsonl").read_text() == before


def test_a_directory_of_another_run_is_refused(settings, result):
    with pytest.raises(CheckpointError, match="seed was 0, is 1"):
        train(dataclasses.replace(settings, seed=1))


def test_data_that_changed_are_refused(videos, settings, result):
    before = (settings.out / "manifest.csv").read_text()
    added = shutil.copy(videos / "moving_up" / "moving_up_001.mp4", videos / "moving_up" / "new.mp4")
    with pytest.raises(CheckpointError, match="the data changed: 39 videos were 38; name another --out"):
        train(settings)
    (videos / "moving_up" / "broken.mp4").rename(videos / "broken.mp4.aside")
    try:
        with pytest.raises(CheckpointError, match="38 videos were 38, with other names, labels, splits or groups"):
            train(settings)
    finally:
        (videos / "broken.mp4.aside").rename(videos / "moving_up" / "broken.mp4")
        Path(added).unlink()
    assert (settings.out / "manifest.csv").read_text() == before


def test_a_run_directory_may_be_moved_and_spelled_differently(settings, result, tmp_path, monkeypatch):
    shutil.copytree(settings.out, tmp_path / "some" / "moved")
    before = (settings.out / "finetune" / "metrics.jsonl").read_text()
    monkeypatch.chdir(tmp_path / "some")
    again = train(dataclasses.replace(settings, out=Path("moved")))
    assert again.evaluation.top1 == result.evaluation.top1
    assert Path("moved/finetune/metrics.jsonl").read_text() == before


def test_the_split_of_a_run_that_was_never_planned_is_made_anew(videos, settings, result, tmp_path, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    (out / "manifest.csv").write_text(f"path,label,split\n{videos}/x.mp4,other,train\n{videos}/y.mp4,data,test\n")
    monkeypatch.setattr(run, "make_plan", lambda *given: pytest.fail(",".join(given[1].classes)))
    with pytest.raises(pytest.fail.Exception, match="moving_up"):
        train(dataclasses.replace(settings, out=out))


def test_seconds_add_up_over_all_parts_of_a_run(tmp_path):
    first = Stopwatch(tmp_path)
    with first.time("check"):
        time.sleep(0.02)
    with contextlib.suppress(KeyboardInterrupt), first.time("pretrain"):
        (tmp_path / "pretrain").mkdir()
        (tmp_path / "pretrain" / "metrics.jsonl").write_text("")
        began = time.time()
        os.utime(tmp_path / "pretrain" / "metrics.jsonl", (began + 3600, began + 3600))  # killed after an hour
        raise KeyboardInterrupt
    second = Stopwatch(tmp_path)
    with second.time("check"):
        time.sleep(0.02)
    assert second.seconds["check"] >= 0.04
    with second.time("pretrain"):
        pass
    assert second.seconds["pretrain"] == pytest.approx(3600, abs=1)
    assert Stopwatch(tmp_path).seconds == second.seconds
    assert list(second.seconds) == ["check", "pretrain"]


def test_a_plan_of_a_version_with_other_names_is_gone_on_with(settings, result, tmp_path):
    """Which frames make a clip were three fields, and the data's settings stood beside the others."""
    stored = json.loads((settings.out / "plan.json").read_text())
    clips = stored["plan"].pop("clips")
    stored["plan"] |= {"sampling": clips["method"], "stride": clips["stride"], "fps": clips["fps"]}
    requested = stored.pop("requested")
    stored["asked"] = {name.removeprefix("data."): value for name, value in requested.items()}
    stored["asked"]["data"] = stored["asked"].pop("path")
    (tmp_path / "plan.json").write_text(json.dumps(stored))
    moved = dataclasses.replace(settings, out=tmp_path)
    open_run_directory(moved)
    assert keep_plan(moved, check(settings.data.path).manifest, pytest.fail) == result.plan
    with pytest.raises(CheckpointError, match=r"data\.fold was 1, is 2"):
        open_run_directory(dataclasses.replace(moved, data=dataclasses.replace(settings.data, fold=2)))
