"""Connections whose clients are slow, endless, deaf or too many are closed before they cost much."""

import asyncio
import resource
import socket
from collections import deque
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httptools
from msgspec.json import encode
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from interfaces.http.problems import PROBLEM_JSON, RETRY_AFTER, problem
from interfaces.http.safety import HEADERS

LARGEST_HEAD = 64 * 1024
MOST_AHEAD = 32
"""Requests that a client may send before the one before them is answered; each takes some memory."""
SPARE_FILES = 64
"""Files that are not for clients: connections to the database, artifacts, the log."""
MOST_DISCARDED = 64 * 1024 * 1024
"""Bytes of a body that are read and thrown away after its answer, so that a client who is sending sees the answer."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BLANKS = (b" ", b"\t")
"""Behind a header's value they are no part of it (RFC 9112, 5.1); the parser takes those before it away only."""
NO_TRAILERS: deque[tuple[bytes, bytes]] = deque(maxlen=0)
"""Keeps nothing. What stands behind a body is no header (RFC 9110, 6.5.1), and uvicorn takes it for one."""


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes heads of any size at any pace, and waits without end for a reader.

    It also loses the body of a request that offers an upgrade, and answers HTTP/1.0 in chunks.
    """

    head_seconds = 60.0
    """Within which a client must have said what it wants, once it connected or began to."""
    deaf_seconds = 60.0
    """After which a client that has read nothing of its answer is given up."""
    rest_seconds = 30.0
    """Within which a body must end that was answered before it was there."""

    _in_head = True
    _heads = 0
    _size = 0
    _discarded = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the system gives up when it does
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.deaf_seconds * 1000))
        if len(self.connections) > most_connections():
            self._refuse("busy", "this server has as many connections as it may have open files for")
        else:
            self._wait(self.head_seconds)

    def data_received(self, data: bytes) -> None:
        was_in_head, heads = self._in_head, self._heads
        if self._in_head and self._late is None:
            self._wait(self.head_seconds)
        self._read(data)
        if was_in_head and self._in_head and heads == self._heads:
            self._size += len(data)
            if self._size > LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("the head of the request is too large")
        elif not self._in_head and not self.transport.is_closing() and self.cycle.response_complete:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.transport.close()

    def _read(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:  # it takes the head for all of the request
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                reason = error.__context__
                self.logger.info("Invalid HTTP request received.")
                self.send_400_response(str(reason) if isinstance(reason, NotTaken) else "this is no HTTP request")
                return

    def _without_upgrade(self) -> bytes:
        """The head again. An upgrade that is not taken up is ignored (RFC 9110, 7.8)."""
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = (b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)  # the other one reads nothing behind `Connection: close`
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return line + b"".join(kept) + b"\r\n"

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise NotTaken("this server makes no tunnels")
        for n, (name, value) in enumerate(self.headers):
            if value.endswith(BLANKS):
                self.headers[n] = name, value.rstrip(b" \t")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise NotTaken("the only Transfer-Encoding that this server takes is chunked")
        if self.parser.should_upgrade():
            return
        self._in_head, self._size, self._discarded = False, 0, 0
        self._heads += 1
        self._stop_waiting()
        super().on_headers_complete()
        self.headers = NO_TRAILERS  # type: ignore[assignment]
        answer = OneWrite(self.loop, self.transport)
        self.cycle.transport, self.cycle.on_response = answer, lambda: self._answered(answer)
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = WithoutChunks  # uvicorn makes its own kind
            self.cycle.chunked_encoding = False

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._stop_waiting()
        super().on_message_complete()
        if len(self.pipeline) >= MOST_AHEAD:
            raise AskedTooMuch

    def _answered(self, answer: "OneWrite") -> None:
        """After HEAD nothing goes with the head, and who writes or closes next does not know that it waits."""
        answer.send_head()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_head:
            self._wait(self.rest_seconds)

    def send_400_response(self, msg: str) -> None:
        self._refuse("invalid", msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _refuse(self, code: str, detail: str) -> None:
        """Answer what is no request, and hang up; whole requests before it are answered first, and it is left out."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            return
        if cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline):
            self.transport.write(_answer(code, detail))
        self.transport.close()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class OneWrite(asyncio.Transport):
    """A connection that an answer is written to: its head goes with what follows at once, in one call of the system.

    uvicorn writes both apart, each of which uvloop sends by itself. A head that nothing follows is sent soon after.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if self._head is None and data == CONTINUE:  # the client waits for it; behind a head it is a file's content
            self._transport.write(data)
        elif self._head is None:
            self._head = bytes(data)
            self._loop.call_soon(self.send_head)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(b"".join((head, data)))
        else:
            self._transport.write(data)

    def close(self) -> None:
        self.send_head()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def send_head(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""


class WithoutChunks(RequestResponseCycle):
    """An answer to HTTP/1.0, which knows no chunks: it ends with the connection, whatever its length."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class NotTaken(Exception):
    """HTTP that this server does not do."""


class AskedTooMuch(Exception):
    """Ends the reading of what else a client sent; it is told by `Connection: close` which answer is the last."""


def most_connections() -> int:
    """As many as leave `SPARE_FILES`, so that there is always a file for the work itself."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(files - SPARE_FILES, files // 2) if files != resource.RLIM_INFINITY else 2**31


def _answer(code: str, detail: str) -> bytes:
    """A whole HTTP answer with a problem, after which the connection is closed."""
    told = problem(code, detail, uuid4().hex)
    body = encode(told)
    status = HTTPStatus(told.status)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {PROBLEM_JSON}",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {told.request_id}",
        "X-Content-Type-Options: nosniff",
        *(f"{name.decode()}: {value.decode()}" for name, value in HEADERS),
        *([f"Retry-After: {RETRY_AFTER}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
