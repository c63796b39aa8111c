"""Open mode: without keys the service serves only this machine, and no foreign page."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httpx2
import pytest

from application.keys import NewKey, make_key
from infrastructure.postgres.database import Database
from infrastructure.postgres.keys import PostgresKeys
from interfaces import bootstrap
from interfaces.http.app import create_app
from interfaces.http.guard import COOKIE
from interfaces.settings import Settings
from tests.infrastructure.nodes import migrated
from tests.interfaces.conftest import LEAKS

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

HERE = ("localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "[::1]")
ELSEWHERE = (
    "example.org",
    "localhost.example.org",
    "127.0.0.1.example.org",
    "127.example.org",
    "localhost:8000@example.org",
    "0.0.0.0",
    "10.0.0.1",
    "[::]",
    "[::1",
    "",
)


@pytest.mark.parametrize("host", [*HERE, *(f"{name}:8000" for name in HERE)])
def test_loopback_is_served_by_any_of_its_names(service: "Service", host: str) -> None:
    assert service.http.get("/v1/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", [*ELSEWHERE, *(f"{name}:8000" for name in ELSEWHERE if name)])
def test_another_host_is_refused(service: "Service", nothing_recorded: None, host: str) -> None:
    for path in ("/v1/jobs", "/livez", "/schema/openapi.json", "/problems/invalid"):
        service.problem(service.http.get(path, headers={"host": host}), 403, "forbidden")
    answer = service.http.post("/v1/jobs", json={"kind": "test", "input": 1}, headers={"host": host})
    service.problem(answer, 403, "forbidden")


def test_the_service_s_own_origin_is_served(service: "Service") -> None:
    answer = service.http.post("/v1/jobs", json={"kind": "test", "input": 1}, headers={"origin": service.url})
    assert answer.status_code == 202


def test_the_origin_is_the_service_s_own_by_the_name_it_was_called(service: "Service") -> None:
    for host in ("localhost:8000", "[::1]:8000"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert service.http.get("/v1/jobs", headers=headers).status_code == 200


def test_a_page_of_another_origin_is_refused(service: "Service", nothing_recorded: None) -> None:
    place = urlsplit(service.url)
    for origin in (
        "http://example.org",
        f"http://localhost:{place.port}",
        f"http://{place.hostname}",
        f"http://{place.hostname}:1",
        f"http://{place.netloc}.example.org",
        f"http://{place.netloc}@example.org",
        "null",
        "",
        "http://[",
        "file://",
    ):
        headers = {"origin": origin}
        answer = service.http.post("/v1/jobs", json={"kind": "test", "input": 1}, headers=headers)
        service.problem(answer, 403, "forbidden")
        service.problem(service.http.get("/v1/jobs", headers=headers), 403, "forbidden")


def test_a_foreign_page_that_asks_first_is_not_let_in(service: "Service", nothing_recorded: None) -> None:
    headers = {"origin": "http://example.org", "access-control-request-method": "POST"}
    answer = service.http.options("/v1/jobs", headers=headers)
    service.problem(answer, 403, "forbidden")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/livez", "/v1/jobs", "/v1/jobs/x", "/nowhere", "/", "/schema/openapi.json"])
def test_no_answer_is_taken_for_what_it_does_not_say_it_is(api: str, path: str) -> None:
    assert httpx2.get(f"{api}{path}").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/jobs/x", 400),
        ("GET", "/v1/jobs/01a20032-d14b-79ae-8f97-c9b5fd507266", 404),
        ("GET", "/v1/jobs/01a20032-d14b-79ae-8f97-c9b5fd507266/events", 404),
        ("GET", "/nowhere", 404),
        ("PATCH", "/v1/jobs", 405),
        ("POST", "/v1/jobs", 400),
        ("GET", "/metrics", 200),
        ("GET", "/schema/openapi.json", 200),
        ("GET", "/problems/invalid", 200),
        ("OPTIONS", "/v1/jobs", 204),
    ],
)
def test_no_answer_is_framed_run_or_followed_back(api: str, method: str, path: str, status: int) -> None:
    answer = httpx2.request(method, f"{api}{path}")
    assert answer.status_code == status
    said = {name: answer.headers.get_list(name) for name in ("content-security-policy", "x-content-type-options")}
    assert [len(values) for values in said.values()] == [1, 1]
    assert "default-src 'none'" in said["content-security-policy"][0]
    assert "frame-ancestors 'none'" in said["content-security-policy"][0]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"this is no HTTP\r\n\r\n",
    ],
)
def test_nor_is_what_is_answered_before_a_request_is_looked_at(api: str, sent: bytes) -> None:
    place = urlsplit(api)
    with socket.create_connection((place.hostname or "", place.port or 0), 30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).lower()
    for header in (
        b"content-security-policy: default-src 'none'",
        b"x-content-type-options: nosniff",
        b"x-frame-options",
    ):
        assert answer.count(header) == 1, answer


def test_nor_is_a_fault_of_ours(dsn: str, tmp_path: Path) -> None:
    """Whatever breaks in a handler is a problem without words of the inside, with the same headers."""

    async def story() -> httpx2.Response:
        service = bootstrap.Service(Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path}))
        transport = httpx2.ASGITransport(cast("Any", create_app(service)))
        jobs, service.jobs = service.jobs, cast("Any", None)
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.get("/v1/jobs")
        finally:
            service.jobs = jobs
            await service.close()

    answer = asyncio.run(story())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert not LEAKS.search(answer.text)


def test_an_open_service_that_is_sent_a_key_looks_whether_there_are_keys_by_now(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    """Nothing looks for keys beside the requests here, as if the next look were still to come."""
    dsn = migrated(new_database())

    async def story() -> tuple[list[Any], list[int]]:
        service = bootstrap.Service(Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path}))
        transport = httpx2.ASGITransport(cast("Any", create_app(service)))
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
                key = {"Authorization": "Bearer jl_admin_nonsense"}
                before = await http.post("/v1/jobs", json={"kind": "k", "input": 1}, headers=key)
                database = Database(dsn)
                secret = make_key(PostgresKeys(database), NewKey(name="first", role="admin"), "test").secret
                database.close()
                key = {"Authorization": f"Bearer {secret}"}
                after = await http.post("/v1/jobs", json={"kind": "k", "input": 1}, headers=key)
                without = await http.get("/v1/jobs")
                by = []
                for answer in (before, after):
                    path = f"/v1/jobs/{answer.json()['id']}/events"
                    by.append((await http.get(path, headers=key)).json()["items"][0]["by"])
                return by, [before.status_code, after.status_code, without.status_code]
        finally:
            await service.close()

    assert asyncio.run(story()) == (["anonymous", "key:first"], [202, 202, 401])


@pytest.mark.parametrize("sent", ["a cookie", "a form"])
def test_a_key_in_a_cookie_or_a_form_makes_it_look_too(
    new_database: Callable[[], str], tmp_path: Path, sent: str
) -> None:
    dsn = migrated(new_database())

    async def story() -> httpx2.Response:
        service = bootstrap.Service(Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": tmp_path}))
        transport = httpx2.ASGITransport(cast("Any", create_app(service)))
        try:
            assert await service.keys.is_open()
            database = Database(dsn)
            secret = make_key(PostgresKeys(database), NewKey(name="first", role="admin"), "test").secret
            database.close()
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
                if sent == "a cookie":
                    return await http.get("/jobs", headers={"Cookie": f"{COOKIE}={secret}"})
                return await http.post("/sign-in", data={"key": secret}, headers={"Origin": "http://localhost"})
        finally:
            await service.close()

    answer = asyncio.run(story())
    assert ("key:first" in answer.text) if sent == "a cookie" else (COOKIE in answer.headers["set-cookie"])


def test_head_is_answered_wherever_get_is(api: str) -> None:
    for path in ("/livez", "/v1/jobs", "/schema/openapi.json"):
        got, head = httpx2.get(f"{api}{path}"), httpx2.head(f"{api}{path}")
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
