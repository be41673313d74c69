"""What cannot be read is listed at once, stays listed, and ends a run where it is too much."""

import csv
from pathlib import Path

import pytest

from videomae.data.manifest import Sample
from videomae.data.unreadable import UnreadableVideos, write_unreadable
from videomae.errors import DataError


def videos(count: int) -> list[Sample]:
    return [Sample(f"{i}.mkv", Path(f"{i}.mkv")) for i in range(count)]


def listed(folder: Path) -> list[str]:
    return [row["path"] for row in csv.DictReader((folder / "unreadable.csv").read_text().splitlines())]


def test_too_many_bad_files_stop_the_run(tmp_path):
    bad = UnreadableVideos(tmp_path, videos(100), max_fraction=0.02)
    for _ in range(3):
        bad.add([("bad.mkv", "no video")])
    assert list(bad.reasons) == ["bad.mkv"]
    bad.add([("a, b.mkv", "empty")])
    lines = (tmp_path / "unreadable.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["path,reason", '"a, b.mkv",empty']
    assert len(lines) == 3
    with pytest.raises(DataError, match="3 of 100 videos cannot be read"):
        bad.add([("c.mkv", "empty")])


def test_the_fraction_of_bad_videos_is_one_of_videos_not_of_repetitions(tmp_path):
    """Sampling may take a video of a rare class ten times: that makes it no less bad."""
    samples = videos(12) * 10
    unreadable = UnreadableVideos(tmp_path, samples, max_fraction=0.1)
    unreadable.add([(samples[0].path, "broken.")])
    with pytest.raises(DataError, match="2 of 12 videos cannot be read"):
        unreadable.add([(samples[1].path, "broken, too.")])
    assert len(listed(tmp_path)) == 2


def test_what_an_earlier_part_of_the_run_has_listed_stays_and_counts_for_nothing(tmp_path):
    write_unreadable(tmp_path / "unreadable.csv", [("x.mkv", "empty"), ("y.mkv", "empty")])
    unreadable = UnreadableVideos(tmp_path, videos(10), max_fraction=0.1)
    unreadable.add([("0.mkv", "empty")])
    assert listed(tmp_path) == ["0.mkv", "x.mkv", "y.mkv"]


def test_each_of_several_processes_has_a_list_of_its_own(tmp_path):
    UnreadableVideos(tmp_path, videos(10), max_fraction=0.1, rank=1, world_size=2).add([("0.mkv", "empty")])
    assert [file.name for file in tmp_path.iterdir()] == ["unreadable-1.csv"]


def test_several_processes_count_together(tmp_path):
    """Each meets a part of the videos: alone none would ever find that there are too many bad ones."""
    one, two = (UnreadableVideos(tmp_path, videos(20), max_fraction=0.1, rank=i, world_size=2) for i in range(2))
    one.add([("0.mkv", "empty"), ("1.mkv", "empty")])
    two.add([("1.mkv", "empty")])
    assert (one.untold, two.untold) == (2, 1)
    told = [("0.mkv", "empty"), ("1.mkv", "empty"), ("1.mkv", "empty")]
    one.share(lambda mine: told)
    two.share(lambda mine: told)
    assert (one.untold, two.untold) == (0, 0)
    two.add([("0.mkv", "empty")])  # in a later epoch: known already, and not counted twice
    assert two.untold == 0
    with pytest.raises(DataError, match="3 of 20 videos cannot be read"):
        two.share(lambda mine: [("2.mkv", "empty")])


def test_a_list_of_nothing_is_no_file(tmp_path):
    write_unreadable(tmp_path / "unreadable.csv", [("x.mkv", "empty")])
    write_unreadable(tmp_path / "unreadable.csv", [])
    assert not (tmp_path / "unreadable.csv").exists()
