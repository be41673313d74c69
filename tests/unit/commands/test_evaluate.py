import csv
import dataclasses
import json
import sys

import numpy as np
import pytest

from classifiers import NUM_TEST_VIDEOS, save_motions
from support import run_two_ranks
from videomae.commands.evaluate import EvaluateSettings, main, run
from videomae.data.settings import DataSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return save_motions(tmp_path_factory.mktemp("evaluate"))


def settings(place, **options):
    return EvaluateSettings(
        DataSettings(place / "videos"), **{"model": str(place / "model"), "device": "cpu", "workers": 0} | options
    )


def table(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_the_json_object_holds_the_figures_and_how_they_came_about(place, capsys):
    assert main(settings(place, json=True, views="2x3", stride=2.0)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_videos"] == NUM_TEST_VIDEOS
    assert result["interval"][0] <= result["top1"] <= result["interval"][1]
    assert {"top5", "mean_class_accuracy", "ece", "per_class", "published_top1_percent"} <= result.keys()
    assert tuple(result["protocol"][name] for name in ("num_clips", "num_crops", "stride")) == (2, 3, 2.0)
    assert (result["split"], result["model"]) == ("test", str(place / "model"))


def test_tables_name_classes_departures_and_files(place, tmp_path, capsys):
    assert main(settings(place, protocol="ssv2", out=tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert "turning_counterclockwise" in shown
    assert "not the published protocol: frame size is (32, 32), published (224, 224)" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json", "predictions.csv", "confusion.csv", "confusion.png"
    }  # fmt: skip
    rows = table(tmp_path / "out" / "predictions.csv")
    assert len({row[0] for row in rows[1:]}) == NUM_TEST_VIDEOS


def test_a_bad_file_that_counts_as_wrong_shows_in_the_exit_code(place, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    good = place / "videos" / "moving_left" / "0.mp4"
    (tmp_path / "list.csv").write_text(f"path,label\n{good},moving_left\nbad.mp4,moving_up\n")
    options = {
        "split": "all",
        "allow_missing_classes": True,
        "on_bad": "wrong",
        "data": DataSettings(tmp_path / "list.csv"),
    }
    assert main(dataclasses.replace(settings(place), **options)) == 1
    assert "counted as wrong: bad.mp4" in capsys.readouterr().out


def test_two_processes_give_the_figures_of_one(place, tmp_path):
    """13 videos on 2 processes: a sampler that pads would count one twice."""
    command = [
        sys.executable, "-c",
        "import sys, tyro; from videomae.commands.evaluate import *; "
        "sys.exit(main(tyro.cli(EvaluateSettings, args=sys.argv[1:])))",
        str(place / "videos"), "--model", str(place / "model"), "--device", "cpu", "--workers", "0", "--json",
        "--views", "2x3", "--out", str(tmp_path / "two"),
    ]  # fmt: skip
    codes, (first, second), errors = run_two_ranks(command)
    assert codes == [0, 0], errors
    assert second == ""
    two = json.loads(first)
    one = run(settings(place, views="2x3", out=tmp_path / "one")).to_dict()
    assert two["processes"] == 2
    for name in ("top1", "top5", "mean_class_accuracy", "num_videos", "interval", "per_class", "accuracy_by_views"):
        assert two[name] == one[name]
    tables = [table(tmp_path / name / "predictions.csv") for name in ("one", "two")]
    assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]
    scores = [np.array([row[4:] for row in table[1:]], float) for table in tables]
    np.testing.assert_allclose(*scores, atol=1e-6)
