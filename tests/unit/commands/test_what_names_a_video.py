"""What may name a video: paths with colons are files, URLs are read or refused in a sentence, secrets never shown."""

import functools
import http.server
import json
import threading

import pytest

from classifiers import save_light_model
from feature_folders import SIZES, STATISTICS, save_model
from videomae import VideoMAEConfig, VideoMAEForVideoClassification
from videomae.cli import run as videomae
from videomae.data.manifest import read_manifest
from videomae.errors import DataError
from videomae.inference.classifier import predict
from videomae.inference.search import search
from videomae.video.checkpoint_processor import make_processor
from videos import moving_square, write_video

SECRET = "http://me:hunter2@127.0.0.1:9/clip.mp4?token=hunter2"


@pytest.fixture
def saved(tmp_path):
    return save_light_model(tmp_path / "model")


@pytest.fixture
def served(tmp_path):
    """The address of a folder of files."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_path_with_colons_is_a_file_for_predict_and_in_lists(saved, tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "a.mp4", moving_square(8, 32, 32))
    (tmp_path / "a.mp4").rename(tmp_path / "12:30:05 front.mp4")
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:05 front.mp4", "./12:30:05 front.mp4"):
        for extra in ([], ["--window", "0.2s"]):
            assert videomae(["predict", name, "--model", str(saved), "--json", *extra]) == 0
            assert not json.loads(capsys.readouterr().out).get("error")
    (tmp_path / "list.csv").write_text("path\n12:30:05 front.mp4\n")
    assert read_manifest("list.csv").samples[0].file.exists()


def test_a_url_is_classified_as_the_file_is(saved, tmp_path, served):
    write_video(tmp_path / "a.mp4", moving_square(8, 32, 32))
    found = predict([tmp_path / "a.mp4", f"{served}/a.mp4"], model=saved, device="cpu")
    of_file, of_url = found
    assert of_url.error is None
    assert of_url.path == f"{served}/a.mp4"
    assert of_url.predictions == of_file.predictions


def test_a_url_is_explained_and_reconstructed(tmp_path, served, capsys):
    write_video(tmp_path / "a.mp4", moving_square(8, 32, 32))
    save_model(tmp_path / "pretrained")
    finetuned = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES))
    finetuned.save_pretrained(tmp_path / "finetuned")
    make_processor(finetuned.config, STATISTICS).save_pretrained(tmp_path / "finetuned")
    for command, model in (("explain", "finetuned"), ("reconstruct", "pretrained")):
        options = ["--model", str(tmp_path / model), "--out", str(tmp_path / f"{command}.png"), "--json"]
        assert videomae([command, f"{served}/a.mp4", *options]) == 0
        of_url = json.loads(capsys.readouterr().out)
        assert videomae([command, str(tmp_path / "a.mp4"), *options]) == 0
        assert json.loads(capsys.readouterr().out) == of_url


def test_a_url_in_a_list_and_as_a_query_is_refused_in_a_sentence_without_its_secrets(tmp_path):
    (tmp_path / "list.csv").write_text(f"path\n{SECRET}\n")
    (tmp_path / "train.txt").write_text(f"{SECRET} 0\n")
    uses = (
        lambda: read_manifest(tmp_path / "list.csv"),
        lambda: read_manifest(tmp_path / "train.txt"),
        lambda: search(SECRET, tmp_path),
    )
    for use in uses:
        with pytest.raises(DataError, match="is a URL, which only predict, explain and reconstruct read") as refused:
            use()
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("extra", [[], ["--window", "1s"]])
def test_secrets_of_a_url_are_in_no_output(saved, capsys, extra):
    assert videomae(["predict", SECRET, "--model", str(saved), "--json", *extra]) == 1
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert json.loads(captured.out.splitlines()[-1])["path"] == "http://***@127.0.0.1:9/clip.mp4?token=***"


def test_a_live_stream_without_windows_is_refused_without_its_secrets(saved, capsys):
    assert videomae(["predict", "rtsp://me:hunter2@camera", "--model", str(saved)]) == 2
    refused = capsys.readouterr().err
    assert "is a stream, which needs --window" in refused
    assert "hunter2" not in refused
