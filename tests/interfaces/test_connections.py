"""How long a connection may take: with a head, with a body that nobody waits for, and with reading its answer."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from application.keys import Keys
from interfaces.http import requests
from interfaces.http.app import create_app
from interfaces.http.connections import CONTINUE, MOST_AHEAD, MOST_DISCARDED, BoundedConnection, OneWrite
from tests.waiting import eventually

PATIENCE = 30.0
LARGE = 8 * 1024 * 1024


class OpenService:
    """A service without keys, and with nothing else."""

    origins = ()
    tracing = None

    def __init__(self) -> None:
        self.keys = Keys(self)  # type: ignore[arg-type]  # it is asked for no more than these

    def state(self) -> object:
        return 0

    def all(self) -> list[Any]:
        return []


class Hasty(BoundedConnection):
    """The same, with less patience."""

    head_seconds = 0.5
    deaf_seconds = 0.5
    rest_seconds = 0.5


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers `/echo` with the body, `/large` with much, `/stream` bit by bit, and all else before it read a body."""
    body = b"x" * LARGE if scope["path"] == "/large" else scope["path"].encode()
    if scope["path"] == "/echo":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
    streamed = scope["path"] == "/stream"
    headers = [] if streamed else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if streamed:
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a server with hasty connections listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, http=Hasty, lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: uvloop.run(server.serve(sockets=[listening])))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def client(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        yield connection


def request(path: str, *headers: str, body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *length, *headers, "", "")).encode() + body


def rest(client: socket.socket) -> bytes:
    """What still comes until the server hangs up."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def trickle(client: socket.socket) -> None:
    """Send a byte now and then until the server hangs up."""
    until = time.monotonic() + PATIENCE
    with suppress(ConnectionError):
        while time.monotonic() < until:
            client.sendall(b"x")
            client.settimeout(0.02)
            with suppress(TimeoutError):
                if client.recv(65536) == b"":
                    return
    assert time.monotonic() < until, "the server did not hang up"


def test_who_says_nothing_is_hung_up_on(client: socket.socket) -> None:
    assert rest(client) == b""


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /la", request("/echo")[:-2] + b"X-Slow: "])
def test_a_head_that_trickles_is_not_waited_for(client: socket.socket, begun: bytes) -> None:
    client.sendall(begun)
    trickle(client)


def test_a_second_head_that_trickles_is_not_waited_for(client: socket.socket) -> None:
    client.sendall(request("/echo", body=b"whole"))
    assert client.recv(65536).endswith(b"whole")
    client.sendall(b"POST /ec")
    trickle(client)


def test_the_end_of_a_body_that_was_answered_already_is_not_waited_for(client: socket.socket) -> None:
    client.sendall(request("/early", "Content-Length: 1000000"))
    assert client.recv(65536).endswith(b"/early")
    trickle(client)


def test_a_body_that_was_answered_already_may_still_end_and_another_request_follow(client: socket.socket) -> None:
    client.sendall(request("/early", "Content-Length: 10") + b"half ")
    assert client.recv(65536).endswith(b"/early")
    client.sendall(b"whole" + request("/echo", body=b"next"))
    assert client.recv(65536).endswith(b"next")


def test_who_reads_nothing_of_an_answer_is_given_up(port: int) -> None:
    with socket.socket() as deaf:
        deaf.settimeout(PATIENCE)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(request("/large"))
        here = deaf.getsockname()
        eventually(lambda: is_connected(here), PATIENCE)
        eventually(lambda: not is_connected(here), PATIENCE)
        with pytest.raises(ConnectionError):
            rest(deaf)


def is_connected(client: tuple[str, int]) -> bool:
    """Whether the server, which is in this process, has a connection with that client."""
    return any(connection.raddr == client for connection in psutil.Process().net_connections("tcp"))


def test_who_reads_slowly_gets_the_whole_answer(port: int) -> None:
    """It takes several times as long as who reads nothing is given."""
    with socket.socket() as slow:
        slow.settimeout(PATIENCE)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.connect(("127.0.0.1", port))
        slow.sendall(request("/large", "Connection: close"))
        begun, size = time.monotonic(), 0
        while piece := slow.recv(LARGE // 40):
            size += len(piece)
            threading.Event().wait(0.05)
    assert size > LARGE
    assert time.monotonic() - begun > 3 * Hasty.deaf_seconds


@pytest.mark.parametrize("media_type", [b"application/json", b"multipart/form-data; boundary=b"])
def test_a_body_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch, media_type: bytes) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.1)
    headers = [(b"host", b"localhost"), (b"content-type", media_type)]
    scope = {"type": "http", "method": "POST", "path": "/v1/visualizations", "query_string": b"", "headers": headers}
    began = False
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal began
        if began:
            await asyncio.Event().wait()
        began = True
        return {"type": "http.request", "body": b"--b", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(create_app(OpenService())(scope, receive, send), PATIENCE))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["detail"] == "the body did not arrive within 0.1 s"


def test_who_is_still_sending_when_the_server_stops_is_told_to_send_it_again() -> None:
    sent: list[Any] = []
    reading = asyncio.Event()

    async def receive() -> Any:
        reading.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def story() -> None:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": headers}
        task = asyncio.ensure_future(create_app(OpenService())(scope, receive, send))  # type: ignore[arg-type]
        await asyncio.wait_for(reading.wait(), PATIENCE)
        task.cancel()  # as uvicorn does when its patience with a stop ends
        await asyncio.wait_for(task, PATIENCE)

    asyncio.run(story())
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
    assert json.loads(sent[1]["body"])["code"] == "unavailable"


def test_requests_in_one_go_are_answered_in_order(client: socket.socket) -> None:
    client.sendall(b"".join(request("/echo", body=b"<%d>" % n) for n in range(MOST_AHEAD)))
    answers = b""
    while b"<%d>" % (MOST_AHEAD - 1) not in answers:
        answers += client.recv(65536)
    assert re.findall(rb"<(\d+)>", answers) == [b"%d" % n for n in range(MOST_AHEAD)]
    assert b"connection: close" not in answers


def test_of_too_many_requests_in_one_go_the_first_are_answered_and_the_last_answer_says_so(
    client: socket.socket,
) -> None:
    client.sendall(b"".join(request("/echo", body=b"<%d>" % n) for n in range(1000)))
    answers = rest(client)
    assert re.findall(rb"<(\d+)>", answers) == [b"%d" % n for n in range(MOST_AHEAD + 1)]
    assert answers.count(b"connection: close") == 1
    assert b"connection: close" in answers.rpartition(b"HTTP/1.1 ")[2]


@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_was_asked_before_nonsense_is_answered_and_nothing_else(client: socket.socket, nonsense: bytes) -> None:
    client.sendall(request("/echo", body=b"asked") + nonsense)
    answer = rest(client)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"asked")


def test_nonsense_is_answered_with_a_problem(client: socket.socket) -> None:
    client.sendall(b"nonsense\r\n\r\n")
    head, _, body = rest(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "invalid"


H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET, ("Connection: upgrade", "Upgrade: TLS/1.3")])
def test_an_upgrade_is_ignored_and_what_was_asked_is_answered(client: socket.socket, upgrade: tuple[str, ...]) -> None:
    chunked = request("/echo", "Transfer-Encoding: chunked", *upgrade) + b"3\r\n<2>\r\n0\r\n\r\n"
    asked = (request("/echo", *upgrade, body=b"<1>"), chunked, request("/<3>", *upgrade), request("/echo", body=b"<4>"))
    client.sendall(b"".join(asked))
    answers = b""
    while b"<4>" not in answers and (more := client.recv(65536)):
        answers += more
    assert re.findall(rb"<(\d)>", answers) == [b"1", b"2", b"3", b"4"]
    assert answers.count(b"HTTP/1.1 200 ") == 4


def test_an_upgrade_is_ignored_however_its_bytes_arrive(client: socket.socket) -> None:
    for byte in request("/echo", *H2C, body=b"whole"):
        client.sendall(bytes([byte]))
    assert rest(client).endswith(b"whole")


def test_upgrades_are_counted_among_the_requests_in_one_go(client: socket.socket) -> None:
    client.sendall(b"".join(request("/echo", *H2C, body=b"<%d>" % n) for n in range(200)))
    assert re.findall(rb"<(\d+)>", rest(client)) == [b"%d" % n for n in range(MOST_AHEAD + 1)]


@pytest.mark.parametrize("upgrade", [(), H2C])
def test_tunnels_are_refused(client: socket.socket, upgrade: tuple[str, ...]) -> None:
    client.sendall("\r\n".join(("CONNECT localhost:80 HTTP/1.1", "Host: localhost", *upgrade, "", "")).encode())
    assert rest(client).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked", "xchunked", "gzip", "identity", "chunked;q=1"])
@pytest.mark.parametrize("upgrade", [(), H2C])
def test_another_transfer_coding_is_refused(client: socket.socket, coding: str, upgrade: tuple[str, ...]) -> None:
    client.sendall(request("/echo", f"Transfer-Encoding: {coding}", *upgrade) + b"1\r\na\r\n0\r\n\r\n")
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_two_transfer_codings_are_refused(client: socket.socket) -> None:
    client.sendall(request("/echo", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
    assert b"the only Transfer-Encoding that this server takes is chunked" in rest(client)


@pytest.mark.parametrize(("path", "body"), [("/stream", b"first /stream"), ("/early", b"/early")])
def test_an_answer_to_http_1_0_ends_with_the_connection(client: socket.socket, path: str, body: bytes) -> None:
    client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    head, _, sent = rest(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert sent == body


def test_a_body_that_was_answered_already_is_read_only_so_far(client: socket.socket) -> None:
    client.sendall(request("/early", f"Content-Length: {2**40}"))
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    sent = 0
    with suppress(ConnectionError):
        while sent < 4 * MOST_DISCARDED:
            sent += client.send(b"x" * 65536)
    assert MOST_DISCARDED < sent < 2 * MOST_DISCARDED


class Wire(asyncio.Transport):
    """Notes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_the_head_of_an_answer_goes_with_what_follows_at_once() -> None:
    async def answer(*pieces: bytes, closes: bool = False, waits: bool = False) -> list[bytes]:
        wire = Wire()
        written = OneWrite(asyncio.get_running_loop(), wire)
        for piece in pieces:
            written.write(piece)
            if waits:
                await asyncio.sleep(0)
        if closes:
            written.close()
        before = list(wire.written)
        await asyncio.sleep(0)
        assert wire.closed == closes
        return wire.written if not closes else before

    assert asyncio.run(answer(b"head ", b"body ", b"more")) == [b"head body ", b"more"]
    assert asyncio.run(answer(b"head ", b"body ", waits=True)) == [b"head ", b"body "]
    assert asyncio.run(answer(CONTINUE, b"head ", b"body")) == [CONTINUE, b"head body"]
    assert asyncio.run(answer(b"head ", CONTINUE)) == [b"head " + CONTINUE]
    assert asyncio.run(answer(b"head ")) == [b"head "], "nothing follows, as after HEAD"
    assert asyncio.run(answer(b"head ", closes=True)) == [b"head "], "and then it is closed"


def test_the_answer_to_head_is_sent_though_the_connection_is_closed_at_once() -> None:
    """By a server that is told to stop just then, or for what came behind the request."""
    server: list[BoundedConnection] = []

    async def stopped(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        server[0].shutdown()

    def connection() -> BoundedConnection:
        server.append(BoundedConnection(config, ServerState(), {}))
        return server[0]

    async def answer() -> bytes:
        async with asyncio.timeout(PATIENCE):
            listening = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
            async with listening:
                reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
                writer.write(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                told = await reader.read()
                writer.close()
                return told

    config = uvicorn.Config(stopped, lifespan="off", log_config=None, access_log=False)
    config.load()
    assert uvloop.run(answer()).startswith(b"HTTP/1.1 200 OK\r\n")
