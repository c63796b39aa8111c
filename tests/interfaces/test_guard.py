"""Open mode: without keys the service serves only this machine, and no foreign page."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

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


def test_head_is_answered_wherever_get_is(api: str) -> None:
    for path in ("/livez", "/v1/jobs", "/schema/openapi.json"):
        got, head = httpx2.get(f"{api}{path}"), httpx2.head(f"{api}{path}")
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
