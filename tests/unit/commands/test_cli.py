import json
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout

import pytest
import torch

import videomae
from videomae import VideoMAEConfig, VideoMAEForVideoClassification, cli
from videomae.video.synthetic import write_motion_videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve small videos, a file that is none, and a model."""
    folder = tmp_path_factory.mktemp("cli")
    write_motion_videos(folder / "videos", per_class=2, size=32, num_frames=12)
    (folder / "videos" / "text.mp4").write_text("not a video")
    torch.manual_seed(0)
    config = VideoMAEConfig.preset("tiny", image_size=32, num_frames=4, num_labels=3, num_hidden_layers=1)
    VideoMAEForVideoClassification(config).save_pretrained(folder / "model")
    return folder


def test_help_lists_every_command(capsys):
    for arguments in ([], ["--help"]):
        assert cli.run(arguments) == 0
        out = capsys.readouterr().out
        assert all(command in out for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: videomae {command}" in capsys.readouterr().out


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert cli.run(["predcit"]) == 2
    assert "did you mean 'predict'?" in capsys.readouterr().err


def test_the_version_is_that_of_the_installed_package(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"videomae {videomae.__version__}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["recon"], ["reconstruct"]),
        (["train", "--budg"], ["--budget"]),
        (["train", "--method", ""], ["auto", "distill", "pretrain", "finetune"]),
    ],
)
def test_bash_completes_commands_options_and_their_values(typed, offered, completion):
    words = shlex.join(["videomae", *typed])
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; $(complete -p videomae | sed 's/.*-F //; s/ .*//')"
    script = f'source {completion}; {ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(offered) <= set(done.stdout.split())


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "videomae.bash"
    with file.open("w") as out, redirect_stdout(out):
        assert cli.run(["--completion", "bash"]) == 0
    return file


def test_completion_is_for_shells_that_are_known(capsys):
    for words in (["--completion"], ["--completion", "csh"]):
        assert cli.run(words) == 2
        assert "takes one of bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["predict", "CLIP", "--model", "MODEL", "--window", "8"], "seconds looked at"),
        (["predict", "CLIP", "CLIP", "--model", "MODEL"], "classifying"),
        (["explain", "CLIP", "--model", "MODEL", "--out", "e.png"], "explaining"),
        (["convert", "MODEL", "v1.pth", "--to", "v1"], "converting"),
        (["export", "MODEL", "--to", "torch", "--out", "out", "--allow-slower"], "exporting"),
        (["check", "VIDEOS"], "looking at the videos"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_takes_long_shows_that_it_is_at_work(arguments, shown, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.chdir(tmp_path)
    videos = folder / "videos"
    named = {"CLIP": next(videos.rglob("moving_up*.mp4")), "MODEL": folder / "model", "VIDEOS": videos / "moving_up"}
    cli.run([str(named.get(word, word)) for word in arguments])
    assert shown in capsys.readouterr().err


def test_predict_prints_an_object_per_video_and_reports_the_bad_one(folder, capsys):
    code = cli.run(["predict", str(folder / "videos"), "--model", str(folder / "model"), "--json", "--top-k", "2"])
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert len(results) == 13
    bad = [result for result in results if result["error"]]
    assert [result["path"].rsplit("/")[-1] for result in bad] == ["text.mp4"]
    assert all(len(result["predictions"]) == 2 for result in results if not result["error"])


def test_predict_prints_a_table_for_people(folder, capsys):
    video = next((folder / "videos").rglob("moving_up*.mp4"))
    assert cli.run(["predict", str(video), "--model", str(folder / "model")]) == 0
    out = capsys.readouterr().out
    assert "LABEL_2" in out
    assert "score" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "name at least one video"),
        (["predict", "x.mp4", "--model", "./nowhere"], "no folder or file './nowhere'"),
        (["predict", "x.mp4", "--views", "3"], "views must be CLIPSxCROPS"),
        (["convert", "./nowhere.pth", "out"], "no folder or file './nowhere.pth'"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_2(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("videomae.inference.classifier.DEFAULT_MODEL", str(folder / "model"))
    if arguments[:1] == ["predict"] and "--model" not in arguments:
        arguments = [*arguments, "--model", str(folder / "model")]
    assert cli.run(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.strip().count("\n") == 0


def test_an_empty_folder_is_refused(folder, tmp_path, capsys):
    assert cli.run(["predict", str(tmp_path), "--model", str(folder / "model")]) == 2
    assert "holds no videos" in capsys.readouterr().err


def test_convert_tells_what_it_matched(folder, tmp_path, capsys):
    assert cli.run(["convert", str(folder / "model"), str(tmp_path / "v1.pth"), "--to", "v1"]) == 0
    out = capsys.readouterr().out
    assert "Hugging Face, classification" in out
    assert "videomae.blocks: 13 tensors, all matched" in out


def test_prepare_reads_the_first_folder_and_writes_to_the_second(folder, tmp_path):
    (tmp_path / "data").mkdir()
    source = next((folder / "videos").rglob("moving_up*.mp4"))
    (tmp_path / "data" / "a.mp4").write_bytes(source.read_bytes())
    assert cli.run(["prepare", str(tmp_path / "data"), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert (tmp_path / "out" / "a.mp4").exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a.mp4"]
