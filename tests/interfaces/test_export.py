"""The whole log as lines: however long it is and however slowly it is read, the server's memory stays as it is."""

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import Process

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

MIB = 1024 * 1024
JOBS, INPUT = 40_000, "x" * 1_500
GROWTH = 32 * MIB
"""Half of what the log has as lines; it was 5 MiB."""
LINES = {"accept": "application/x-ndjson"}


@pytest.fixture
def exporting(service: "Service", dsn: str, start: "Start") -> Process:
    """A server of its own over a log of 60 MiB, which did not take part in writing it."""
    for _ in range(JOBS // 5_000):
        jobs = [{"kind": "exported", "input": INPUT}] * 5_000
        assert service.http.post("/v1/jobs/batch", json={"jobs": jobs}).status_code == 202
    return start("api", "--port", "0", DATABASE_URL=dsn)


def test_an_export_takes_no_more_memory_the_longer_it_is(exporting: Process) -> None:
    url, process = exporting.url, psutil.Process(exporting.process.pid)
    warm = httpx2.get(f"{url}/v1/events?limit=2000", headers=LINES, timeout=60)
    assert warm.text.count("\n") == 2_000
    before, seen = process.memory_info().rss, []
    stuck = [reader(url) for _ in range(5)]
    lines = size = 0
    with httpx2.stream("GET", f"{url}/v1/events", headers=LINES, timeout=60) as answer:
        for chunk in answer.iter_bytes():
            lines, size = lines + chunk.count(b"\n"), size + len(chunk)
            seen.append(process.memory_info().rss)
    for one in stuck:
        one.close()
    assert (lines, size > 60 * MIB) == (JOBS, True)
    assert max(seen) - before < GROWTH, f"{(max(seen) - before) / MIB:.0f} MiB more, with five that do not read on"


def reader(url: str) -> socket.socket:
    """Asks for all of the log, and reads nothing but the beginning of the answer."""
    where = urlsplit(url)
    connection = socket.create_connection((str(where.hostname), where.port or 80), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    request = f"GET /v1/events HTTP/1.1\r\nHost: {where.netloc}\r\nAccept: {LINES['accept']}\r\n\r\n"
    connection.sendall(request.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection
