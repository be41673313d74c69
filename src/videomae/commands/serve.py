"""``videomae serve``: answer requests about videos over HTTP, and show a page."""

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path

import tyro

from videomae.console import say, working
from videomae.inference.engines.formats import EngineName
from videomae.options import Device, Dtype
from videomae.serving.limits import Limits

TOKEN_VARIABLE = "VIDEOMAE_TOKEN"


@dataclasses.dataclass
class ServeSettings:
    """Answer requests about videos over HTTP, and show a page; /docs says what can be asked."""

    model: tyro.conf.Positional[str]
    """Directory, weights file, exported file, or id on the Hugging Face Hub: a classifier, or a pre-trained model."""

    engine: EngineName | None = None
    """What runs the model: torch, openvino or onnx; by default what is there."""

    name: str | None = None
    """Of the model, in the Open Inference Protocol; by default the last part of MODEL."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is all of this machine's, for which a token is due."""

    port: int = 8000
    """Port to listen at; 0 takes a free one and prints it."""

    token_file: Path | None = None
    """File with a token that clients must show (Authorization: Bearer ...); or set VIDEOMAE_TOKEN."""

    allow_urls: tuple[str, ...] = ()
    """Hosts, such as example.org, from which videos are fetched by their address; by default from none."""

    device: Device = None

    dtype: Dtype = None

    limits: Limits = dataclasses.field(default_factory=Limits)


def main(settings: ServeSettings) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from videomae.serving.model import ServedModel
    from videomae.serving.server import run
    from videomae.serving.service import Service

    s = settings
    if find_spec("resource") is None:
        raise ValueError(
            "serving needs Linux or another Unix, where the processes that decode uploads can be limited: run it in a "
            "container there."
        )
    if not 0 <= s.port <= 65535:
        raise ValueError(f"--port must lie in 0-65535, got {s.port}.")
    token = _token(s.token_file)
    with working("loading the model"):
        model = ServedModel.open(s.model, name=s.name, engine=s.engine, device=s.device, dtype=s.dtype)
    service = Service(model, s.limits, allowed_hosts=frozenset(s.allow_urls))
    if token is None and s.host not in ("127.0.0.1", "::1", "localhost"):
        say([f"warning: whoever reaches {s.host} may ask, as there is no token (--token-file, {TOKEN_VARIABLE})"])
    run(
        service,
        host=s.host,
        port=s.port,
        token=token,
        on_listening=lambda address: say([f"{model.name} is served at {address} (Ctrl-C ends it)"]),
    )
    return 0


def _token(file: Path | None) -> str | None:
    if file is None and TOKEN_VARIABLE not in os.environ:
        return None
    text = os.environ.pop(TOKEN_VARIABLE) if file is None else file.read_text(encoding="utf-8")
    token = text.strip()
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise ValueError("the token must be one word of ASCII characters: make one with `openssl rand -hex 32`.")
    return token
