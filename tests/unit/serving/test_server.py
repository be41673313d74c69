"""What stands around the answers: the token, room for requests, what is counted and described, the end of a server."""

import asyncio
import base64
import io
import re
import signal
import threading
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from classifiers import save_light_model, save_small_pretrained
from servers import started
from videomae.serving.app import make_app
from videomae.serving.batcher import Batcher
from videomae.serving.fetching import fetch
from videomae.serving.guards import Gate
from videomae.serving.limits import Limits
from videomae.serving.metrics import Metrics
from videomae.serving.model import ServedModel
from videomae.serving.pages import PAGES
from videomae.serving.refusals import Refusal
from videomae.serving.service import Service


def test_a_token_is_asked_for_everywhere_but_where_nothing_is_to_be_seen(service, video):
    client = TestClient(make_app(service, token="secret"))
    assert client.get("/").status_code == client.get("/v2/health/live").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
        for path in ("/metrics", "/about"):
            assert client.get(path, headers=headers).status_code == 401
        answer = client.post("/", content=video, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/about", headers={"authorization": "Bearer secret"}).json()["name"] == "light"


def test_a_full_server_says_when_to_come_again():
    gate = Gate(1, Metrics())
    with gate.enter(), pytest.raises(Refusal, match="ask again in 1 s") as refused, gate.enter():
        pass
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    with gate.enter():
        assert gate.active == 1


def test_a_full_server_refuses_with_429_and_answers_the_rest(client, video):
    """Four requests are let in at once."""
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/", content=video, params={"top_k": 1})))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
    assert all(a.json()[0]["label"] == "bright" for a in answers if a.status_code == 200)


def test_clips_of_different_requests_go_through_the_model_together_and_get_their_own_rows():
    sizes = []

    def run(clips):
        sizes.append(len(clips))
        return clips.mean(axis=(2, 3, 4)).astype(np.float32)

    async def ask():
        batcher = Batcher(run, max_batch=4, wait=0.05, metrics=Metrics())
        batcher.start()
        try:
            return await asyncio.gather(*(batcher(np.full((1, 2, 2, 3), i, np.uint8)) for i in range(6)))
        finally:
            await batcher.close()

    assert [row.item() for row in asyncio.run(ask())] == list(range(6))
    assert sizes == [4, 2]


def test_what_fails_in_the_model_fails_its_requests_only():
    async def ask():
        def run(clips):
            if clips.max() > 1:
                raise RuntimeError("no such luck")
            return np.zeros((len(clips), 2), np.float32)

        batcher = Batcher(run, max_batch=1, wait=0, metrics=Metrics())
        batcher.start()
        try:
            with pytest.raises(RuntimeError, match="luck"):
                await batcher(np.full((1, 2, 2, 3), 9, np.uint8))
            return await batcher(np.zeros((1, 2, 2, 3), np.uint8))
        finally:
            await batcher.close()

    assert asyncio.run(ask()).shape == (2,)


def test_videos_are_fetched_from_named_hosts_only(client):
    answer = client.post("/", json={"inputs": "http://169.254.169.254/latest"})
    assert (answer.status_code, "--allow-urls" in answer.json()["error"]) == (403, True)
    for url in ("file:///etc/passwd", "http://example.org@evil.org/", "http://evil.org/"):
        with pytest.raises(Refusal, match=r"only from example\.org"):
            fetch(url, None, allowed={"example.org"}, limits=Limits())


def test_requests_and_batches_are_counted(client, video):
    client.post("/", content=video)
    page = client.get("/metrics").text
    assert float(re.search(r'videomae_requests_total{path="/",status="200"} (\S+)', page)[1]) >= 1
    assert float(re.search(r"videomae_batch_clips_count (\S+)", page)[1]) >= 1
    client.get("/never-heard-of")
    page = client.get("/metrics").text
    assert 'path="other",status="404"' in page
    assert "never-heard-of" not in page


def test_all_that_is_answered_is_described(client):
    document = client.get("/openapi.json").json()
    assert {"/", "/timeline", "/embed", "/explain", "/v2/models/{model}/infer"} <= document["paths"].keys()
    names = {parameter["name"] for parameter in document["paths"]["/"]["post"]["parameters"]}
    assert {"top_k", "num_frames", "frame_sampling_rate", "function_to_apply"} <= names


@pytest.mark.parametrize("path", PAGES)
def test_the_page_loads_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://(?!www\.w3\.org/)", answer.text)  # but names of XML
    for name in re.findall(r'(?:src|href)="([^":]+)"', answer.text):
        assert client.get("/" + name.removeprefix("./")).status_code == 200


def test_every_element_that_the_scripts_name_is_on_the_page(client):
    page = client.get("/").text
    scripts = "".join(client.get(path).text for path in PAGES if path.endswith(".js"))
    there = {*re.findall(r'id="([^"]+)"', page), *re.findall(r'id: "([^"]+)"', scripts)}
    assert set(re.findall(r'\$\("([^"]+)"\)', scripts)) <= there
    for name in re.findall(r'from "\./([^"]+)"', scripts):
        assert f"/{name}" in PAGES


def test_a_checkpoint_is_asked_for_features_and_explanations(tmp_path, video):
    model = ServedModel.open(save_light_model(tmp_path / "model"))
    with TestClient(make_app(Service(model, Limits(workers=1)))) as client:
        embedding = client.post("/embed", content=video)
        assert len(embedding.json()["embedding"]) == 16
        found = client.post("/explain", content=video, params={"label": "bright"}).json()
        assert found["label"] == "bright"
        assert np.shape(found["map"]) == (2, 2, 2)
        assert found["box"] == pytest.approx([1 / 6, 0, 5 / 6, 1])
        assert client.post("/explain", content=video, params={"label": "drak"}).status_code == 400
        assert client.post("/reconstruct", content=video).status_code in (404, 405)


def test_a_pretrained_model_shows_what_it_makes_of_what_is_hidden(tmp_path, video):
    save_small_pretrained(tmp_path)
    model = ServedModel.open(tmp_path, name="pretrained")
    with TestClient(make_app(Service(model, Limits(workers=1)))) as client:
        found = client.post("/reconstruct", content=video, params={"mask_ratio": 0.5}).json()
        assert (found["mask_ratio"], found["frames"]) == (0.5, 4)
        strip = base64.b64decode(found["views"]["reconstruction"].partition(",")[2])
        assert Image.open(io.BytesIO(strip)).size == (32, 4 * 32)
        assert len(client.post("/embed", content=video).json()["embedding"]) == 16
        refused = client.post("/reconstruct", content=video, params={"mask_ratio": 0.01})
        assert (refused.status_code, "mask_ratio" in refused.json()["error"]) == (400, True)
        assert client.get("/about").json()["task"] == "pretraining"


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="max_batch must be at least 1"):
        Limits(max_batch=0)
    with pytest.raises(ValueError, match="max_seconds"):
        Limits(max_seconds=float("inf"))


@pytest.fixture
def process(tmp_path):
    """A server of its own, and its address."""
    with started(save_light_model(tmp_path / "light")) as (server, address):
        yield server, address


def test_sigterm_loses_no_request_that_was_accepted(process, video):
    server, address = process

    def slow():
        yield video[:1000]
        asked.set()
        ended.wait(10)
        yield video[1000:]

    asked, ended, answers = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=lambda: answers.append(httpx2.post(address, content=slow(), timeout=60)))
    thread.start()
    assert asked.wait(10)
    assert httpx2.get(f"{address}/v2/health/ready").status_code == 200
    workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    server.send_signal(signal.SIGTERM)
    ended.set()
    thread.join(60)
    assert answers[0].status_code == 200
    assert len(answers[0].json()) == 2
    assert server.wait(30) == 0
    assert workers
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
