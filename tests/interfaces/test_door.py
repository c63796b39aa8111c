"""What stands at the door: idle, slow and half-hearted connections, which cost little and keep nobody out."""

import itertools
import json
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import Process, Start
from tests.waiting import eventually

CROWD = 10_000
OURS = 500
"""Files that this process and the server need for themselves."""
PATIENCE = 60.0
SOON = 2.0
"""Seconds within which the server answers others, whoever stands at the door."""
MIB = 1024 * 1024
BYTES_EACH = 40 * 1024
"""Of the server's memory that a connection without a request may take up; it takes about 10 KiB."""
SPARE = 16
"""Files and connections, to the database and of others, that come and go by themselves."""
ROOM = 100 * MIB
"""Of the server's memory that comes and goes by itself."""


class Figures(NamedTuple):
    """What a crowd cost: the server's memory in bytes, its open files, and the slowest answer to others in seconds."""

    memory: int
    files: int
    slowest: float


class Door:
    """An API server of the module's own, and whoever stands at its door."""

    def __init__(self, server: Process) -> None:
        self.url = server.url
        self._process = psutil.Process(server.process.pid)
        self._crowd: list[socket.socket] = []
        self._trickling = threading.Event()
        self._trickler: threading.Thread | None = None
        self._here = itertools.cycle(f"127.0.0.{n}" for n in range(1, 9))
        self._http = httpx2.Client(base_url=self.url, timeout=PATIENCE)
        self._files_alone = self.files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.hang_up()
        self._http.close()

    @property
    def memory(self) -> int:
        """Bytes that the server has in memory."""
        bytes: int = self._process.memory_info().rss
        return bytes

    @property
    def files(self) -> int:
        """Files and connections that the server has open."""
        files: int = self._process.num_fds()
        return files

    def come(self, count: int, request: bytes = b"", receive_buffer: int | None = None) -> None:
        """Connect, say that and no more, and read nothing."""
        address = urlsplit(self.url)
        for _ in range(count):
            connection = socket.socket()
            connection.settimeout(PATIENCE)
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.bind((next(self._here), 0))  # one address alone would run out of ports
            connection.connect((address.hostname, address.port))
            with suppress(BlockingIOError):
                connection.sendall(request)
            self._crowd.append(connection)

    def trickle(self) -> None:
        """From now on the crowd sends a byte each, one after the other, over and over."""
        self._trickler = threading.Thread(target=self._trickle, args=(list(self._crowd),))
        self._trickler.start()

    def _trickle(self, crowd: list[socket.socket]) -> None:
        for connection in itertools.cycle(crowd):
            if self._trickling.wait(0.0005):
                return
            with suppress(OSError):
                connection.sendall(b"x")

    def hang_up(self) -> None:
        if self._trickler is not None:
            self._trickling.set()
            self._trickler.join()
            self._trickling.clear()
            self._trickler = None
        while self._crowd:
            self._crowd.pop().close()

    def serve_others(self, rounds: int = 20) -> float:
        """The slowest answer to others, who ask for life and create a job, each on a connection of its own."""
        slowest = 0.0
        for _ in range(rounds):
            with httpx2.Client(base_url=self.url, timeout=PATIENCE) as http:
                begun = time.monotonic()
                assert http.get("/livez").status_code == 200
                assert http.post("/v1/jobs", json={"kind": "test", "input": None}).status_code == 202
                slowest = max(slowest, time.monotonic() - begun)
        return slowest

    def job_with_events(self, count: int, size: int) -> str:
        """A running job with so many events of about that size."""
        queue = f"queue-{uuid4().hex}"
        body = {"kind": "test", "input": None, "queue": queue, "heartbeat_timeout": 3600}
        id: str = self._http.post("/v1/jobs", json=body).json()["id"]
        self._http.post("/v1/claims", json={"worker": "w", "queues": [queue]})
        for n in range(count):
            said = {"job_id": id, "attempt": 1, "type": "progressed", "step": f"step {n}", "output": "x" * size}
            answer = self._http.post("/v1/reports", json={"worker": "w", "reports": [said]})
            assert answer.json()["results"][0]["ok"], answer.text
        return id

    def fill_a_queue(self, count: int, size: int) -> str:
        queue = f"queue-{uuid4().hex}"
        job = {"kind": "test", "queue": queue, "input": "x" * size}
        assert self._http.post("/v1/jobs/batch", json={"jobs": [job] * count}).status_code == 202
        return queue

    def cpu_while(self, ask: Callable[[], bool], rounds: int) -> float:
        """The share of a processor that the server takes while somebody asks that often, with pauses."""
        begun, before = time.monotonic(), sum(self._process.cpu_times()[:2])
        for _ in range(rounds):
            assert ask()
            time.sleep(0.02)
        return float(sum(self._process.cpu_times()[:2]) - before) / (time.monotonic() - begun)

    def until_served(self) -> None:
        """Wait until others are answered again."""
        eventually(self._is_served, PATIENCE, "an answer")

    def _is_served(self) -> bool:
        with suppress(httpx2.TransportError), httpx2.Client(base_url=self.url, timeout=PATIENCE) as http:
            return http.get("/livez").status_code == 200
        return False

    def cost_of(self, gather: Callable[[], None], arrived: int) -> Figures:
        """What a crowd costs while it stands there; before this returns it has gone, and its connections with it."""
        self.serve_others(5)
        memory, files = self.memory, self._files_alone
        try:
            gather()
            eventually(lambda: self.files >= files + arrived - SPARE, PATIENCE, "all connections")
            slowest = self.serve_others()
            cost = Figures(self.memory - memory, self.files - files, slowest)
        finally:
            self.hang_up()
        eventually(lambda: self.files <= files + SPARE, PATIENCE, "an end of all connections")
        assert self.memory - memory <= max(cost.memory, 0) + ROOM
        return cost


@pytest.fixture
def crowd(capsys: pytest.CaptureFixture[str]) -> int:
    """How many come: fewer where a process may not open as many files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(CROWD, most - OURS)
    if count < CROWD:
        with capsys.disabled():
            print(f"\n{count} connections at the door instead of {CROWD}, with {most} files")
    return count


@pytest.fixture(scope="module")
def door(dsn: str, start_for_module: Start) -> Iterator[Door]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Door(start_for_module("api", "--port", "0", DATABASE_URL=dsn)) as door:
        yield door


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def test_a_job_that_comes_with_the_offer_of_an_upgrade_is_created(door: Door) -> None:
    """Java's HttpClient offers h2c with every first request."""
    body = b'{"kind": "test", "input": null}'
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    head = request("POST", "/v1/jobs", "Content-Type: application/json", f"Content-Length: {len(body)}", *offer)
    address = urlsplit(door.url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as client:
        client.sendall((head + body) * 2 + request("GET", "/livez", "Connection: close"))
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"202", b"202", b"200"]


def test_idle_connections_keep_nobody_out(door: Door, crowd: int) -> None:
    cost = door.cost_of(lambda: door.come(crowd), crowd)
    assert cost.slowest < SOON
    assert cost.memory < crowd * BYTES_EACH


def test_requests_whose_headers_never_end_keep_nobody_out(door: Door, crowd: int) -> None:
    half = request("GET", "/v1/jobs")[:-2] + b"X-Half: "
    cost = door.cost_of(lambda: door.come(crowd, half), crowd)
    assert cost.slowest < SOON
    assert cost.memory < crowd * BYTES_EACH


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/claims", "/v1/reports"])
def test_bodies_that_never_end_keep_nobody_out(door: Door, crowd: int, path: str) -> None:
    half = request("POST", path, "Content-Type: application/json", "Content-Length: 1000") + b'{"kind": "te'
    cost = door.cost_of(lambda: door.come(crowd // 4, half), crowd // 4)
    assert cost.slowest < SOON
    assert cost.memory < crowd // 4 * BYTES_EACH + ROOM


@pytest.mark.parametrize(
    "begun",
    [
        request("GET", "/v1/jobs")[:-2] + b"X-Slow: ",
        request("POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 100000") + b'{"kind": "',
        request(
            "POST", "/v1/visualizations", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 100000"
        ),
    ],
    ids=["headers", "bodies", "forms"],
)
def test_a_byte_now_and_then_keeps_nobody_out(door: Door, crowd: int, begun: bytes) -> None:
    def gather() -> None:
        door.come(crowd // 4, begun)
        door.trickle()

    cost = door.cost_of(gather, crowd // 4)
    assert cost.slowest < SOON
    assert cost.memory < crowd // 4 * BYTES_EACH + ROOM


def test_those_who_ask_for_much_in_one_go_keep_nobody_out(door: Door) -> None:
    """The first of their requests is answered without end, so that the others wait."""
    asked = request("GET", f"/v1/jobs/{door.job_with_events(1, 10)}/events", "Accept: text/event-stream") * 5000
    cost = door.cost_of(lambda: door.come(100, asked), 100)
    assert cost.slowest < SOON
    assert cost.memory < 100 * MIB // 2


def test_a_header_that_never_ends_is_refused_before_it_fills_the_memory(door: Door) -> None:
    before = door.memory
    address = urlsplit(door.url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as endless:
        endless.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(OSError, match=r"(?i)reset|broken|abort"):
            endless.sendall(b"".join(b"X-%d: %s\r\n" % (n, b"x" * 16384) for n in range(4096)))
    assert door.memory - before < ROOM
    assert door.serve_others() < SOON


def test_idle_followers_of_jobs_and_of_the_log_cost_little(door: Door, crowd: int) -> None:
    id = door.job_with_events(1, 10)
    one = request("GET", f"/v1/jobs/{id}/events", "Accept: text/event-stream")
    log = request("GET", "/v1/events?type=job.requeued", "Accept: text/event-stream")

    def gather() -> None:
        door.come(crowd // 4, one)
        door.come(crowd // 4, log)

    cost = door.cost_of(gather, crowd // 4 * 2)
    assert cost.slowest < SOON
    assert cost.memory < crowd // 2 * BYTES_EACH + ROOM


def test_followers_that_read_nothing_keep_a_page_in_memory_each_at_the_most(door: Door) -> None:
    id = door.job_with_events(40, 100_000)
    stuck = request("GET", f"/v1/jobs/{id}/events", "Accept: text/event-stream")
    cost = door.cost_of(lambda: door.come(20, stuck, receive_buffer=4096), 20)
    assert cost.slowest < SOON
    assert cost.memory < 20 * 40 * 100_000 * 2 + ROOM


def test_readers_of_a_big_list_that_read_nothing_keep_nobody_out(door: Door) -> None:
    queue = door.fill_a_queue(400, 10_000)
    big = request("GET", f"/v1/jobs?queue={queue}&limit=400")
    cost = door.cost_of(lambda: door.come(20, big, receive_buffer=4096), 20)
    assert cost.slowest < SOON
    assert cost.memory < 20 * 400 * 10_000 * 2 + ROOM


def test_a_slow_reader_of_a_big_list_gets_all_of_it(door: Door) -> None:
    queue = door.fill_a_queue(400, 10_000)
    address = urlsplit(door.url)
    with socket.socket() as slow:
        slow.settimeout(PATIENCE)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.hostname, address.port))
        slow.sendall(request("GET", f"/v1/jobs?queue={queue}&limit=400", "Connection: close"))
        assert door.serve_others() < SOON
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    _, _, body = answer.partition(b"\r\n\r\n")
    assert len(json.loads(body)["items"]) == 400


@pytest.mark.parametrize("files", [200, 60])
def test_a_server_with_few_files_goes_on_with_those_it_has_and_takes_others_when_they_have_left(
    dsn: str, start: Start, files: int
) -> None:
    """With 60 files there is no room for the spare ones, and accepting fails: it must not spin then, nor stop."""
    server = start("api", "--port", "0", DATABASE_URL=dsn)
    with Door(server) as door, httpx2.Client(base_url=server.url, timeout=PATIENCE) as early:
        door.serve_others(5)
        assert early.get("/livez").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (files, files))
        door.come(2 * files)
        assert door.cpu_while(lambda: early.get("/livez").status_code == 200, rounds=100) < 0.9
        if files == 200:
            assert early.post("/v1/jobs", json={"kind": "test", "input": None}).status_code == 202
            with httpx2.Client(base_url=server.url, timeout=PATIENCE) as late:
                answer = late.get("/livez")
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert answer.headers["retry-after"]
        door.hang_up()
        door.until_served()
        assert door.serve_others() < SOON
    assert "Traceback" not in "".join(server.output)
