"""A video by its address: from hosts that the server's owner named, and from no other."""

import time
from collections.abc import Collection
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from videomae.serving.limits import Limits
from videomae.serving.refusals import BAD_REQUEST, FORBIDDEN, TOO_LARGE, Refusal

CHUNK = 2**16
ANSWER_SECONDS = 10.0


class _NoRedirects(HTTPRedirectHandler):
    """An allowed host must not send the server to one that is not."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def fetch(url: str, file: IO[bytes], *, allowed: Collection[str], limits: Limits) -> None:
    """Load what is at an address into a file.

    Args:
        url: of http or https.
        file: to write to.
        allowed: hosts, as ``example.org`` or ``example.org:8080``.
        limits: of bytes and seconds.

    Raises:
        Refusal: if the host is not allowed, does not answer, or sends too much.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.netloc not in allowed:
        rule = f"only from {', '.join(sorted(allowed))}" if allowed else "from nowhere (--allow-urls names hosts)"
        raise Refusal(FORBIDDEN, f"this server fetches videos {rule}: send the video itself.")
    deadline, size = time.monotonic() + limits.upload_seconds, 0
    try:
        request = Request(url, headers={"User-Agent": "videomae"})
        with build_opener(_NoRedirects).open(request, timeout=ANSWER_SECONDS) as answer:
            while part := answer.read1(CHUNK):
                size += len(part)
                if size > limits.max_bytes or time.monotonic() > deadline:
                    raise Refusal(
                        TOO_LARGE,
                        f"a video by its address must have at most {limits.max_bytes} bytes, and come within "
                        f"{limits.upload_seconds:g} s. Name a smaller copy.",
                    )
                file.write(part)
    except (URLError, OSError, ValueError) as error:
        raise Refusal(
            BAD_REQUEST, f"{parts.netloc} does not give the video ({error}): send the video itself."
        ) from error
