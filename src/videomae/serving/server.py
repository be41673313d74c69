"""The process that serves: it listens, and after SIGTERM answers what it has accepted before it ends."""

import signal
import socket
from collections.abc import Callable

from videomae.serving.app import make_app
from videomae.serving.service import Service


def run(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    on_listening: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        service: what answers.
        host: address to listen at.
        port: of it; 0 takes a free one.
        token: that a client must show, or None.
        on_listening: called with the server's address, when clients may come.

    Raises:
        OSError: if one cannot listen there.
    """
    app = make_app(service, token=token)
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_listening(f"http://{host}:{listening.getsockname()[1]}")

        def handle_exit(self, sig: int, frame: object) -> None:
            service.is_draining = True
            super().handle_exit(sig, frame)  # type: ignore[arg-type]

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen at {host}:{port} ({error.strerror}): name another --port or --host.") from error
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=round(service.limits.drain_seconds),
    )
    # uvicorn sends itself the signal again when it has ended: by then all is done.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with listening:
            Server(config).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
