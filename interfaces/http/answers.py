"""JSON answers on the paths where every microsecond is paid by each request."""

from collections.abc import Mapping

from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Receive, Scope, Send

JSON = "application/json"


class JSONAnswer:
    """An ASGI application that answers with `content` as it is.

    The framework's own response object is built twice, looks for cookies and merges headers one by one: a quarter of
    the time that a status read takes.
    """

    __slots__ = ("_body", "_start")

    def __init__(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        if content:
            named += [(b"content-type", JSON.encode()), (b"content-length", str(len(content)).encode())]
        self._start: HTTPResponseStartEvent = {"type": "http.response.start", "status": status, "headers": named}
        self._body: HTTPResponseBodyEvent = {"type": "http.response.body", "body": content, "more_body": False}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)
        await send(self._body)
