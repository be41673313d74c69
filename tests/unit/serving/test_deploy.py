"""The files that bring a server elsewhere."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from classifiers import save_light_model
from videomae.commands.serve import ServeSettings
from videomae.settings import parse_settings

ROOT = Path(__file__).parents[3]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_container_copies_what_is_there_and_starts_a_server_that_can_be_reached():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    extras = set(re.search(r"'\.\[(.+)\]'", text)[1].split(","))
    assert extras <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    program, *words = json.loads(re.search(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[1])
    assert (program, words) == ("videomae", ["serve"])
    settings = parse_settings(ServeSettings, json.loads(re.search(r"^CMD (.+)$", text, re.MULTILINE)[1]), prog="serve")
    assert (settings.model, settings.host, settings.port) == ("/model", "0.0.0.0", 8000)
    assert "EXPOSE 8000" in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_a_replica_on_ray_is_a_whole_server(tmp_path, video):
    pytest.importorskip("ray.serve", reason="needs Ray Serve")
    ray_serve = load("ray_serve")
    app = ray_serve.make_replica(str(save_light_model(tmp_path / "model")))
    with TestClient(app) as client:
        assert len(client.post("/", content=video).json()) == 2
    built = ray_serve.build({"model": "m", "min_replicas": "2", "max_replicas": "8", "gpus": "1"})
    deployment = built._bound_deployment
    assert deployment.ray_actor_options["num_gpus"] == 1
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)


DEMO = """
import json, sys, gradio_demo
demo = gradio_demo.build(sys.argv[1])
look = next(function.fn for function in demo.fns.values() if function.api_name == "look")
refusals = []
for file in (None, sys.argv[3]):
    try:
        look(file, 1.0)
    except gradio_demo.gr.Error as error:
        refusals.append(error.message)
labels, _, events = look(sys.argv[2], 1.0)
print(json.dumps([labels, events, refusals]))
"""


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio")
def test_the_demo_of_gradio_tells_events(tmp_path, video):
    """In a process of its own: Gradio leaves an event loop open."""
    (tmp_path / "long.mp4").write_bytes(video)
    (tmp_path / "text.mp4").write_bytes(b"not a video")
    files = [save_light_model(tmp_path / "model"), tmp_path / "long.mp4", tmp_path / "text.mp4"]
    command = [sys.executable, "-c", DEMO, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "deploy")
    assert done.returncode == 0, done.stderr
    labels, events, refusals = json.loads(done.stdout.splitlines()[-1])
    assert set(labels) == {"dark", "bright"}
    assert [event[0] for event in events] == ["dark", "bright", "dark"]
    assert refusals[0] == "Choose a video first."
    assert "text.mp4" in refusals[1]
