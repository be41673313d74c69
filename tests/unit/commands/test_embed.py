"""``videomae embed``: what it takes, and what it prints."""

import json
import sys

import pytest

from feature_folders import make_place, one_video
from support import run_two_ranks
from videomae.cli import run as videomae
from videomae.inference.feature_store import read_features


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("embed"))


def test_bad_files_are_listed_and_show_in_the_exit_code(place, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (videos / name).write_bytes(b"" if name == "b.mp4" else one_video(place).read_bytes())
    arguments = ("embed", str(videos), "--model", str(place / "model"), "--out", str(tmp_path / "out"))
    assert videomae((*arguments, "--json")) == 1
    printed = capsys.readouterr()
    assert "1 videos could not be read" in printed.err
    assert list(json.loads(printed.out)["unreadable"]) == ["b.mp4"]
    assert (tmp_path / "out" / "unreadable.csv").read_text().splitlines()[1].startswith("b.mp4,")
    assert read_features(tmp_path / "out")["path"].to_pylist() == ["a.mp4", "c.mp4"]


def test_seconds_may_be_written_with_their_unit(place, tmp_path, capsys):
    common = ("embed", str(place / "videos"), "--model", str(place / "model"), "--device", "cpu", "--per", "window")
    for name, times in (("plain", ("1", "0.5")), ("unit", ("1s", "0.5s"))):
        out = ("--out", str(tmp_path / name), "--window", times[0], "--hop", times[1])
        assert videomae((*common, *out)) == 0
    assert read_features(tmp_path / "plain").equals(read_features(tmp_path / "unit"))
    with pytest.raises(SystemExit):
        videomae((*common, "--out", str(tmp_path / "bad"), "--window", "two"))
    assert "write it as 2s or 2" in " ".join(capsys.readouterr().err.split())


def test_a_window_needs_features_per_window(place, tmp_path, capsys):
    command = ("embed", str(place / "videos"), "--model", str(place / "model"), "--out", str(tmp_path / "out"))
    assert videomae((*command, "--device", "cpu", "--window", "2s")) == 2
    assert "add --per window" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_the_first_of_two_processes_prints_all_that_could_not_be_read(place, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(4):
        (videos / f"{i}.mp4").write_bytes(one_video(place).read_bytes() if i % 3 else b"")
    command = [sys.executable, "-m", "videomae", "embed", str(videos), "--model", str(place / "model")]
    command += ["--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    codes, (first, second), errors = run_two_ranks(command)
    assert codes == [1, 0], errors
    assert second == ""
    assert list(json.loads(first)["unreadable"]) == ["0.mp4", "3.mp4"]
