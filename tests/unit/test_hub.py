import os
import socket
import subprocess
import sys
import time

import pytest

from hub_server import serve_hub
from videomae import hub as hub_module
from videomae.errors import CheckpointError
from videomae.hub import fetch_file, find_file, read_json, split_hub_options


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with org/model (main and v1), and the environment that leads to it."""
    for name, text in (("model", '{"at": "main"}'), ("model@v1", '{"at": "v1"}')):
        folder = tmp_path / "served" / "org" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(text)
    (tmp_path / "served/org/model/sub").mkdir()
    (tmp_path / "served/org/model/sub/config.json").write_text('{"at": "sub"}')
    monkeypatch.setattr(hub_module, "silent_until", {})
    monkeypatch.setenv("HF_TOKEN", "")
    with serve_hub(tmp_path / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def point_to_silence(monkeypatch):
    """Send requests to a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


def test_a_folder_comes_before_the_hub(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub" / "config.json").write_text("{}")
    assert fetch_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert fetch_file(str(tmp_path), "config.json", subfolder="sub") == tmp_path / "sub" / "config.json"
    assert fetch_file(tmp_path / "config.json", "config.json") == tmp_path / "config.json"


def test_a_file_missing_from_a_folder_is_none_or_an_error_that_names_both(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    assert find_file(tmp_path, "config.json") is None
    assert find_file(tmp_path / "weights.pth", "config.json") is None
    with pytest.raises(CheckpointError, match=rf"{tmp_path.name}.* holds no config\.json"):
        fetch_file(tmp_path, "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json is needed, got the file .*weights\.pth"):
        fetch_file(tmp_path / "weights.pth", "config.json")


@pytest.mark.parametrize("name", ["./here", "/no/where", "a/b/c", "~/nobody/here", "org/", "with space", "C:\\x"])
def test_what_can_only_be_a_path_is_not_asked_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no folder or file .*Check the path"):
        find_file(name, "config.json")


def test_a_name_that_the_hub_does_not_allow_is_no_folder_either(hub, cache):
    with pytest.raises(CheckpointError, match=r"no folder 'org/a--b'.*no name of a model"):
        fetch_file("org/a--b", "config.json", cache_dir=cache)


def test_a_download_is_cached_and_asked_for_only_once(hub, cache):
    first = fetch_file("org/model", "config.json", cache_dir=cache)
    assert read_json(first) == {"at": "main"}
    assert hub.methods().count("GET") == 1
    hub.asked.clear()
    assert fetch_file("org/model", "config.json", cache_dir=cache) == first
    assert hub.methods() == ["HEAD"]
    fetch_file("org/model", "config.json", cache_dir=cache, force_download=True)
    assert hub.methods().count("GET") == 1


def test_revision_subfolder_and_token_reach_the_hub(hub, cache):
    hub.token = "hf_secret"
    options = {"cache_dir": cache, "token": "hf_secret"}
    assert read_json(fetch_file("org/model", "config.json", revision="v1", **options)) == {"at": "v1"}
    assert read_json(fetch_file("org/model", "config.json", subfolder="sub", **options)) == {"at": "sub"}
    assert {authorization for _, _, authorization in hub.asked} == {"Bearer hf_secret"}


def test_a_downloaded_file_is_found_without_a_connection(hub, cache, monkeypatch, caplog):
    path = fetch_file("org/model", "config.json", cache_dir=cache)
    hub.asked.clear()
    assert fetch_file("org/model", "config.json", cache_dir=cache, local_files_only=True) == path
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch_file("org/model", "config.json", cache_dir=cache) == path
    assert find_file("org/model", "other.json", cache_dir=cache) is None
    with pytest.raises(CheckpointError, match=r"'other\.json' of 'org/model' is not in the cache, and offline mode"):
        fetch_file("org/model", "other.json", cache_dir=cache)
    assert hub.asked == []
    assert caplog.messages == []


def test_a_dead_hub_is_reported_at_once_and_the_cache_still_serves(hub, cache, monkeypatch, caplog):
    path = fetch_file("org/model", "config.json", cache_dir=cache)
    point_to_silence(monkeypatch)
    start = time.monotonic()
    with pytest.raises(
        CheckpointError, match=r"cannot reach the Hugging Face Hub for 'org/else' \(.+\)\. Connect once"
    ):
        fetch_file("org/else", "config.json", cache_dir=cache)
    assert fetch_file("org/model", "config.json", cache_dir=cache) == path
    assert find_file("org/model", "other.json", cache_dir=cache) is None
    assert time.monotonic() - start < 2.0
    assert "Using the copy in the cache" in caplog.text
    with pytest.raises(CheckpointError, match="cannot reach"):
        fetch_file("org/model", "config.json", cache_dir=cache, force_download=True)


def test_a_hub_that_accepts_and_stays_silent_is_waited_for_once(hub, cache, monkeypatch):
    """The client's own retries would wait six more times, for a minute each."""
    path = fetch_file("org/model", "config.json", cache_dir=cache)
    waits = []

    def never_answer(url, **_):
        waits.append(url)
        time.sleep(0.2)
        raise TimeoutError("timed out")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", never_answer)
    for _ in range(5):
        assert fetch_file("org/model", "config.json", cache_dir=cache) == path
    assert len(waits) == 1
    with pytest.raises(CheckpointError, match=r"cannot reach .* \(it did not answer a moment ago\)"):
        fetch_file("org/else", "config.json", cache_dir=cache)


def test_a_file_missing_from_the_hub_is_none_or_an_error_that_names_it(hub, cache):
    assert find_file("org/model", "other.json", cache_dir=cache) is None
    with pytest.raises(CheckpointError, match=r"'org/model' .* has no file 'other\.json' at 'main'"):
        fetch_file("org/model", "other.json", cache_dir=cache)


@pytest.mark.parametrize("fetch", [fetch_file, find_file])
def test_a_model_that_is_missing_private_or_gated_is_an_error_that_says_so(hub, cache, fetch):
    with pytest.raises(CheckpointError, match=r"no folder 'org/else', and no such model"):
        fetch("org/else", "config.json", cache_dir=cache)
    with pytest.raises(CheckpointError, match="'org/model' has no revision 'v7'"):
        fetch("org/model", "config.json", cache_dir=cache, revision="v7")
    hub.gated.add("org/model")
    with pytest.raises(CheckpointError, match=r"'org/model' is gated\. Accept its terms at .*/org/model"):
        fetch("org/model", "config.json", cache_dir=cache)
    hub.token = "hf_secret"
    with pytest.raises(CheckpointError, match="private, give its token="):
        fetch("org/model", "config.json", cache_dir=cache)


def test_a_login_page_in_place_of_the_hub_is_recognised(hub, cache):
    hub.web_page = True
    with pytest.raises(CheckpointError, match="answers like a web site, not like the Hub"):
        fetch_file("org/model", "config.json", cache_dir=cache)
    assert not list(cache.rglob("config.json"))


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"\n<!DOCTYPE html><html>404</html>", "web page"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS")],
)
def test_what_was_saved_in_place_of_a_file_is_named(tmp_path, content, what):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=what):
        fetch_file(tmp_path, "model.safetensors")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_what_is_no_json_object_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


def test_the_keywords_for_the_hub_are_told_from_the_others():
    assert split_hub_options({"revision": "v1", "num_frames": 8}) == ({"revision": "v1"}, {"num_frames": 8})


def test_huggingface_hub_is_imported_for_a_download_only(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys; from videomae.hub import fetch_file; fetch_file(sys.argv[1], 'config.json');"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    source = os.path.dirname(os.path.dirname(hub_module.__file__))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": source})
    assert done.returncode == 0


def test_a_name_that_no_file_can_have_is_an_error_of_ours():
    with pytest.raises(CheckpointError, match="there is no folder or file"):
        find_file("./" + "x" * 5000, "config.json")
