"""What the console weighs on the wire, and what is never compressed."""

import gzip
import random
import socket
import string
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.console.conftest import Console

HEAVIEST = 60_000
"""Bytes of the first page of the jobs, headers and all."""


def raw(console: Console, path: str, *headers: str, method: str = "GET") -> tuple[dict[str, str], bytes, int]:
    """An answer as it comes through a socket: its headers, its content, and the bytes of both."""
    place = urlsplit(console.url)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", "Connection: close", *headers, "", ""]
    with socket.create_connection((place.hostname or "", place.port or 0), 30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    named = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value for name, _, value in named}, content, len(answer)


@pytest.fixture(scope="module")
def heavy(console: Console) -> list[str]:
    """A page of jobs whose inputs, labels and messages are long and alike in nothing."""
    chance = random.Random(7)

    def long(length: int) -> str:
        return "".join(chance.choices(string.ascii_letters + string.digits, k=length))

    ids = []
    for n in range(50):
        labels = {long(100): long(500) for _ in range(20)}
        ids.append(console.create(kind=long(200), queue=f"heavy-{n}", input={"text": long(50_000)}, labels=labels))
        console.claim(f"heavy-{n}")
        console.report(ids[-1], "progressed", progress=0.5, message=long(2_000))
    return ids


def test_the_first_page_of_long_jobs_is_light(console: Console, heavy: list[str]) -> None:
    plain, content, _ = raw(console, "/jobs")
    headers, packed, weight = raw(console, "/jobs", "Accept-Encoding: gzip, deflate, br, zstd")
    assert all(f"/jobs/{id}".encode() in content for id in heavy)
    assert weight <= HEAVIEST
    assert weight < len(content) / 2
    assert gzip.decompress(packed).count(b'class="row ') == content.count(b'class="row ') == 50
    assert headers["content-encoding"] == "gzip"
    assert headers["content-length"] == str(len(packed))
    assert "content-encoding" not in plain
    assert plain["vary"] == headers["vary"] == "Accept-Encoding"
    assert "etag" not in headers


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("GZIP;q=0.5", True),
        ("br, *", True),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("br, gzip;q=0.000", False),
        ("xgzip, gzipped", False),
        ("gzip;q=nonsense", False),
        ("", False),
    ],
)
def test_who_does_not_take_gzip_is_sent_none(console: Console, accepted: str, packed: bool) -> None:
    for path in ("/new", "/static/console.css"):
        headers, content, _ = raw(console, path, f"Accept-Encoding: {accepted}")
        assert ("content-encoding" in headers) == packed
        assert (content[:2] == b"\x1f\x8b") == packed


def test_each_coding_of_a_file_has_an_etag_of_its_own(console: Console) -> None:
    path, taking = "/static/console.css", "Accept-Encoding: gzip"
    plain, content, _ = raw(console, path)
    packed, zipped, _ = raw(console, path, taking)
    assert gzip.decompress(zipped) == content
    assert len(zipped) < len(content) / 2
    assert packed["etag"] != plain["etag"]
    assert packed["vary"] == plain["vary"] == "Accept-Encoding"
    for etag, headers, known in (
        (plain["etag"], (), True),
        (packed["etag"], (taking,), True),
        (plain["etag"], (taking,), False),
        (packed["etag"], (), False),
        (f'"x", W/{packed["etag"]}', (taking,), True),
    ):
        told, sent, _ = raw(console, path, f"If-None-Match: {etag}", *headers)
        assert (sent == b"") == known, (etag, headers)
        assert told["vary"] == "Accept-Encoding"
        assert ("content-encoding" in told) == (bool(headers) and not known)


def test_head_tells_of_what_get_sends(console: Console) -> None:
    for path in ("/new", "/static/console.css"):
        got, content, _ = raw(console, path, "Accept-Encoding: gzip")
        told, nothing, _ = raw(console, path, "Accept-Encoding: gzip", method="HEAD")
        assert nothing == b""
        assert told["content-length"] == got["content-length"] == str(len(content))


def test_nothing_else_is_compressed(console: Console) -> None:
    """Neither a page with signed links, whose length would tell of them, nor a stream, nor anything of the API."""
    id: Any = console.create(queue="plain")
    console.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "a test"}).raise_for_status()
    for path, accept in (
        (f"/jobs/{id}", "text/html"),
        (f"/v1/jobs/{id}/events", "text/event-stream"),
        (f"/v1/jobs/{id}/events", "application/x-ndjson"),
        ("/v1/jobs", "application/json"),
        ("/schema/openapi.json", "application/json"),
        ("/metrics", "text/plain"),
    ):
        headers, content, _ = raw(console, path, "Accept-Encoding: gzip", f"Accept: {accept}")
        assert "content-encoding" not in headers, path
        assert content, path
