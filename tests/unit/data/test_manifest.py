"""A manifest knows its stretches, classes and splits, and survives writing and reading."""

from pathlib import Path

import numpy as np
import pytest

from data_lists import files, named, write
from videomae.data.manifest import Sample, read_manifest
from videomae.errors import DataError


def test_stretches_of_one_video_are_different_samples(tmp_path):
    assert len(read_manifest(write(tmp_path / "m.csv", "path,start,end\na.mp4,0,5\na.mp4,5,10\n"))) == 2


def test_a_stretch_begins_at_the_frame_that_a_rounded_time_means():
    times = np.arange(30) / 30
    assert Sample("a.mp4", Path("a.mp4"), start=times[7] + 1e-9, end=times[13] + 1e-9).frames_of(times) == range(7, 13)


def test_stretches_share_no_frame_and_leave_none_out():
    times = np.arange(30) / 30
    cut = 0.1 + 0.2  # a little above the time of frame 9
    first, second = (Sample("a.mp4", Path("a.mp4"), start=start, end=end) for start, end in ((None, cut), (cut, None)))
    assert [*first.frames_of(times), *second.frames_of(times)] == list(range(30))
    assert second.frames_of(times).start == 9


def test_a_manifest_survives_writing_and_reading(tmp_path):
    text = 'path,label,split,start,end,group,camera\n"my, clip é.mp4",run,train,1.5,4.0,src1,roof\nb.mp4,jump,val,,,,\n'
    manifest = read_manifest(write(tmp_path / "m.csv", text))
    manifest.to_csv(tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_text(encoding="utf-8") == text
    manifest.to_csv(tmp_path / "below" / "copy.csv")
    moved = read_manifest(tmp_path / "below" / "copy.csv")
    assert [s.path for s in moved] == ["../my, clip é.mp4", "../b.mp4"]
    assert [s.file.resolve() for s in moved] == [s.file for s in manifest]


def test_a_checkpoint_can_number_the_classes(tmp_path):
    manifest = read_manifest(files(tmp_path, "run/a.mp4", "jump/b.mp4")).with_classes(["run", "jump"])
    assert named(manifest) == {"jump/b.mp4": "jump", "run/a.mp4": "run"}
    assert [s.label for s in manifest] == [1, 0]


def test_a_class_mismatch_lists_both_sides(tmp_path):
    manifest = read_manifest(files(tmp_path, "run/a.mp4", "jump/b.mp4"))
    with pytest.raises(DataError, match=r"Not in the data: \['sit'\]. Only in the data: \['jump'\]"):
        manifest.with_classes(["run", "sit"])
    with pytest.raises(DataError, match=r"Not in the data: \['sit'\]. Only in the data: \[\]. .*allow_missing=True"):
        manifest.with_classes(["run", "sit", "jump"])
    assert manifest.with_classes(["run", "sit", "jump"], allow_missing=True).samples[0].label == 2


def test_an_unknown_split_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"\['train', 'test'\]"):
        read_manifest(write(tmp_path / "m.csv", "path,split\na.mp4,train\nb.mp4,test\n")).split("val")
