"""Requests that are too large, doubly headed, half sent or no HTTP: refused, and the server is as before."""

import gzip
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.interfaces.malformed import (
    JOB,
    KIB,
    MIB,
    MULTIPART,
    NO_JSON,
    POSTS,
    connected,
    exchange,
    request,
    told,
    whole,
    with_input,
)

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Send, Service

Json = Any

pytestmark = pytest.mark.usefixtures("nothing_recorded")


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonp", "*/*"]
)
@pytest.mark.parametrize("path", POSTS)
def test_another_media_type_is_refused(service: "Service", send: "Send", path: str, media_type: str) -> None:
    answer = service.http.post(path, content=b"{}", headers={"content-type": media_type})
    assert "application/json" in service.problem(answer, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/claims", "/v1/visualizations"])
def test_a_body_over_one_mebibyte_is_too_large(service: "Service", send: "Send", path: str) -> None:
    for size in (MIB + 1, 10 * MIB):
        service.problem(send(path, b'{"a":"' + b"x" * (size - 8) + b'"}'), 413, "too-large")
    assert service.invalid(send(path, b'{"a":"' + b"x" * (MIB - 8) + b'"}')) != []


def test_a_body_over_the_limit_is_too_large_though_it_does_not_say_its_length(service: "Service") -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(30):
            sent += 100 * KIB
            yield b"x" * (100 * KIB)

    answer = service.http.post("/v1/jobs", content=pieces(), headers={"content-type": "application/json"})
    service.problem(answer, 413, "too-large")
    assert sent > MIB


def test_a_batch_over_32_mebibytes_is_too_large(service: "Service", send: "Send") -> None:
    service.problem(send("/v1/jobs/batch", b" " * (32 * MIB + 1)), 413, "too-large")


def test_a_length_that_is_announced_but_too_large_is_refused_before_it_is_sent(service: "Service") -> None:
    assert b" 413 " in exchange(service, request("POST /v1/jobs", "Content-Length: 99999999999"))


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/reports", "/v1/claims", "/v1/visualizations"])
def test_a_packed_body_is_no_media_type_of_ours(service: "Service", path: str) -> None:
    """It would be told that it is no JSON, or as JSON be taken for what it does not say it is."""
    for media_type in ("application/json", MULTIPART) if path == "/v1/visualizations" else ("application/json",):
        headers = {"content-type": media_type, "content-encoding": "gzip"}
        answer = service.http.post(path, content=gzip.compress(b"{}"), headers=headers)
        assert "Content-Encoding" in service.problem(answer, 415, "unsupported-media-type")["detail"]
        assert answer.headers["accept-encoding"] == "identity"


def test_an_input_over_256_kibibytes_is_too_large(service: "Service", send: "Send") -> None:
    answer = send("/v1/jobs", with_input(b'"' + b"x" * (256 * KIB - 1) + b'"'))
    assert "artifact" in service.problem(answer, 413, "too-large")["detail"]


@pytest.mark.parametrize("said", ["result", "output", "handle"])
def test_what_a_worker_says_has_256_kibibytes_at_most(service: "Service", held: Json, said: str) -> None:
    type = {"type": "completed"} if said == "result" else {"type": "progressed", "step": "s"}
    report = {"job_id": held["id"], "attempt": 1, **type, said: "x" * (256 * KIB - 1)}
    assert service.report(report)[0]["problem"]["code"] == "too-large"


@pytest.mark.parametrize(
    ("line", "headers", "named"),
    [
        ("POST /v1/jobs", ("Content-Type: application/json",), "Content-Type"),
        ("POST /v1/jobs", ("Content-Type: text/plain",), "Content-Type"),
        ("POST /v1/visualizations", ("Content-Type: multipart/form-data; boundary=b",), "Content-Type"),
        (f"PUT /v1/jobs/{uuid4()}/attempts/1/artifacts/a?worker=w", ("Content-Type: text/plain",), "Content-Type"),
        ("POST /v1/jobs", ("Idempotency-Key: a", "Idempotency-Key: b"), "Idempotency-Key"),
        ("POST /v1/jobs/batch", ("Idempotency-Key: a", "Idempotency-Key: a"), "Idempotency-Key"),
        ("GET /v1/events", ("Last-Event-ID: 1", "Last-Event-ID: 2"), "Last-Event-ID"),
    ],
)
def test_a_header_that_must_be_single_is_refused_when_it_is_not(
    service: "Service", line: str, headers: tuple[str, ...], named: str
) -> None:
    body = json.dumps({"jobs": [JOB]} if "batch" in line else JOB).encode()
    status, problem = told(
        whole(service, request(line, "Connection: close", f"Content-Length: {len(body)}", *headers) + body)
    )
    assert (status, [error["field"] for error in problem["errors"]]) == (400, [named])


def test_lines_of_if_none_match_are_one_list(service: "Service", held: Json) -> None:
    etag = service.http.get(f"/v1/jobs/{held['id']}").headers["etag"]
    for tags, status in (([etag, '"99"'], b" 304 "), (['"98"', etag], b" 304 "), (['"98"', '"99"'], b" 200 ")):
        lines = [f"If-None-Match: {tag}" for tag in tags]
        assert status in exchange(service, request(f"GET /v1/jobs/{held['id']}", *lines)).partition(b"\r\n")[0]


def test_lines_of_if_match_are_one_list(service: "Service", send: "Send", held: Json) -> None:
    """The job runs, so a retry that its version lets through is a conflict."""
    etag, body = service.http.get(f"/v1/jobs/{held['id']}").headers["etag"], b'{"reason":"because"}'
    for tags, status in (([etag, '"99"'], 409), (['"98"', etag], 409), (['"98"', '"99"'], 412), (['"98"', "*"], 400)):
        lines = ["Connection: close", *(f"If-Match: {tag}" for tag in tags)]
        asked = request(f"POST /v1/jobs/{held['id']}/retries", f"Content-Length: {len(body)}", *lines) + body
        assert told(whole(service, asked))[0] == status


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost"), ("localhost", "example.org")])
@pytest.mark.parametrize("path", ["/v1/jobs", "/livez", "/nowhere"])
def test_a_request_names_one_host(service: "Service", path: str, hosts: tuple[str, ...]) -> None:
    lines = [f"GET {path} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    status, problem = told(whole(service, "\r\n".join(lines).encode()))
    assert (status, problem["code"]) == (400, "invalid")


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/livez", "", 403), ("/livez", "Host: localhost\r\n", 200), ("/v1/events", "Host: localhost\r\n", 200)],
)
def test_http_1_0_is_answered_without_chunks_and_hung_up_on(
    service: "Service", path: str, host: str, status: int
) -> None:
    answer = whole(service, f"GET {path} HTTP/1.0\r\n{host}Accept: application/x-ndjson\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"transfer-encoding" not in head.lower()
    assert all(json.loads(line) for line in body.splitlines())


def test_half_requests_disturb_nobody(service: "Service") -> None:
    whole = request("POST /v1/jobs", "Content-Length: 26") + json.dumps(JOB).encode()
    assert whole.endswith(b"}")
    for length in (0, 1, 20, len(whole) - 27, len(whole) - 26, len(whole) - 1):
        with connected(service) as connection:
            connection.sendall(whole[:length])
        assert service.http.get("/livez").status_code == 200


def test_a_chunked_body_that_ends_in_the_middle_creates_nothing(service: "Service") -> None:
    body = json.dumps(JOB).encode()
    with connected(service) as connection:
        connection.sendall(request("POST /v1/jobs", "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + body)


BROKEN_OFF = {
    "a length": ("Content-Length: 100\r\nContent-Type: application/json", b'{"kind":'),
    "a form": ("Content-Length: 100\r\nContent-Type: multipart/form-data; boundary=b", b"--b\r\n"),
    "chunks": ("Transfer-Encoding: chunked\r\nContent-Type: application/json", b'5\r\n{"kin'),
    "a bad chunk": ("Transfer-Encoding: chunked\r\nContent-Type: application/json", b'5\r\n{"kin\r\nnonsense\r\n'),
}


def test_a_body_that_breaks_off_is_no_failure_of_ours(dsn: str, start: "Start") -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn)
    place, attempt = urlsplit(server.url), f"/v1/jobs/{uuid4()}/attempts/1/artifacts/a?worker=w1"
    calls = (*((f"POST {path}") for path in POSTS), f"PUT {attempt}")
    for call, (headers, begun) in itertools.product(calls, BROKEN_OFF.values()):
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(f"{call} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + begun)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    started = len(server.output)
    server.stop()
    server.close()
    told = server.output[started:]
    assert not [line for line in server.output if "Traceback" in line or "rror" in line]
    assert len(told) <= len(calls) * len(BROKEN_OFF)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"FETCH /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["garbage", "TLS", "an unknown method", "a negative length", "two lengths"],
)
def test_what_is_no_http_is_refused(service: "Service", sent: bytes) -> None:
    assert b" 400 " in exchange(service, sent).partition(b"\r\n")[0]


def test_many_bad_requests_at_once_leave_the_server_as_it_was(service: "Service", send: "Send") -> None:
    bodies = [*NO_JSON.values(), with_input(b"[" * 100_000)]
    codes: list[int] = []

    def ask() -> None:
        codes.extend(send("/v1/jobs", body).status_code for body in bodies)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert codes == [400] * 4 * len(bodies)
