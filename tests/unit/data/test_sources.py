"""Known endings are read whatever their case; whatever else lies in a folder is counted, named, and never opened."""

import logging
import os
import socket
from pathlib import Path

import pytest

from videomae.data.audit.check import check
from videomae.data.manifest import read_manifest
from videomae.data.sources import find_videos, not_looked_at, video_files
from videomae.errors import DataError, VideoError
from videos import moving_square, write_video

CAMERAS = "a.asf b.MOD c.Tod d.dav e.264 f.H264 g.265 h.hevc i.qt j.mxf k.rm l.RMVB m.trp n.f4v o.3g2 p.divx q.mjpeg"
DISCS = "r.mjpg s.m2v t.ogv u.VOB v.MTS w.m2ts x.ts y.mkv z.MP4"


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_videos_of_cameras_broadcasts_and_discs_are_known_whatever_their_case(tmp_path):
    names = f"{CAMERAS} {DISCS}".split()
    assert video_files(files(tmp_path, *names)) == sorted(names)


def test_files_that_are_not_looked_at_are_counted_by_ending_and_named(tmp_path, caplog):
    files(tmp_path, "run/a.mp4", "jump/b.mp4", "run/c.TXT", "run/d.txt", "jump/clip", "jump/.hidden", "run/Thumbs.db")
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(tmp_path)) == 2
    expected = "3 files were not looked at: 2 .txt, 1 without an ending (jump/clip, run/c.TXT, run/d.txt)"
    assert caplog.messages == [f"{tmp_path}: {expected}"]


def test_a_single_file_and_many_kinds_are_said_in_words():
    assert not_looked_at(["a.txt"]) == "1 file was not looked at: 1 .txt (a.txt)"
    many = not_looked_at([f"f.{i:02d}" for i in range(10)])
    assert many.startswith("10 files were not looked at: 1 .00, ")
    assert "1 .07, 2 others (f.00, f.01, f.02, ...)" in many


def test_lists_of_videos_are_not_named_among_other_files(tmp_path, caplog):
    files(tmp_path, "a.mp4", "manifest.csv", "unreadable.csv", "classInd.txt", "trainlist01.txt", "a_test_split1.txt")
    assert video_files(tmp_path) == ["a.mp4"]
    assert not caplog.messages


def test_folders_of_frames_are_refused_by_name_with_the_command_that_makes_videos(tmp_path):
    files(tmp_path, *(f"run/one it/img_{i:05}.jpg" for i in (3, 4, 5)), *(f"run/two/{i}.png" for i in range(12)))
    with pytest.raises(DataError) as refused:
        find_videos([tmp_path])
    assert "run/one it and 1 others must be videos, but are folders of frames" in str(refused.value)
    command = "ffmpeg -framerate 25 -start_number 3 -i 'run/one it/img_%05d.jpg' -pix_fmt yuv420p 'run/one it.mp4'"
    assert str(refused.value).endswith(command)


def test_folders_of_frames_beside_videos_are_named(tmp_path, caplog):
    files(tmp_path, "run/a.mp4", "run/b/1.jpg", "run/b/2.jpg", "run/cover1.jpg", "run/cover2.jpg")
    assert video_files(tmp_path) == ["run/a.mp4"]
    assert sum(f"{tmp_path}/run/b must be videos" in line for line in caplog.messages) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_sockets_are_skipped_and_named_and_never_opened(tmp_path, caplog, monkeypatch):
    """Opening a pipe that nobody writes to would wait for ever."""
    write_video(tmp_path / "a.mp4", moving_square(8))
    os.mkfifo(tmp_path / "b.mp4")
    os.symlink(tmp_path / "gone.mp4", tmp_path / "dead.mp4")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("c.mp4")
        assert video_files(tmp_path) == ["a.mp4", "dead.mp4"]
        assert [line.partition(" is a ")[2].partition(",")[0] for line in caplog.messages] == ["pipe", "pipe"]
        report = check(tmp_path, workers=1)
    assert {item.videos[0] for item in report.named("special-files").items} == {"b.mp4", "c.mp4"}
    assert {item.videos[0] for item in report.named("missing").items} == {"dead.mp4"}


def test_check_counts_and_names_other_files_and_folders_of_frames(tmp_path):
    files(tmp_path, "b/1.jpg", "b/2.jpg", "notes.txt", "notes", "A/manifest.csv")
    write_video(tmp_path / "a.mp4", moving_square(8))
    report = check(tmp_path, workers=1)
    finding = report.named("other-files")
    assert "4 files were not looked at: 2 .jpg, 1 without an ending, 1 .txt" in finding.advice
    assert len(finding.items) == 4
    assert "ffmpeg" in report.named("frame-folders").items[0].detail


def test_a_list_that_names_folders_of_frames_says_what_to_do_with_each(tmp_path):
    folder = tmp_path / "jumps" / "one"
    folder.mkdir(parents=True)
    for number in range(1, 4):
        (folder / f"img_{number:05}.jpg").touch()
    (tmp_path / "list.csv").write_text("path,label\njumps/one,jump\n")
    (sample,) = read_manifest(tmp_path / "list.csv")
    with pytest.raises(VideoError, match=r"folder of frames.*In it: ffmpeg -framerate 25 -start_number 1 -i img_%05d"):
        sample.read(len)


def test_one_of_several_processes_says_what_is_left_out(tmp_path, monkeypatch, caplog):
    for name in ("a.mp4", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("RANK", "1")
    assert video_files(tmp_path) == ["a.mp4"]
    assert caplog.text == ""
    monkeypatch.setenv("RANK", "0")
    assert video_files(tmp_path) == ["a.mp4"]
    assert "1 file was not looked at" in caplog.text
