"""A small stand-in for the Hugging Face Hub on 127.0.0.1, as far as ``huggingface_hub`` asks one for files.

    with serve_hub(root) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        VideoMAEConfig.from_pretrained("org/name", cache_dir=tmp_path)

serves ``root/org/name/file`` as the main branch of ``org/name``, ``root/org/name@tag/file`` as its revision ``tag``.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the server serves, and what it was asked.

    Attributes:
        root: folder of organisations, each a folder of models.
        url: address of the server, for HF_ENDPOINT.
        token: if set, what every request must carry; others are told that there is no such model, as the Hub does.
        gated: models that answer everyone with "ask for access".
        web_page: if true, everything is answered with a page, as a hotel's login does.
        asked: (method, path, Authorization header) of each request.
        commits: (model, revision, title) of each upload.
    """

    root: Path
    url: str = ""
    token: str | None = None
    gated: set[str] = field(default_factory=set)
    web_page: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    commits: list[tuple[str, str, str]] = field(default_factory=list)

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]


@contextmanager
def serve_hub(root: Path) -> Iterator[Hub]:
    """Serve a folder of checkpoints until the block ends."""
    hub = Hub(Path(root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.hub.asked.append((self.command, self.path, authorization))
        if self.hub.web_page:
            return self._answer(200, b"<!DOCTYPE html><title>Log in</title>", {"Content-Type": "text/html"})
        if "/revision/" in self.path:  # older versions ask how files are stored before they upload some
            content = json.dumps(
                {"id": self.path.split("/revision/")[0].removeprefix("/api/models/"), "xetEnabled": False}
            )
            return self._answer(200, content.encode(), {"Content-Type": "application/json"})
        repo, _, rest = unquote(self.path).lstrip("/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        if self.hub.token is not None and authorization != f"Bearer {self.hub.token}":
            return self._refuse(401, "RepoNotFound")
        if repo in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if not (self.hub.root / repo).is_dir():
            return self._refuse(404, "RepoNotFound")
        folder = self.hub.root / (repo if revision == "main" else f"{repo}@{revision}")
        if not folder.is_dir():
            return self._refuse(404, "RevisionNotFound")
        commit = {"X-Repo-Commit": hashlib.sha1(folder.name.encode()).hexdigest()}
        if not (folder / filename).is_file():
            return self._refuse(404, "EntryNotFound", commit)
        content = (folder / filename).read_bytes()
        return self._answer(200, content, commit | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def do_POST(self) -> None:
        """Make a model or a branch, say how files are to be sent (inside the commit), and take a commit."""
        self.hub.asked.append((self.command, self.path, self.headers.get("Authorization")))
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._refuse(401, "")
        *place, action, revision = unquote(urlsplit(self.path).path).removeprefix("/api/models/").split("/")
        answer: dict[str, object] = {}
        if self.path == "/api/repos/create":
            owned = json.loads(body)
            repo = f"{owned.get('organization') or 'me'}/{owned['name']}"
            (self.hub.root / repo).mkdir(parents=True, exist_ok=True)
            answer = {"url": f"{self.hub.url}/{repo}"}
        elif action == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]}
        elif action == "commit":
            repo = "/".join(place)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.hub.commits.append((repo, revision, line["value"]["summary"]))
                else:
                    folder = self.hub.root / (repo if revision == "main" else f"{repo}@{revision}")
                    folder.mkdir(exist_ok=True)
                    (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            answer = {"commitUrl": f"{self.hub.url}/{repo}/commit/{'0' * 40}", "commitOid": "0" * 40}
        return self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, b"", {"X-Error-Code": code} | (headers or {}))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        """Stay silent: the standard handler writes each request to the terminal."""
