"""Probes: they learn what is there, and count what could not be read."""

import numpy as np
import pytest

from feature_folders import LOST, embed_videos, make_place, write_labelled
from videomae.errors import DataError
from videomae.inference.probe import load, probe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


@pytest.mark.parametrize(("splits", "protocol", "number"), [(True, "train and test", 9), (False, "5-fold", 30)])
def test_probes_learn_what_is_there(tmp_path, splits, protocol, number):
    result = probe(write_labelled(tmp_path, splits), k=3)
    assert result.knn.top1 == result.linear.top1 == 1.0
    assert result.protocol.startswith(protocol)
    assert result.num_videos == number


def test_a_class_of_one_group_cannot_be_cross_validated(tmp_path):
    features = write_labelled(tmp_path, False)
    rows = [f"{i}.mp4,{'ab'[i % 2]},{'gh'[i % 2]}" for i in range(30)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    with pytest.raises(DataError, match="at least 2 groups"):
        probe(features, tmp_path / "labels.csv")


def test_stretches_of_one_video_keep_their_own_labels_and_files(place, tmp_path):
    videos = place / "videos"
    names = [file.relative_to(videos).as_posix() for file in sorted(videos.rglob("*.mp4"))]
    rows = [f"{name},{label},{start},{start + 1}" for name in names for start, label in enumerate("ab")]
    (videos / "halves.csv").write_text("\n".join(["path,label,start,end", *rows]) + "\n")
    embed_videos(place, tmp_path / "out", data="videos/halves.csv", npy=True)
    vectors, labels, _, groups = load(tmp_path / "out")
    assert labels.tolist() == ["a", "b"] * 6
    assert len(vectors) == 12
    assert len(set(groups.tolist())) == 6
    first = np.load(tmp_path / "out" / "npy" / f"{names[0].removesuffix('.mp4')}@0.0-1.0.npy")
    assert np.array_equal(first[0], vectors[0])
    with pytest.raises(DataError, match="matched by path"):
        probe(tmp_path / "out", videos / "halves.csv")


def test_in_cross_validation_every_video_that_could_not_be_read_is_wrong(tmp_path):
    features = write_labelled(tmp_path, False, unreadable=[video | {"split": None} for video in LOST])
    result = probe(features, k=3, on_bad="wrong")
    assert (result.num_videos, result.linear.top1) == (32, 30 / 32)
