r"""Names of files that are no UTF-8 survive every command: as bytes in lists, as ``\udce9`` where text is shown."""

import csv
import json
import os
from pathlib import Path

import pytest

from classifiers import save_light_model
from feature_folders import save_model
from training_runs import run, write_data
from videomae import VideoMAEModel
from videomae.cli import run as videomae
from videomae.data.manifest import read_manifest
from videomae.data.unreadable import UnreadableVideos
from videomae.errors import DataError
from videomae.export.run import export
from videomae.files import escaped, is_utf8, unescaped, write_csv
from videomae.inference.embed import embed
from videomae.inference.feature_store import read_features
from videomae.settings import with_recipe
from videomae.training.pretraining import PretrainSettings
from videomae.training.settings import TrainingDataSettings
from videos import moving_square, write_video

NAME = os.fsdecode(b"caf\xe9.mp4")
SHOWN = r"caf\udce9.mp4"


@pytest.fixture
def videos(tmp_path) -> Path:
    """A video in a class folder, both of Latin-1 names, and a broken one."""
    folder = tmp_path / "videos" / os.fsdecode(b"\xe0 table")
    folder.mkdir(parents=True)
    write_video(tmp_path / "a.mp4", moving_square(16, 32, 32))
    try:
        (tmp_path / "a.mp4").rename(folder / NAME)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (folder / os.fsdecode(b"br\xfcchig.mp4")).write_bytes(b"broken")
    return tmp_path / "videos"


def test_a_name_is_escaped_and_found_again():
    assert escaped(NAME) == SHOWN
    assert unescaped(SHOWN) == NAME
    assert not is_utf8(NAME)
    assert is_utf8("café.mp4")


def test_lists_hold_the_bytes_and_are_read_back(videos, tmp_path):
    manifest = read_manifest(videos)
    manifest.to_csv(videos / "list.csv")
    assert b"\xe0 table/caf\xe9.mp4" in (videos / "list.csv").read_bytes()
    again = read_manifest(videos / "list.csv")
    assert [sample.file for sample in again] == [sample.file for sample in manifest]
    assert again.classes == manifest.classes


def test_a_list_in_another_encoding_is_refused_where_no_file_has_such_a_name(videos):
    for text in ("path,label\né.mp4,x\n", "path,label\na.mp4,é\n", f"path,label\n{'é' * 300}.mp4,x\n"):
        (videos / "list.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=r"line 2: .* must be a text file in UTF-8"):
            read_manifest(videos / "list.csv")


def test_halves_of_pairs_that_stand_for_no_byte_are_written_escaped(tmp_path):
    write_csv(tmp_path / "a.csv", ("label",), [("\ud800",)])
    assert (tmp_path / "a.csv").read_bytes() == b"label\n\\ud800\n"


def test_unreadable_videos_of_a_run_are_listed_and_read_back(videos, tmp_path):
    samples = read_manifest(videos).samples
    for _ in range(2):
        reports = UnreadableVideos(tmp_path, samples, max_fraction=1.0)
        reports.note([(samples[0].path, "broken.")], "left out")
    with (tmp_path / "unreadable.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [samples[0].path]


def test_check_writes_its_report(videos, tmp_path, capsys):
    assert videomae(["check", str(videos), "--out", str(tmp_path / "report"), "--workers", "1"]) == 1
    assert r"br\udcfcchig.mp4" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert NAME in {Path(video["path"]).name for video in report["videos"]}
    assert r"br\udcfcchig.mp4" in (tmp_path / "report" / "report.html").read_text("utf-8")
    assert b"br\xfcchig.mp4" in (tmp_path / "report" / "unreadable.csv").read_bytes()


def test_prepare_copies_it(videos, tmp_path):
    assert videomae(["prepare", str(videos), str(tmp_path / "out"), "--workers", "1"]) == 1
    (sample,) = read_manifest(tmp_path / "out").samples
    assert sample.file.name == NAME
    assert sample.file.exists()


def test_embed_stores_it_escaped(videos, tmp_path):
    save_model(tmp_path / "model")
    command = ["embed", str(videos), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "features")]
    videomae(command)
    table = read_features(tmp_path / "features")
    assert table["path"].to_pylist() == [r"\udce0 table/" + SHOWN]
    assert b"br\xfcchig.mp4" in (tmp_path / "features" / "unreadable.csv").read_bytes()


@pytest.mark.parametrize("extra", [[], ["--window", "0.5s"]])
def test_predict_says_what_it_shows(videos, tmp_path, capsys, extra):
    save_light_model(tmp_path / "model")
    assert videomae(["predict", str(videos), "--model", str(tmp_path / "model"), "--json", *extra]) == 1
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert "error" in bad
    assert Path(good["path"]).name == NAME
    assert videomae(["predict", str(videos), "--model", str(tmp_path / "model"), *extra]) == 1
    assert SHOWN in capsys.readouterr().out


def test_evaluate_writes_its_predictions(videos, tmp_path):
    save_light_model(tmp_path / "model")
    (videos / os.fsdecode(b"\xe0 table")).rename(videos / "dark")
    (tmp_path / "videos" / "bright").mkdir()
    write_video(tmp_path / "videos" / "bright" / "a.mp4", moving_square(16, 32, 32))
    options = [
        "--split",
        "all",
        "--on-bad",
        "wrong",
        "--model",
        str(tmp_path / "model"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert videomae(["evaluate", str(videos), *options]) == 1
    assert any(b"caf\xe9.mp4" in file.read_bytes() for file in (tmp_path / "out").rglob("*.csv"))


@pytest.fixture
def odd(videos, tmp_path) -> Path:
    """A folder whose own name is no UTF-8, to write to."""
    folder = tmp_path / os.fsdecode(b"o\xfft")
    folder.mkdir()
    return folder


def test_a_run_lives_and_goes_on_in_a_folder_of_such_a_name(odd, tmp_path):
    data = write_data(odd)
    options = ("--run.save-every", "1", "--optim.ema", "0.5")
    run("pretrain", data, odd / "run", *options, "--run.steps", "1", "--run.trackers", "tensorboard")
    assert b"o\xfft" in (odd / "run" / "settings.toml").read_bytes()
    run("pretrain", data, odd / "run", *options, "--run.steps", "1", "--run.trackers", "tensorboard")
    assert VideoMAEModel.from_pretrained(odd / "run" / "model").config.hidden_size
    again = with_recipe(PretrainSettings(TrainingDataSettings(Path("x")), Path("y")), odd / "run" / "settings.toml")
    assert again.out == odd / "run"
    assert [file.name for file in (odd / "run" / "logs").rglob("events.out*")]


def test_features_are_written_to_and_read_from_a_folder_of_such_a_name(odd, videos):
    save_model(odd / "model")
    embed(read_manifest(videos), odd / "features", odd / "model", device="cpu")
    assert len(read_features(odd / "features")) == 1


def test_exports_which_libraries_write_need_another_folder(odd):
    save_model(odd / "model")
    with pytest.raises(ValueError, match="need a path in UTF-8"):
        export(odd / "model", "torch", odd / "exported", task="encoder")
