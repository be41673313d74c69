"""``videomae probe``: labels from a manifest, and what it prints."""

import json

import pytest

from feature_folders import LOST, write_labelled
from videomae.cli import run as videomae
from videomae.errors import DataError
from videomae.inference.probe import probe


def test_a_probe_takes_labels_from_a_manifest_and_misses_none(tmp_path, capsys):
    features = write_labelled(tmp_path, False)
    rows = [f"{i}.mp4,{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    assert videomae(("probe", str(features), str(tmp_path / "labels.csv"), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["a", "b"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows[:-1]]) + "\n")
    with pytest.raises(DataError, match=r"lacks 1 .*29\.mp4"):
        probe(features, tmp_path / "labels.csv")


def test_videos_that_could_not_be_read_stop_a_probe_or_count_as_wrong(tmp_path, capsys):
    features = write_labelled(tmp_path, True, unreadable=LOST)
    with pytest.raises(
        DataError, match=r"2 videos could not be read .*lost-test\.mp4, lost-train\.mp4.*--on-bad wrong"
    ):
        probe(features, k=3)
    assert videomae(("probe", str(features), "--k", "3", "--on-bad", "wrong", "--json")) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["num_videos"], result["num_unreadable"]) == (10, 2)
    assert result["knn"]["top1"] == result["linear"]["top1"] == 0.9
