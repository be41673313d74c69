"""Directories that a run writes to: one process at a time, and what a stranger put there is an error of its file."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from feature_folders import embed_videos, make_place
from training_runs import run, write_data
from videomae import VideoMAEConfig, VideoMAEModel, cli, console
from videomae.data.dataset import VideoDataset, build_loader
from videomae.data.manifest import read_manifest
from videomae.errors import CheckpointError, DataError, VideoMAEError
from videomae.inference.convert import convert
from videomae.inference.feature_store import part_file, read_features
from videomae.pipeline.run_directory import Stopwatch
from videomae.processes import working_in
from videomae.settings import to_toml, with_recipe
from videomae.training.settings import TrainingDataSettings
from videomae.video.sampling import ClipSampling

HOLD = """
import sys, time
from pathlib import Path
from videomae.inference.convert import convert
from videomae.pipeline.run_directory import Stopwatch
from videomae.processes import working_in
with working_in(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run("pretrain", data, folder, "--run.steps", "1")
    return folder


@pytest.fixture
def holder(tmp_path):
    """Another process that is at work in a folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_one_dies(data, tmp_path, holder):
    with pytest.raises(CheckpointError, match=f"another process, {holder.pid} on .*, is at work in .*name another"):
        run("pretrain", data, tmp_path / "run", "--run.steps", "1")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    run("pretrain", data, tmp_path / "run", "--run.steps", "1")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(CheckpointError, match="cannot write to"), working_in(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.parametrize("name", ["settings.toml", "videos.json", "metrics.jsonl", "unreadable.csv"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\x00\xff", b"[" * 50_000, b'{"videos": 1}\n', b'x = "\x7f"'])
def test_a_strange_file_in_a_run_directory_is_an_error_of_ours(data, finished, tmp_path, name, content):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    problem = None
    try:
        run("pretrain", data, tmp_path / "run", "--run.steps", "1")
    except (VideoMAEError, ValueError) as error:
        problem = str(error)
    assert problem is None or (problem.endswith(".") and (name in problem or "other" in problem))


def test_settings_keep_control_characters(tmp_path):
    settings = TrainingDataSettings(Path("a\x7f\x1b\n.csv"))
    (tmp_path / "settings.toml").write_text(to_toml(settings))
    assert with_recipe(settings, tmp_path / "settings.toml") == settings


# ---- features


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("embed"))
    embed_videos(place, "index")
    return place


def test_a_damaged_part_is_named_and_not_taken_for_done(features):
    file = part_file(features / "index", 0)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(4, len(whole), 40):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        file.write_bytes(broken)
        with contextlib.suppress(DataError):
            read_features(features / "index")
    first = whole.index(b"PAR1") + 60  # in a page of data
    file.write_bytes(whole[:first] + bytes([whole[first] ^ 0xFF]) + whole[first + 1 :])
    for look in (lambda: read_features(features / "index"), lambda: embed_videos(features, "index")):
        with pytest.raises(DataError, match=r"\.parquet is damaged .* make it anew"):
            look()
    file.write_bytes(whole)
    read_features(features / "index")


# ---- terminals, and processes that die


def test_what_a_terminal_would_obey_is_shown_as_an_escape(capsys):
    hostile = "\x1b]0;title\x07\x1b[2J\x9b31m\u202egpj\x7f"
    console.output().print(hostile, markup=False)
    console.say([hostile])
    cli._fail(hostile)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "\\x1b[2J\\x9b31m\\u202egpj\\x7f" in text
        assert not set(text) & set("\x1b\x07\x9b\u202e\x7f")


def test_a_label_cannot_command_the_terminal_in_a_table(capsys):
    from rich.table import Table

    table = Table("label")
    table.add_row("\x1b[2Jred")
    console.output().print(table)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2" in out


def test_json_holds_names_that_are_no_utf8(capsys):
    console.print_json({"path": os.fsdecode(b"\xff.mp4"), "label": "\x1b"})
    assert json.loads(capsys.readouterr().out) == {"path": "\udcff.mp4", "label": "\x1b"}


def test_a_killed_worker_is_explained(data):
    def kill(clip):
        os.kill(os.getpid(), signal.SIGKILL)

    dataset = VideoDataset(read_manifest(data), sampling=ClipSampling(), training=False, clip_frames=4, transform=kill)
    with pytest.raises(DataError, match=r"was ended \(DataLoader worker .*want of memory\. Take fewer"):
        list(build_loader(dataset, batch_size=2, num_workers=1, start_method="fork"))


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (TypeError("x"), 3, "this is a bug in videomae (TypeError: x)"),
        (ValueError(), 3, "this is a bug in videomae (ValueError: )"),
        (VideoMAEError("of ours.\nsecond line"), 2, "of ours. second line"),
        (MemoryError(), 2, "not enough memory"),
    ],
)
def test_a_bug_is_told_from_a_mistake(monkeypatch, capsys, error, code, told):
    def main(settings):
        raise error

    monkeypatch.setattr("videomae.commands.check.main", main)
    assert cli.run(["check", "x"]) == code
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    monkeypatch.setenv("VIDEOMAE_DEBUG", "1")
    assert cli.run(["check", "x"]) == code
    assert "Traceback" in capsys.readouterr().err


ORPHAN = """
import os, sys, time
from videomae.data.audit import pool
pool.PROGRAM = "import time\\nfrom videomae.data.audit import inspect, pool\\n" + \
    "pool.inspect_video = lambda file, thumbnail: time.sleep(100)\\npool.serve()"
process = pool._start()
print(process.pid, flush=True)
pool._ask(process, ("x.mp4", False))
"""


def test_a_process_that_looks_at_a_video_ends_with_its_parent():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, env=environment) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=20)


def test_a_conversion_that_fails_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    config = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_hidden_layers=1)
    VideoMAEModel(config).save_pretrained(tmp_path / "model")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("videomae.models.weight_files.save_file", full)
        with pytest.raises(OSError, match="No space"):
            convert(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "model", tmp_path / "out")


def test_a_check_that_could_not_be_written_does_not_begin(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("videomae.commands.check.check", lambda *arguments, **options: pytest.fail("it began"))
    assert cli.run(["check", str(data), "--out", str(tmp_path / "file" / "report")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_seconds_do_not_depend_on_the_time_of_day(tmp_path, monkeypatch):
    times = iter([7200.0, 0.0])
    monkeypatch.setattr("time.time", lambda: next(times))
    watch = Stopwatch(tmp_path)
    with watch.time("check"):
        pass
    assert 0 <= watch.seconds["check"] < 1
