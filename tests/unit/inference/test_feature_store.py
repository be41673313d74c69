"""The folder of features: what is read back, what is ignored, and the names of its files."""

from pathlib import Path

import pytest

from feature_folders import embed_videos, make_place
from videomae.data.manifest import Manifest, Sample
from videomae.inference.feature_store import npy_names, read_features


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("videomae.inference.embed.part_size", lambda num_videos, per: 2)


def test_what_a_killed_write_left_is_not_read(place):
    embed_videos(place, "killed")
    (place / "killed" / "parts" / ".0123456789ab.000001.parquet").write_bytes(b"PAR1 half")
    assert embed_videos(place, "killed") == {}
    assert read_features(place / "killed").num_rows == 6


@pytest.mark.parametrize(
    ("videos", "names"),
    [
        (["a/b.mp4"], ["a/b"]),
        (["v.2021", "v.MOV"], ["v.2021", "v"]),
        (["a.mp4", "a.avi", "b.mp4"], ["a.mp4", "a.avi", "b"]),
        (["/data/a.mp4", "../a.mp4", "x/../../a.mp4"], ["data/a", "_/a", "x/_/_/a"]),
        (["/data/a.mp4", "data/a.mp4"], ["data/a.mp4", "data/a.mp4#1"]),
        (["a.mp4", "a.avi", "a.mp4.mkv"], ["a.mp4", "a.avi", "a.mp4#2"]),
        ([("a.mp4", None, 1.5), ("a.mp4", 1.5, None)], ["a@0.0-1.5", "a@1.5-end"]),
        ([("a.mp4", 0.1234567, 2), ("a.mp4", 0.1234568, 2)], ["a@0.1234567-2", "a@0.1234568-2"]),
        ([("a.mp4", None, 2.0), ("a.mp4", 0.0, 2.0)], ["a@0.0-2.0", "a@0.0-2.0#1"]),
    ],
)
def test_every_video_has_an_npy_file_of_its_own_below_npy(videos, names):
    rows = [(video, None, None) if isinstance(video, str) else video for video in videos]
    samples = tuple(Sample(path, Path(path), start=start, end=end) for path, start, end in rows)
    assert npy_names(Manifest(samples, (), Path())) == [f"{name}.npy" for name in names]


def test_a_folder_without_parts_is_taken_for_other_settings(place, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "features.json").write_text('{"per": "token"}')
    embed_videos(place, tmp_path / "out")
    assert read_features(tmp_path / "out").num_rows == 6
