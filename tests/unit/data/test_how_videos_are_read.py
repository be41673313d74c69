"""``--fps`` and ``--on-error`` of a data set, and the columns of a manifest: every command keeps to them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from feature_folders import make_place
from videomae import VideoReader, read_manifest
from videomae.cli import run as videomae
from videomae.data.audit.check import check
from videomae.data.copies import prepare
from videomae.data.dataset import VideoDataset
from videomae.data.settings import DataSettings
from videomae.data.transcode import Encoding
from videomae.errors import DataError, VideoError
from videomae.inference.feature_store import read_features
from videomae.video.sampling import ClipSampling
from videos import damage_packets, moving_square, write_video

CLIP = {"sampling": ClipSampling(stride=4), "clip_frames": 15, "training": False, "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sound video of 60 frames, one of them damaged at packets 30 and 31, and one without times."""
    place = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        (place / name).mkdir()
    sound = write_video(place / "a" / "sound.mp4", moving_square(60))
    damage_packets(sound, place / "a" / "damaged.mp4", {30, 31})
    write_video(place / "b" / "raw.h264", moving_square(60, seed=1), b_frames=0)
    return place


def test_a_damaged_video_is_read_where_the_data_says_so_and_refused_elsewhere(folder, caplog):
    strict = DataSettings(folder).read()
    (number,) = (i for i, sample in enumerate(strict) if sample.path == "a/damaged.mp4")
    with pytest.raises(VideoError, match="damaged"):
        VideoDataset(strict, **CLIP)[number]
    skipping = VideoDataset(DataSettings(folder, on_error="skip").read(), **CLIP)
    assert skipping[number]["pixel_values"].shape[:2] == (1, 15)
    assert skipping[number]["pixel_values"].shape[:2] == (1, 15)
    assert caplog.text.count("a/damaged.mp4 did not decode from 1.16 s") == 1


def test_a_manifest_says_so_for_each_video_and_keeps_it(folder, tmp_path):
    lines = ["path,fps,on_error", f"{folder / 'a/damaged.mp4'},,truncate", f"{folder / 'b/raw.h264'},5,"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    data = DataSettings(tmp_path / "list.csv", fps=12, on_error="skip").read()
    assert [(sample.fps, sample.on_error) for sample in data] == [(12, "truncate"), (5, "skip")]
    data.to_csv(tmp_path / "copy.csv")
    again = read_manifest(tmp_path / "copy.csv")
    assert [(sample.fps, sample.on_error) for sample in again] == [(12, "truncate"), (5, "skip")]
    (damaged, raw) = again
    assert len(damaged.read(lambda reader: list(reader))[0]) < 31
    assert raw.read(lambda reader: (reader.fps, reader.assumed_fps))[0] == (5, None)


@pytest.mark.parametrize("row", ["a.mp4,0,", "a.mp4,fast,", "a.mp4,,ignore"])
def test_values_that_make_no_sense_are_refused_with_their_line(row, tmp_path):
    (tmp_path / "list.csv").write_text(f"path,fps,on_error\n{row}\n")
    with pytest.raises(DataError, match="line 2"):
        read_manifest(tmp_path / "list.csv")


def test_check_looks_past_damage_and_says_how_training_meets_it(folder):
    report = check(DataSettings(folder), near_duplicates=False, workers=1)
    damaged = report.facts[folder / "a" / "damaged.mp4"]
    assert 50 < damaged.num_frames < 60
    assert len(damaged.times) == damaged.num_frames
    (stretch,) = damaged.damage
    assert 1.1 < stretch.start < stretch.end < 1.6
    finding = report.named("damaged")
    assert (finding.severity, finding.items[0].videos) == ("error", ("a/damaged.mp4",))
    assert f"{damaged.num_frames} of 60 frames; it did not decode from 1." in finding.items[0].detail
    (row,) = (row for row in report.to_dict()["videos"] if row["path"] == "a/damaged.mp4")
    assert row["damage"][0].keys() == {"start", "end", "reason"}
    assert report.named("no-times") is not None

    report = check(DataSettings(folder, fps=10, on_error="skip"), near_duplicates=False, workers=1)
    assert report.named("damaged").severity == "warning"
    assert report.named("no-times") is None
    assert report.facts[folder / "b" / "raw.h264"].duration == pytest.approx(6)


def test_prepare_goes_on_behind_damage_and_names_it_where_told_to(folder, tmp_path, capsys):
    small = ("--short-side", "32", "--workers", "1", "--preset", "ultrafast", "--verify")
    assert videomae(("prepare", str(folder), str(tmp_path / "strict"), *small)) == 1
    assert [sample.path for sample in read_manifest(tmp_path / "strict")] == ["a/sound.mp4", "b/raw.mp4"]
    reading = ("--on-error", "skip", "--fps", "10")
    capsys.readouterr()
    assert videomae(("prepare", str(folder), str(tmp_path / "skipping"), *small, *reading)) == 1
    assert "a/damaged.mp4 did not decode from 1." in " ".join(capsys.readouterr().err.split())
    made = read_manifest(tmp_path / "skipping")
    assert [sample.path for sample in made] == ["a/damaged.mp4", "a/sound.mp4", "b/raw.mp4"]
    assert all(sample.fps is None and sample.on_error is None for sample in made)
    with VideoReader(made.samples[0].file) as copy, VideoReader(folder / "a/damaged.mp4", on_error="skip") as source:
        np.testing.assert_allclose(copy.times, source.times, atol=1e-4)
    with VideoReader(made.samples[2].file) as copy:
        assert copy.fps == pytest.approx(10)
    with pytest.raises(DataError, match="on_error"):
        prepare(folder, tmp_path / "skipping", encoding=Encoding(short_side=32, preset="ultrafast"), workers=1)


@pytest.mark.parametrize("per", ["clip", "window"])
def test_embed_goes_on_behind_damage_and_names_it_where_told_to(per, folder, tmp_path, capsys):
    place = make_place(tmp_path)
    for video in (place / "videos").rglob("*.mp4"):
        video.unlink()
    shutil.copy(folder / "a" / "damaged.mp4", place / "videos" / "damaged.mp4")
    shutil.copy(folder / "b" / "raw.h264", place / "videos" / "raw.h264")
    line = ("embed", str(place / "videos"), "--model", str(place / "model"), "--device", "cpu", "--per", per, "--json")
    line += ("--stride", "14")
    line += ("--window", "1", "--hop", "1") if per == "window" else ()
    assert videomae((*line, "--out", str(tmp_path / "strict"))) == 1
    assert list(json.loads(capsys.readouterr().out)["unreadable"]) == ["damaged.mp4"]
    out = tmp_path / "skipping"
    assert videomae((*line, "--out", str(out), "--on-error", "skip", "--fps", "10")) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["unreadable"] == {}
    assert printed["damaged"]["damaged.mp4"][0].startswith("did not decode from 1.")
    features = read_features(out).to_pylist()
    assert {row["path"] for row in features} == {"damaged.mp4", "raw.h264"}
    ends = {row["path"]: row["end"] for row in features}
    assert ends["raw.h264"] > 5 > 3 >= ends["damaged.mp4"]  # at 10 frames per second, and at 25


def test_samples_are_equal_however_they_are_read_when_nothing_is_said(folder):
    assert DataSettings(folder).read() == read_manifest(folder)
    assert [dataclasses.replace(s, fps=None) for s in DataSettings(folder, fps=3).read()] == [*read_manifest(folder)]
