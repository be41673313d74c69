"""The Hub's task "video-classification", in each way in which its clients ask."""

import base64
import gzip
import json
import math

import pytest


def score_of(answer, label):
    assert answer.status_code == 200, answer.text
    return {item["label"]: item["score"] for item in answer.json()}[label]


def as_body(client, video, parameters):
    return client.post("/", content=video, params=parameters, headers={"content-type": "video/mp4"})


def as_form(client, video, parameters):
    return client.post("/", files={"file": ("v.mp4", video)}, data=parameters)


def as_form_with_json(client, video, parameters):
    return client.post("/", files={"inputs": ("v.mp4", video)}, data={"parameters": json.dumps(parameters)})


def as_json(client, video, parameters):
    return client.post("/", json={"inputs": base64.b64encode(video).decode(), "parameters": parameters})


@pytest.mark.parametrize("ask", [as_body, as_form, as_form_with_json, as_json])
def test_a_video_is_classified_however_it_is_sent(client, video, ask):
    answer = ask(client, video, {})
    assert score_of(answer, "bright") > 0.99
    assert [item["label"] for item in answer.json()] == ["bright", "dark"]
    assert [item["label"] for item in ask(client, video, {"top_k": 1}).json()] == ["bright"]


def test_scores_are_of_the_function_that_is_asked_for(client, video):
    logit = score_of(as_body(client, video, {"function_to_apply": "none"}), "bright")
    other = score_of(as_body(client, video, {"function_to_apply": "none"}), "dark")
    assert score_of(as_body(client, video, {"function_to_apply": "sigmoid"}), "bright") == pytest.approx(
        1 / (1 + math.exp(-logit)), abs=1e-6
    )
    assert score_of(as_body(client, video, {}), "bright") == pytest.approx(1 / (1 + math.exp(other - logit)), abs=1e-6)


def test_the_frames_are_those_of_the_stretch_that_is_asked_for(client, video):
    assert score_of(as_body(client, video, {"start": 0, "end": 3.5}), "dark") > 0.99
    assert score_of(as_body(client, video, {"start": 4.5, "end": 6.5}), "bright") > 0.99


def test_the_scores_are_those_of_the_classifier_on_the_file(client, video, service, tmp_path):
    (tmp_path / "v.mp4").write_bytes(video)
    expected = service.model.classifier(tmp_path / "v.mp4", stride=8)
    answer = as_body(client, video, {"frame_sampling_rate": 8})
    assert answer.json() == [{"label": p.label, "score": pytest.approx(p.score, abs=0.02)} for p in expected]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"topk": 1}, "no parameter 'topk' (did you mean 'top_k'?)"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1"),
        ({"top_k": "many"}, "got 'many'"),
        ({"num_frames": 5}, "num_frames must be 4"),
        ({"frame_sampling_rate": "nan"}, "frame_sampling_rate must be a number"),
        ({"function_to_apply": "max"}, "one of softmax, sigmoid, none"),
        ({"start": 1}, "start and end go together"),
        ({"start": 20, "end": 22}, "must lie in the video, of 10.000 s"),
        ({"start": 3, "end": 2}, "start before end"),
    ],
)
@pytest.mark.parametrize("ask", [as_body, as_json])
def test_a_parameter_that_makes_no_sense_is_refused_in_words(client, video, ask, parameters, message):
    answer = ask(client, video, parameters)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body must be JSON"),
        (b"[1]", "must be an object of JSON, got list"),
        (b"[" * 100_000, "the body must be JSON"),
        (b'{"inputs": 3}', "JSON must be"),
        (b'{"inputs": "!!"}', "must be a video in base64"),
        (b'{"inputs": ""}', "brings no video"),
        (b'{"inputs": "AAAA", "options": {}}', "JSON must be"),
    ],
)
def test_json_that_brings_no_video_is_refused_in_words(client, body, message):
    answer = client.post("/", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


# Starlette leaves the file of a form that is cut short to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
def test_a_form_that_brings_no_video_is_refused_in_words(client, video):
    assert "holds no file" in client.post("/", data={"a": "b"}, files={"x": (None, "y")}).json()["error"]
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n' + video[:1000]
    answer = client.post("/", content=cut, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422), answer.text
    answer = client.post("/", content=cut, headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert "the form cannot be read" in answer.json()["error"]


def test_a_compressed_body_is_refused_in_words(client, video):
    """What it unfolds to is not known before."""
    answer = client.post("/", content=gzip.compress(video), headers={"content-encoding": "gzip"})
    assert (answer.status_code, "got one in gzip" in answer.json()["error"]) == (415, True)
    assert client.post("/", content=video, headers={"content-encoding": "identity"}).status_code == 200
