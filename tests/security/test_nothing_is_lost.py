"""What is odd about one row, file or folder is an error of that one, and is named."""

import os
import time

import pytest

from videomae import cli
from videomae.data.audit.check import check
from videomae.data.copies import prepare
from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import Manifest, read_manifest
from videomae.errors import DataError, VideoError
from videomae.inference.feature_store import npy_names
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import write_motion_videos

BAD_NAMES = ("y" * 300 + ".mp4", "n\0ul.mp4", "/".join(["z" * 200] * 30) + ".mp4", "\x1b[31mred.mp4")


@pytest.fixture
def videos(tmp_path):
    """Six videos in as many classes, one with as long a name as there can be."""
    write_motion_videos(tmp_path / "videos", per_class=1, size=16, num_frames=6)
    first = min((tmp_path / "videos").rglob("*.mp4"))
    first.rename(first.with_name("x" * 251 + ".mp4"))
    return tmp_path / "videos"


@pytest.fixture
def listed(videos) -> Manifest:
    good = [file.relative_to(videos).as_posix() for file in sorted(videos.rglob("*.mp4"))]
    rows = [f"{name},{'ab'[i % 2]}" for i, name in enumerate([*good, *BAD_NAMES])]
    (videos / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return read_manifest(videos / "list.csv")


def test_names_that_no_file_can_have_are_bad_rows(listed):
    for sample in listed.samples[-len(BAD_NAMES) :]:
        with pytest.raises(VideoError):
            VideoReader(sample.file)
    dataset = VideoDataset(listed, sampling=ClipSampling(), training=False, clip_frames=4, on_bad="mark")
    (batch,) = build_loader(dataset, batch_size=len(listed))
    assert batch["unreadable_index"] == [6, 7, 8, 9]
    assert len(check(listed, workers=1).unreadable) == len(BAD_NAMES)


def test_a_name_as_long_as_there_can_be_is_prepared_and_a_bad_one_reported(listed, tmp_path):
    report = prepare(listed, tmp_path / "out", workers=1)
    assert (report.made, len(report.unreadable)) == (6, len(BAD_NAMES))
    assert prepare(listed, tmp_path / "out", workers=1).kept == 6


def test_names_of_vectors_fit_the_file_system(listed):
    names = npy_names(listed)
    assert len(set(names)) == len(listed)
    assert all(len(os.fsencode(name.rpartition("/")[2])) <= 255 for name in names)


def close(monkeypatch, folder):
    """Let a folder refuse to be looked into, which for the superuser none does."""
    scan = os.scandir

    def refuse(path):
        if os.fspath(path) == os.fspath(folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_class_that_cannot_be_looked_into_is_an_error(videos, monkeypatch):
    close(monkeypatch, videos / "moving_up")
    with pytest.raises(DataError, match=r"moving_up cannot be looked into \(Permission denied\)"):
        read_manifest(videos)


def test_a_closed_folder_of_a_class_with_other_videos_is_named_and_found(videos, monkeypatch, caplog):
    (videos / "moving_up" / "more").mkdir()
    close(monkeypatch, videos / "moving_up" / "more")
    assert len(read_manifest(videos)) == 6
    assert "moving_up/more cannot be looked into (Permission denied)" in caplog.text
    finding = check(videos, workers=1).named("closed-folder")
    assert finding is not None
    assert finding.severity == "error"
    assert finding.videos == ("moving_up/more",)


def test_a_folder_deeper_than_a_path_can_be_is_no_silent_loss(videos):
    (videos / "deep").mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(videos / "deep")
        for _ in range(25):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.fchdir(before)
        os.close(before)
    with pytest.raises(DataError, match="cannot be looked into"):
        read_manifest(videos)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", 'path,"label\n' + "x" * 200_000),
        ("list.csv", "path,label\n" + '"' + "x" * 200_000),
        ("list.json", "[" * 100_000),
        ("list.json", '[{"id": 1, "template": ["a"]}]'),
        ("list.json", "9" * 10_000),
        ("list.csv", "youtube_id,time_start,time_end\n" + "a" * 11 + "," + "9" * 5000 + ",1\n"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / "labels.json").write_text('{"a": [1], "b": "9999999999999999999999"}')
    assert cli.run(["check", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_a_long_line_of_a_list_is_read_in_time_that_grows_with_its_length(tmp_path):
    (tmp_path / "trainlist01.txt").write_text("A/v_" + "A_g1" * 20_000 + ".avi 1\n")
    began = time.monotonic()
    read_manifest(tmp_path / "trainlist01.txt")
    assert time.monotonic() - began < 2
