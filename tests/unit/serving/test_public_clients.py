"""Programs of others ask a server: Triton's client, and a fuzzer that reads the description."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from classifiers import save_light_model
from servers import started
from videomae import VideoClassifier

CLIPS = np.stack([np.full((4, 32, 32, 3), level, np.uint8) for level in (10, 240, 20)])
EXAMPLES = 20  # of each operation


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_light_model(tmp_path_factory.mktemp("clients") / "light")


@pytest.fixture(scope="module")
def address(model):
    with started(model) as (_, address):
        yield address


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_tritons_client_gets_the_models_answers(model, address, binary):
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient")
    with http.InferenceServerClient(address.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("light")
        assert not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        described = client.get_model_metadata("light")
        tensor = http.InferInput("frames", list(CLIPS.shape), described["inputs"][0]["datatype"])
        tensor.set_data_from_numpy(CLIPS, binary_data=binary)
        wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("logits", "probabilities")]
        found = client.infer("light", [tensor], outputs=wanted, request_id="7")
        assert found.get_response()["id"] == "7"
        engine = VideoClassifier.from_pretrained(model, device="cpu").engine
        np.testing.assert_allclose(found.as_numpy("logits"), engine(CLIPS), rtol=1e-5, atol=1e-5)
        assert found.as_numpy("probabilities").argmax(axis=1).tolist() == [0, 1, 0]
        again = client.infer("light", [tensor], model_version="1").as_numpy("probabilities")
        np.testing.assert_array_equal(again, found.as_numpy("probabilities"))
        # Without outputs named the client asks for all of them in binary.
        assert client.infer("light", [tensor]).as_numpy("probabilities").shape == (3, 2)


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis")
def test_nothing_that_the_description_allows_or_forbids_makes_the_server_fail(address, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--mode", "all"]
    options = ["--checks", "not_a_server_error", "--max-examples", str(EXAMPLES), "--no-shrink", "--no-color"]
    options += ["--generation-deterministic", "--request-timeout", "60", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "not_a_server_error" not in done.stdout
