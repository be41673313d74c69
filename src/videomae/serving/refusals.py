"""What a server does not do, in words, and the status that says so to programs."""

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 400, 401, 403, 404
TIMED_OUT, TOO_LARGE, COMPRESSED, UNREADABLE, BUSY, UNAVAILABLE = 408, 413, 415, 422, 429, 503


class Refusal(Exception):  # noqa: N818 - the server is right
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        message: what was wrong, the rule, and what to do.
        retry_after: seconds after which to ask again, where that helps.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP says besides the status."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == UNAUTHORIZED else {})
