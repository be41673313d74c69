"""A server in this process, with a model that tells bright from dark, and videos to ask about."""

import pytest
from starlette.testclient import TestClient

from classifiers import bright_classifier, long_video
from videomae.serving.app import make_app
from videomae.serving.limits import Limits
from videomae.serving.model import ServedModel
from videomae.serving.service import Service

LIMITS = Limits(
    max_bytes=2**20,
    max_json_bytes=2**19,
    max_seconds=30,
    max_pixels=400 * 400,
    upload_seconds=5,
    decode_seconds=5,
    max_requests=4,
    workers=1,
)


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """10 seconds, bright from 4 to 7."""
    return long_video(tmp_path_factory.mktemp("serving") / "long.mp4").read_bytes()


@pytest.fixture(scope="session")
def service():
    return Service(ServedModel("light", classifier=bright_classifier()), LIMITS)


@pytest.fixture(scope="session")
def client(service):
    with TestClient(make_app(service)) as client:
        yield client
