"""The Open Inference Protocol, as its clients speak it."""

import json

import numpy as np
import pytest

LENGTH = "Inference-Header-Content-Length"
CLIPS = np.stack([np.full((4, 32, 32, 3), level, np.uint8) for level in (10, 240)])
INPUT = {"name": "frames", "datatype": "UINT8", "shape": [2, 4, 32, 32, 3]}


def infer(client, header, content=b"", model="light"):
    text = json.dumps(header).encode()
    return client.post(f"/v2/models/{model}/infer", content=text + content, headers={LENGTH: str(len(text))})


def test_the_server_and_its_model_say_what_they_are(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/light/ready").status_code == 200
    metadata = client.get("/v2/models/light").json()
    assert metadata["inputs"] == [{"name": "frames", "datatype": "UINT8", "shape": [-1, 4, 32, 32, 3]}]
    assert metadata["parameters"]["labels"] == ["dark", "bright"]
    assert client.get("/v2/models/other").status_code == 404
    assert "'light'" in client.get("/v2/models/other").json()["error"]
    assert client.get("/v2/models/light/versions/1").json() == metadata
    assert client.get("/v2/models/light/versions/1/ready").status_code == 200
    refused = client.get("/v2/models/light/versions/2")
    assert (refused.status_code, refused.json()["error"]) == (
        404,
        "light has no version '2': ask for 1, or for none.",
    )


def test_binary_tensors_go_in_and_come_out(client):
    inputs = [INPUT | {"parameters": {"binary_data_size": CLIPS.nbytes}}]
    outputs = [{"name": "logits"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    answer = infer(client, {"id": "7", "inputs": inputs, "outputs": outputs}, CLIPS.tobytes())
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    header = json.loads(answer.content[:length])
    assert (header["id"], header["model_name"]) == ("7", "light")
    logits, probabilities = header["outputs"]
    assert (logits["shape"], len(logits["data"])) == ([2, 2], 4)
    assert probabilities["parameters"]["binary_data_size"] == 16
    values = np.frombuffer(answer.content[length:], "<f4").reshape(2, 2)
    np.testing.assert_array_equal(values.argmax(axis=1), [0, 1])
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)


def test_json_tensors_give_the_same(client):
    answer = client.post("/v2/models/light/infer", json={"inputs": [INPUT | {"data": CLIPS.tolist()}]})
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    assert (output["name"], output["shape"]) == ("probabilities", [2, 2])
    assert output["data"][0] > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "video"}, "one tensor 'frames'"),
        ({"datatype": "FP32"}, "of UINT8"),
        ({"shape": [2, 4, 32, 30, 3]}, "got the shape [2, 4, 32, 30, 3]"),
        ({"shape": [-1, 4, 32, 32, 3]}, "got the shape"),
        ({"shape": "x"}, "got the shape 'x'"),
        ({"parameters": {"binary_data_size": 7}}, "got 24576, stated as 7"),
        ({"parameters": 3}, "parameters must be an object"),
        ({"shape": [9, 4, 32, 32, 3]}, "at most 8 clips"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_in_words(client, change, message):
    tensor = INPUT | {"parameters": {"binary_data_size": CLIPS.nbytes}} | change
    answer = infer(client, {"inputs": [tensor]}, CLIPS.tobytes())
    assert answer.status_code in (400, 413)
    assert message in answer.json()["error"]


@pytest.mark.parametrize("data", [None, [1, 2], ["a"], [[1], [2, 3]], [300] * CLIPS.size, [0.5] * CLIPS.size])
def test_numbers_that_are_no_pixels_are_refused(client, data):
    answer = client.post("/v2/models/light/infer", json={"inputs": [INPUT | {"data": data}]})
    assert answer.status_code == 400
    assert "whole numbers from 0 to 255" in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "100000", "3"])
def test_a_length_that_is_wrong_is_refused(client, length):
    answer = client.post("/v2/models/light/infer", content=b'{"inputs": []}', headers={LENGTH: length})
    assert answer.status_code == 400


def test_an_output_that_there_is_not_is_refused(client):
    tensor = INPUT | {"parameters": {"binary_data_size": CLIPS.nbytes}}
    answer = infer(client, {"inputs": [tensor], "outputs": [{"name": "labels"}]}, CLIPS.tobytes())
    assert "must be among probabilities, logits" in answer.json()["error"]
