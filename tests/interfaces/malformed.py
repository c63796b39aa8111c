"""Requests that are at fault: what their tests share, and how they are written to a socket by hand."""

import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
KIB = 1024
MIB = 1024 * KIB
JOB = {"kind": "test", "input": 1}
POSTS = ("/v1/jobs", "/v1/jobs/batch", "/v1/claims", "/v1/reports", "/v1/visualizations", "/v1/presentations")

MULTIPART = "multipart/form-data; boundary=b"


def with_input(written: bytes) -> bytes:
    """A new job with an input written like this."""
    return b'{"kind":"test","input":' + written + b"}"


NO_JSON = {
    "nothing": b"",
    "blanks": b" \n",
    "half an object": b'{"kind":"test","input":',
    "an object and more": with_input(b"1") + b"x",
    "single quotes": b"{'kind':'test','input':1}",
    "a trailing comma": b'{"kind":"test","input":1,}',
    "a comment": with_input(b"/* 1 */ 1"),
    "a byte order mark": b"\xef\xbb\xbf" + with_input(b"1"),
    "UTF-16": json.dumps(JOB).encode("utf-16"),
    "a raw NUL": with_input(b'"\x00"'),
    "a raw line break in a string": with_input(b'"\n"'),
    "invalid UTF-8": with_input(b'"\xff"'),
    "invalid UTF-8 in a key": with_input(b'{"\xc3(":1}'),
    "overlong UTF-8": with_input(b'"\xc0\x80"'),
    "a surrogate in UTF-8": with_input(b'"\xed\xa0\x80"'),
    "a lone high surrogate": with_input(b'"\\ud800"'),
    "a lone high surrogate before text": with_input(b'"\\ud800 text"'),
    "a lone low surrogate": with_input(b'{"a":["\\udc00"]}'),
    "a lone surrogate in a key": with_input(b'{"\\udfff":1}'),
    "NaN": with_input(b"NaN"),
    "Infinity": with_input(b"[-Infinity]"),
    "a number beyond all floats": with_input(b"1e999"),
    "an integer of 5 000 digits": with_input(b"9" * 5000),
    "a leading zero": with_input(b"007"),
    "no JSON at all": b"\x00\x01\x02\xfe",
}


def request(line: str, *headers: str) -> bytes:
    """The head of a request with JSON."""
    named = ("Host: localhost", "Content-Type: application/json", *headers)
    return "\r\n".join((f"{line} HTTP/1.1", *named, "", "")).encode()


def connected(service: "Service") -> socket.socket:
    place = urlsplit(service.url)
    assert place.hostname
    assert place.port
    return socket.create_connection((place.hostname, place.port), timeout=30)


def exchange(service: "Service", sent: bytes) -> bytes:
    """The beginning of the answer to these bytes."""
    with connected(service) as connection:
        with suppress(OSError):
            connection.sendall(sent)
        return connection.recv(65536)


def whole(service: "Service", sent: bytes) -> bytes:
    """All of the answer to these bytes, after which the server hangs up."""
    with connected(service) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def told(answer: bytes) -> tuple[int, Json]:
    """The status of a whole answer, and what it tells."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
