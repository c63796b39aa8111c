"""What HTTP itself promises, whoever the client is: HEAD, OPTIONS, weights, headers on several lines, trailers."""

import http.client
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any
SHOP = "https://shop.example.org"


@pytest.fixture
def running(service: "Service", queue: str) -> Json:
    """A job that w1 has and goes on with."""
    return service.running(queue)


def exchange(service: "Service", *lines: str, body: bytes = b"", host: bool = True) -> bytes:
    """All that the server answers to a request until it hangs up; without `host` the lines name one."""
    place = urlsplit(service.url)
    with socket.create_connection((str(place.hostname), place.port or 80), 30) as connection:
        head = (lines[0], *[f"Host: {place.netloc}"] * host, *lines[1:], "", "")
        connection.sendall("\r\n".join(head).encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("path", ["/v1/jobs/{id}/events", "/v1/events"])
@pytest.mark.parametrize("media_type", ["text/event-stream", "application/x-ndjson"])
def test_head_of_a_stream_is_answered_at_once_and_another_request_follows(
    service: "Service", running: Json, path: str, media_type: str
) -> None:
    path = path.format(id=running["id"])
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        connection.request("HEAD", path, headers={"Accept": media_type})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["content-type"].startswith(media_type)
        assert "content-length" not in answer.headers
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200


def test_head_of_a_file_is_not_of_a_part_of_it(service: "Service", running: Json) -> None:
    files = f"/v1/jobs/{running['id']}/attempts/1/artifacts/a.txt?worker=w1"
    assert service.http.put(files, content=b"0123456789").status_code == 201
    place, part = f"/v1/jobs/{running['id']}/artifacts/a.txt", {"range": "bytes=0-3"}
    assert service.http.get(place, headers=part).status_code == 206
    answer = service.http.head(place, headers=part)
    assert (answer.status_code, answer.headers["content-length"]) == (200, "10")
    assert "content-range" not in answer.headers


def test_methods_that_are_allowed_have_head_where_there_is_get(service: "Service") -> None:
    assert service.http.put("/v1/jobs").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert service.http.options("/v1/jobs").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert service.http.get("/v1/claims").headers["allow"] == "OPTIONS, POST"
    assert service.http.options("/v1/claims").headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json;q=0, application/x-ndjson", "application/x-ndjson"),
        ("application/json;q=0.4, application/x-ndjson; q=0.5", "application/x-ndjson"),
        ("text/event-stream;q=0.1, application/json", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("application/x-ndjson;Q=1.000", "application/x-ndjson"),
        ("text/html, */*;q=0.8", "application/json"),
        ("application/x-ndjson; charset=utf-8;q=0.2, */*;q=0.1", "application/x-ndjson"),
    ],
)
def test_events_come_in_the_format_that_accept_likes_best(
    service: "Service", running: Json, accept: str, media_type: str
) -> None:
    answer = service.http.head(f"/v1/jobs/{running['id']}/events", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(media_type)


def test_lists_in_headers_may_stand_on_several_lines(service: "Service", running: Json) -> None:
    events = f"/v1/jobs/{running['id']}/events"
    several = [("accept", "text/html"), ("accept", "application/x-ndjson")]
    assert service.http.get(events, headers=several).headers["content-type"].startswith("application/x-ndjson")
    preferred = [("prefer", "respond-async"), ("prefer", "wait=0")]
    assert service.http.get(f"/v1/jobs/{running['id']}", headers=preferred).headers["preference-applied"] == "wait=0"


def test_a_wait_of_any_length_is_one_of_a_minute(service: "Service", queue: str) -> None:
    done = service.completed(queue)
    answer = service.http.get(f"/v1/jobs/{done['id']}", headers={"prefer": f"wait={'9' * 400}"})
    assert answer.headers["preference-applied"] == "wait=60"


def test_what_stands_behind_a_body_is_no_header(service: "Service") -> None:
    content = b'{"kind":"test","input":null}'
    body = b"%x\r\n%s\r\n0\r\nHost: elsewhere\r\nIdempotency-Key: behind\r\n\r\n" % (len(content), content)
    head = ("POST /v1/jobs HTTP/1.1", "Transfer-Encoding: chunked", "Trailer: Host", "Connection: close")
    answer = exchange(service, *head, body=body)
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    assert service.http.get(answer.partition(b"location: ")[2].split()[0].decode()).status_code == 200


@pytest.mark.parametrize("connection", ["close, Upgrade, HTTP2-Settings", "Upgrade, HTTP2-Settings, close"])
def test_who_offers_an_upgrade_for_the_last_request_is_answered(service: "Service", connection: str) -> None:
    content = b'{"kind":"test","input":null}'
    offered = (f"Connection: {connection}", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    answer = exchange(service, "POST /v1/jobs HTTP/1.1", *offered, f"Content-Length: {len(content)}", body=content)
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    assert exchange(service, "GET /livez HTTP/1.1", *offered).startswith(b"HTTP/1.1 200 ")


def test_blanks_behind_a_header_are_no_part_of_it(service: "Service") -> None:
    content, key = b'{"kind":"test","input":null}', uuid4().hex
    place = urlsplit(service.url).netloc
    head = (f"Host: {place} \t", "Transfer-Encoding: chunked ", f"Idempotency-Key:  {key} ", "Connection: close")
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    answer = exchange(service, "POST /v1/jobs HTTP/1.1", *head, body=sent, host=False)
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    again = service.http.post("/v1/jobs", content=content, headers={"idempotency-key": key})
    assert again.headers["idempotency-replayed"] == "true"


def test_every_list_says_what_follows(service: "Service", running: Json) -> None:
    job = f"/v1/jobs/{running['id']}"
    ofs = ("projections", "queues", "workers", "failures", "usage", "keys", "jobs", "events")
    audited = ("/v1/audit/keys", "/v1/audit/archives", "/v1/audit/accesses")
    for path in (*(f"/v1/{name}" for name in ofs), *audited, f"{job}/events", f"{job}/artifacts"):
        answer = service.http.get(path)
        assert answer.json().keys() == {"items", "next"}, path


def test_what_pages_elsewhere_may_not_ask_is_a_problem(service: "Service", start: "Start", dsn: str) -> None:
    shop = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ORIGINS=SHOP).url

    def preflight(method: str, headers: str) -> httpx2.Response:
        asked = {"access-control-request-method": method, "access-control-request-headers": headers}
        return httpx2.options(f"{shop}/v1/jobs", headers={"origin": SHOP, **asked})

    for method in ("GET", "HEAD", "PUT"):
        assert preflight(method, "authorization, if-range, content-digest").status_code == 204
    for method, headers, named in (("PATCH", "", "method"), ("GET", "x-mine", "headers")):
        told = service.problem(preflight(method, headers), 403, "forbidden")
        assert told["detail"].endswith(named)


def test_the_first_key_cannot_be_asked_for_and_how_it_is_made_is_told_in_full(service: "Service") -> None:
    asked = service.http.post("/v1/keys", json={"name": "anna", "role": "admin"})
    assert "`jobledger keys create --role admin --name NAME`" in service.problem(asked, 403, "forbidden")["detail"]
