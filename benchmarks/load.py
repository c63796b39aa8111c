"""A plain HTTP load: `python -m benchmarks.load URL CONNECTIONS SECONDS [BODY]` prints the requests per second.

Keep-alive connections, each with one request under way; a POST with BODY where there is one. It parses no more of an
answer than its status and its length, so that little of the machine's time goes to the client.
"""

import asyncio
import re
import sys
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, done: "list[int]") -> None:
        self._request = request
        self._done = done
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if length and len(body) < int(length[1]):
            return
        if head[9:10] != b"2":
            raise SystemExit(f"unexpected answer: {head.decode()}")
        self._done[0] += 1
        self._buffer = b""
        assert self._transport
        self._transport.write(self._request)


async def load(url: str, connections: int, seconds: float, body: bytes | None) -> float:
    """Requests per second, over `seconds`, after a fifth of that to warm up."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request, done = head.encode() + b"\r\n" + (body or b""), [0]
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(partial(_Connection, request, done), parts.hostname, parts.port)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds / 5)
    begun, before = loop.time(), done[0]
    await asyncio.sleep(seconds)
    rate = (done[0] - before) / (loop.time() - begun)
    for transport, _ in made:
        transport.close()
    return rate


if __name__ == "__main__":
    url, connections, seconds, *rest = sys.argv[1:]
    given = rest[0].encode() if rest else None
    print(uvloop.run(load(url, int(connections), float(seconds), given)))
